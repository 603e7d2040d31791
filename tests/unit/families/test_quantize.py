from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from wszoo.families import quantize as module
from wszoo.families.quantize import SCHEMES, dequantized, quantize, quantize_all
from wszoo.families.spool import Spool
from wszoo.weights.tensor import DTYPES, tensor_from_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def matrix(rows: int = 24, columns: int = 256) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32)


@pytest.mark.parametrize(("name", "step"), [("int8", 1 / 127), ("int4", 2 / 15)])
def test_every_number_is_within_half_a_step_of_its_block(tmp_path: Path, name: str, step: float) -> None:
    weight, scheme = matrix(), SCHEMES[name]
    found, loss = quantize(tensor_from_array("w", weight), scheme, DTYPES["float32"], Spool(tmp_path / "spool"))
    blocks = weight.reshape(24, -1, scheme.block or 256)
    greatest = np.abs(blocks).max(axis=-1, keepdims=True)
    off = np.abs(dequantized(found).reshape(blocks.shape) - blocks)
    assert (off <= greatest * step * 0.5001).all()
    assert loss.greatest == pytest.approx(off.max(), rel=1e-5)
    assert loss.relative == pytest.approx(np.sqrt((off**2).sum() / (blocks**2).sum()), rel=1e-4)


def test_fp8_keeps_three_bits_of_every_number(tmp_path: Path) -> None:
    weight = matrix()
    found, loss = quantize(tensor_from_array("w", weight), SCHEMES["fp8"], DTYPES["float32"], Spool(tmp_path / "spool"))
    large = np.abs(weight) > 0.05 * np.abs(weight).max(axis=1, keepdims=True)
    assert (np.abs(dequantized(found) / weight - 1)[large] < 1 / 15).all()
    assert 0.01 < loss.relative < 0.04


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_names_types_and_shapes_are_what_dequantizelinear_takes(tmp_path: Path, name: str) -> None:
    weight, scheme = tensor_from_array("w", matrix()), SCHEMES[name]
    found, _ = quantize(weight, scheme, DTYPES["bfloat16"], Spool(tmp_path / "spool"))
    assert (found.values.name, found.scales.name) == (f"w.{name}", f"w.{name}_scales")
    assert (found.values.dtype, found.scales.dtype.name) == (scheme.values, "bfloat16")
    assert (found.values.shape, found.scales.shape) == ((24, 256), (24, 2) if name == "int4" else (24,))
    assert (found.axis, found.block) == ((1, 128) if name == "int4" else (0, 0))


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_rows_in_pieces_give_the_same_bytes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tensor_from_array("w", matrix())
    whole, loss = quantize(weight, SCHEMES[name], DTYPES["float16"], Spool(tmp_path / "whole"))
    monkeypatch.setattr(module, "_CHUNK", 5 * 256)
    cut, same = quantize(weight, SCHEMES[name], DTYPES["float16"], Spool(tmp_path / "cut"))
    assert (whole.values.load() == cut.values.load()).all()
    assert (whole.scales.load() == cut.scales.load()).all()
    assert same.relative == pytest.approx(loss.relative, rel=1e-5)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_rows_of_zeros_stay_zeros(tmp_path: Path, name: str) -> None:
    weight = tensor_from_array("w", np.zeros((4, 128), np.float16))
    found, loss = quantize(weight, SCHEMES[name], DTYPES["float16"], Spool(tmp_path / "spool"))
    assert not dequantized(found).any()
    assert np.isfinite(found.scales.array()).all()
    assert loss.relative == 0


def test_int4_wants_whole_blocks_and_others_any_matrix() -> None:
    assert [scheme.fits((8, 200)) for scheme in SCHEMES.values()] == [True, False, True]
    assert not any(scheme.fits((128,)) for scheme in SCHEMES.values())


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_threads_write_the_file_that_one_after_the_other_would(tmp_path: Path, name: str) -> None:
    weights = [tensor_from_array(f"w{rows}", matrix(rows)) for rows in (40, 1, 7, 24, 3)]
    one, many = Spool(tmp_path / "one"), Spool(tmp_path / "many")
    alone = [quantize(weight, SCHEMES[name], DTYPES["float16"], one) for weight in weights]
    together = list(quantize_all(iter(weights), SCHEMES[name], DTYPES["float16"], many))
    assert [tensor.name for tensor, _, _ in together] == [weight.name for weight in weights]
    assert [loss for _, _, loss in together] == [loss for _, loss in alone]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
