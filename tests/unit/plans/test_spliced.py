"""What a splice plan may take in memory, whoever made it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from wszoo.errors import BuildError, LimitError
from wszoo.names import Ref
from wszoo.plans import spliced
from wszoo.plans.splice import pack, pack_base
from wszoo.progress import Silent
from wszoo.publish import read_published, write_plan
from wszoo.schema.plan import SPLICE, Kind
from wszoo.weights import gain


def test_a_program_larger_than_any_is_refused_before_memory_is_taken(origin, monkeypatch):
    """The size of the engine, which bounds it too, is the publisher's to choose."""
    monkeypatch.setattr(spliced, "MAX_BODY", 1 << 20)
    honest = next(plan for plan in read_published(origin, Ref.parse("net:1")).plans if plan.config.kind == Kind.SPLICE)
    layer = origin.blobs.put(pack(bytes(2 << 20)))
    plan = write_plan(origin, msgspec.structs.replace(honest.config, engine_bytes=1 << 40), [(SPLICE, layer)])
    with pytest.raises(LimitError, match="declares 2,097,152 bytes, more than the 1,048,576 allowed"):
        spliced.read_body(origin, plan.manifest, plan.config)


def test_a_plan_that_nobody_could_read_again_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(spliced, "MAX_BODY", 1000)
    path = tmp_path / "plan"
    path.write_bytes(np.random.default_rng(0).bytes(2000))
    with pytest.raises(BuildError, match="up to 1000 and"):
        spliced.splice(path, (), scales=(), base=None, progress=Silent(), label="net for rtx-sm89")


def test_a_program_of_few_bytes_that_decodes_to_many_is_refused_although_the_engine_is_as_large(origin, monkeypatch):
    monkeypatch.setattr(gain, "FREE_GAIN", 1 << 20)
    honest = next(plan for plan in read_published(origin, Ref.parse("net:1")).plans if plan.config.kind == Kind.SPLICE)
    assert spliced.read_body(origin, honest.manifest, honest.config)
    stored = pack(bytes(64 << 20))
    layer = origin.blobs.put(stored)
    plan = write_plan(origin, msgspec.structs.replace(honest.config, engine_bytes=64 << 20), [(SPLICE, layer)])
    most = gain.most_decoded(len(stored))
    assert most < 64 << 20
    with pytest.raises(LimitError, match=f"more than the {most:,} allowed"):
        spliced.read_body(origin, plan.manifest, plan.config)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pack", lambda _body, base: b"\3" + bytes(8)),
        ("pack", lambda _body, base: pack(b"other")),
        ("pack_base", pack_base),
    ],
)
def test_a_plan_whose_program_would_not_be_unpacked_as_it_was_packed_is_not_published(
    tmp_path, monkeypatch, name, wrong
):
    path = tmp_path / "plan"
    path.write_bytes(np.random.default_rng(0).bytes(2000))
    monkeypatch.setattr(spliced, name, wrong if name == "pack" else lambda body: wrong(body + b"more"))
    with pytest.raises(BuildError, match="would not be unpacked as it was packed"):
        spliced.splice(path, (), scales=(), base=None, progress=Silent(), label="net for rtx-sm89")


def test_a_plan_that_decodes_to_more_than_is_believed_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(gain, "FREE_GAIN", 1000)
    monkeypatch.setattr(gain, "MAX_GAIN", 2)
    path = tmp_path / "plan"
    path.write_bytes(bytes(100_000))
    with pytest.raises(BuildError, match="can be read"):
        spliced.splice(path, (), scales=(), base=None, progress=Silent(), label="net for rtx-sm89")
