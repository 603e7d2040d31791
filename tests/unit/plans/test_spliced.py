"""What a splice plan may take in memory, whoever made it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from wszoo.errors import BuildError, LimitError
from wszoo.names import Ref
from wszoo.plans import spliced
from wszoo.plans.splice import pack
from wszoo.progress import Silent
from wszoo.publish import read_published, write_plan
from wszoo.schema.plan import SPLICE, Kind


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
