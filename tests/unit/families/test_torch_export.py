"""The torch exporter on small modules: names, dynamic shapes, precisions, and exports that must be refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from wszoo.errors import BuildError, MissingExtraError
from wszoo.families.torch_export import TOLERANCES, compare, export_module, require_torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TwoInputs(nn.Module):
    """``(ids, mask) -> (pooled, hidden)``, with two dynamic dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 32)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.linear(self.norm(self.table(ids))) * mask.unsqueeze(-1).to(self.linear.weight.dtype)
        return hidden.mean(dim=1), hidden


class Fixed(nn.Module):
    """Takes one batch size only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).reshape(2, 8)


def token_cases() -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    for seed, (batch, length) in enumerate([(1, 5), (3, 7), (2, 1)]):
        generator = np.random.default_rng(seed)
        ids = generator.integers(0, 50, (batch, length))
        yield {"ids": ids, "mask": np.ones((batch, length), np.int64)}


def export_two(module: nn.Module, folder: Path) -> Any:
    names = {0: "batch", 1: "sequence"}
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return export_module(
        module,
        {"ids": ids, "mask": torch.ones_like(ids)},
        outputs=["pooled", "hidden"],
        folder=folder,
        dynamic={"ids": names, "mask": names},
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_inputs_outputs_and_dynamic_dimensions_have_the_given_names(precision: str, tmp_path: Path) -> None:
    module = TwoInputs().eval().to(DTYPES[precision])
    graph = export_two(module, tmp_path)
    assert [(value.name, value.shape) for value in graph.inputs] == [
        ("ids", ("batch", "sequence")),
        ("mask", ("batch", "sequence")),
    ]
    assert [(value.name, value.shape) for value in graph.outputs] == [
        ("pooled", ("batch", 32)),
        ("hidden", ("batch", "sequence", 32)),
    ]
    result = compare(graph, module, token_cases(), tolerance=TOLERANCES[precision])
    assert result.cases == 3
    assert set(result.max_abs_error) == {"pooled", "hidden"}


def test_bfloat16_weights_reach_the_session_as_they_are(tmp_path: Path) -> None:
    module = TwoInputs().eval().to(torch.bfloat16)
    graph = export_two(module, tmp_path)
    table = {tensor.name: tensor for tensor in graph.tensors}["table.weight"]
    assert table.dtype.name == "bfloat16"
    np.testing.assert_array_equal(
        table.load().view(np.uint16), module.table.weight.detach().view(torch.uint16).numpy().reshape(-1)
    )


def test_wrong_weight_is_noticed(tmp_path: Path) -> None:
    module = TwoInputs().eval()
    graph = export_two(module, tmp_path)
    with torch.no_grad():
        module.linear.weight[0, 0] += 0.1
    with pytest.raises(BuildError, match="differs from torch by"):
        compare(graph, module, token_cases(), tolerance=TOLERANCES["fp32"])


def test_module_that_ignores_its_input_is_noticed(tmp_path: Path) -> None:
    module = TwoInputs().eval()
    nn.init.zeros_(module.linear.weight)
    graph = export_two(module, tmp_path)
    with pytest.raises(BuildError, match="proves nothing"):
        compare(graph, module, token_cases(), tolerance=TOLERANCES["fp32"])


def test_no_cases_is_no_comparison(tmp_path: Path) -> None:
    module = TwoInputs().eval()
    with pytest.raises(BuildError, match="compared on no inputs"):
        compare(export_two(module, tmp_path), module, [], tolerance=TOLERANCES["fp32"])


def test_dimension_that_the_code_fixes_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"conflicts between user-specified ranges|fixed the dimension"):
        export_module(
            Fixed().eval(), {"x": torch.zeros(2, 8)}, outputs=["y"], folder=tmp_path, dynamic={"x": {0: "batch"}}
        )


def test_failure_gives_the_first_cause_and_writes_nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(BuildError, match=r"'model': RuntimeError: .*reduction dim") as caught:
        export_module(nn.Linear(4, 4).eval(), {"input": torch.zeros(2, 5)}, outputs=["y"], folder=tmp_path)
    assert caught.value.__cause__ is not None
    assert list(here.iterdir()) == []


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"'torch'.*\n.*wszoo\[torch\]"):
        require_torch()
