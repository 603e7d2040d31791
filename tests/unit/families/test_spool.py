from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wszoo.families.spool import Spool
from wszoo.weights.tensor import DTYPES, tensor_from_array

if TYPE_CHECKING:
    from pathlib import Path


def test_tensors_come_back_as_they_were_written_while_others_follow(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    arrays = [np.arange(n, dtype=np.float16) for n in (3, 1000, 7)]
    found = [spool.add(f"t{len(a)}", DTYPES["float16"], a.shape, a) for a in arrays]
    assert all((tensor.array() == array).all() for tensor, array in zip(found, arrays, strict=True))
    assert [tensor.name for tensor in found] == ["t3", "t1000", "t7"]


def test_tensors_start_where_kernels_can_load_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for length in (3, 5, 64):
        tensor = spool.add("t", DTYPES["uint8"], (length,), np.ones(length, np.uint8))
        assert tensor.load().ctypes.data % 64 == 0


def test_nothing_is_a_tensor_too(tmp_path: Path) -> None:
    tensor = Spool(tmp_path / "spool").add("t", DTYPES["float32"], (0, 4), np.zeros((0, 4), np.float32))
    assert tensor.array().shape == (0, 4)


def test_bytes_that_do_not_fit_the_shape_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 bytes for float32"):
        Spool(tmp_path / "spool").add("t", DTYPES["float32"], (3,), np.zeros(2, np.float32))


@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
def test_other_types_are_written_in_pieces_as_all_at_once(
    tmp_path: Path, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wszoo.families.spool._PIECE", 7)
    array = np.random.default_rng(0).standard_normal((5, 9)).astype(DTYPES["bfloat16"].numpy)
    found = Spool(tmp_path / "spool").add_as(tensor_from_array("t", array), DTYPES[wanted])
    assert (found.name, found.dtype.name, found.shape) == ("t", wanted, (5, 9))
    assert (found.array() == array.astype(np.float32).astype(DTYPES[wanted].numpy)).all()


def test_numbers_too_large_for_the_other_type_become_infinite(tmp_path: Path) -> None:
    tensor = tensor_from_array("t", np.array([1.0, 1e6], np.float32))
    assert np.isinf(Spool(tmp_path / "spool").add_as(tensor, DTYPES["float16"]).array()).tolist() == [False, True]
