"""One digest type, one accepted form, and paths that stay inside the store."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError
from wszoo.store.layout import StoreLayout

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}{HEX}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256: {HEX[1:]}",
        f"sha256:{HEX[:-1]}\0",
        "sha256:" + "\u0663" * 64,
        "sha256:" + "\uff10" * 64,
        "sha256:../../x",
        "sha256:" + "../" * 21 + "x",
        "sha256:" + "/" * 64,
        f"sha256:{HEX[:60]}/..\\",
    ],
)
def test_only_the_exact_form_is_a_digest(text):
    with pytest.raises(MalformedError) as caught:
        Digest(text)
    assert repr(text[:100]) in caught.value.message
    assert "64 lower-case hex" in caught.value.hint


def test_a_megabyte_of_garbage_gives_a_short_message():
    with pytest.raises(MalformedError) as caught:
        Digest("x" * (1 << 20))
    assert len(str(caught.value)) < 300


def test_digest_is_sha256_of_the_bytes():
    digest = Digest.of(b"abc")
    assert digest == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert digest.hex == digest[7:]
    assert digest.short == digest.hex[:12]
    assert Digest.of(memoryview(b"abc")) == digest
    assert Digest.from_hash(hashlib.sha256(b"abc")) == digest


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert Digest.of_file(path) == Digest.of(b"abc" * 100_000)


def test_path_of_a_digest_is_directly_inside_blobs():
    layout = StoreLayout(Path("/store"))
    assert layout.blob(Digest(f"sha256:{HEX}")) == Path("/store/blobs/sha256") / HEX
    assert layout.engine(Digest(f"sha256:{HEX}")) == Path("/store/wszoo/engines") / f"{HEX}.plan"


def test_a_digest_survives_pickling_as_a_digest():
    digest = Digest.of(b"abc")
    assert type(pickle.loads(pickle.dumps(digest))) is Digest
    assert pickle.loads(pickle.dumps(digest)) == digest


def test_check_names_both_digests_and_what_was_damaged():
    wanted, found = Digest.of(b"a"), Digest.of(b"b")
    wanted.check(wanted, "the pack")
    with pytest.raises(IntegrityError) as caught:
        wanted.check(found, "the pack")
    assert caught.value.message == f"the pack is damaged: expected {wanted}, found {found}"
    assert caught.value.hint
