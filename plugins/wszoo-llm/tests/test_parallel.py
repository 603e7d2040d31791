"""A network cut for two GPUs computes what the whole one does. The ranks take turns on the CPU: no GPU ran this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from wszoo_llm import recipe, tiny
from wszoo_llm.demo import load
from wszoo_llm.family import LlmFamily
from wszoo_llm.generate import Wish, generate

from wszoo.digest import Digest
from wszoo.errors import BuildError, UsageError
from wszoo.families.local import local_model

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.families.local import LocalModel

Request = "Callable[..., ExportRequest]"
PROMPTS = [[5, 17, 300, 44, 81], [301, 77, 5]]


def tokens(model: LocalModel) -> list[list[int]]:
    numbers = msgspec.structs.replace(recipe.read(model.asset(recipe.ASSET)), stop=())
    steps = list(generate(load(model, numbers), PROMPTS, Wish(most=24), numbers))
    return [list(row) for row in zip(*steps, strict=True)]


def test_two_ranks_generate_the_tokens_of_the_whole_network(
    llama: Path, request_for: Request, exported: tuple[LocalModel, dict[str, str]]
) -> None:
    export = LlmFamily().export(request_for(llama, "c64", tensor_parallel="2"))
    split = local_model(export)
    assert export.options["compared_with"] == "transformers, all layers, summed over the ranks"
    assert float(export.options["error"].split()[0]) < 1e-4
    assert tokens(split) == tokens(exported[0])

    parts = {name: {t.name: t for t in graph.tensors} for name, graph in split.graphs.items()}
    assert len(parts) == 2 + 2 * 2 * 2
    whole = {tensor.name: tensor for tensor in exported[0].graphs["model"].tensors}
    for layer in range(2):
        ranks = [parts[f"layers.{layer}.attention.rank{rank}of2"] for rank in range(2)]
        norm, query, out = (
            f"model.layers.{layer}.{name}.weight"
            for name in ("input_layernorm", "self_attn.q_proj", "self_attn.o_proj")
        )
        assert len({Digest.of(rank[norm].load()) for rank in ranks}) == 1  # stored once
        assert (np.concatenate([rank[query].array() for rank in ranks]) == whole[query].array()).all()
        assert (np.concatenate([rank[out].array() for rank in ranks], axis=1) == whole[out].array()).all()


@pytest.mark.parametrize(
    ("kind", "precision", "changes"),
    [
        ("gemma", "fp32", {"num_key_value_heads": 2, "num_hidden_layers": 1}),
        ("llama", "int8", {"num_hidden_layers": 1}),
        ("llama", "int4", {"num_hidden_layers": 1, "head_dim": 64}),
    ],
)
def test_ranks_hold_the_pieces_of_what_the_whole_network_holds(
    tmp_path: Path, request_for: Request, kind: str, precision: str, changes: dict[str, int]
) -> None:
    folder = tiny.make(tmp_path / kind, kind, precision="fp32" if precision == "fp32" else "fp16", **changes)
    export = LlmFamily().export(request_for(folder, precision=precision, tensor_parallel="2"))
    parts = {each.name: {t.name: t for t in each.graph.tensors} for each in export.components}
    assert export.options["compared_with"] == "transformers, all layers, summed over the ranks"

    plain = LlmFamily().export(request_for(folder, precision=precision, compare="no"))
    (whole,) = ({tensor.name: tensor for tensor in each.graph.tensors} for each in plain.components)
    suffixes = {"fp32": [""], "int8": [".int8"], "int4": [".int4", ".int4_scales"]}[precision]
    for part, name, axis in (("attention", "self_attn.o_proj", 1), ("mlp", "mlp.up_proj", 0)):
        for full in (f"model.layers.0.{name}.weight{suffix}" for suffix in suffixes):
            ranks = [parts[f"layers.0.{part}.rank{rank}of2"][full] for rank in range(2)]
            rows = [rank.load().reshape(rank.shape[0], -1) for rank in ranks]
            assert (np.concatenate(rows, axis=axis).reshape(-1) == whole[full].load()).all()


@pytest.mark.parametrize(
    ("kind", "given", "error", "words"),
    [
        ("llama", {"tensor_parallel": "3"}, BuildError, "3 ranks do not divide num_attention_heads, which is 4"),
        ("llama", {"tensor_parallel": "x"}, UsageError, "is no number"),
        ("llama", {"tensor_parallel": "2", "precision": "bf16"}, UsageError, "compute in fp32 or fp16"),
        ("llama", {"tensor_parallel": "2", "precision": "int4"}, BuildError, "through blocks of 128"),
        ("gemma", {"tensor_parallel": "2"}, BuildError, "do not divide num_key_value_heads, which is 1"),
        ("phi", {"tensor_parallel": "2"}, BuildError, "a phi cannot be cut"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    tmp_path: Path, request_for: Request, *, kind: str, given: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        LlmFamily().export(request_for(tiny.make(tmp_path / kind, kind), **given))
