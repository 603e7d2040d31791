"""ChatGLM2, ChatGLM3 and GLM-4 checkpoints as their own code names them, read as transformers' GLM without that code.

The network is transformers' ``GlmForCausalLM``: fused projections are cut into rows, which are views of the file.
ChatGLM-6B, the first, is another network (two-dimensional positions, a prefix that sees both ways).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError
from wszoo_llm.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wszoo.weights.tensor import Tensor

MODEL_TYPE = "chatglm"

_NAMES = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
_PARTS = {
    "input_layernorm.weight": "input_layernorm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
_FUSED = re.compile(r"self_attention\.query_key_value\.(weight|bias)")
_ROTARY = "rotary_pos_emb.inv_freq"
_ROPE_BASE = 10000.0


def glm_config(raw: Mapping[str, Any]) -> Any:  # noqa: ANN401 - transformers' GlmConfig
    """The configuration of the same network under transformers' names.

    Raises:
        BuildError: ChatGLM-6B, or a variant that GLM does not cover.
    """
    if "multi_query_group_num" not in raw or not raw.get("rmsnorm", True) or raw.get("post_layer_norm") is False:
        raise BuildError(
            "this ChatGLM is not of the second generation or later: transformers has no network for it",
            hint="ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B can be exported; the first ChatGLM-6B needs its own code",
        )
    heads = int(raw["num_attention_heads"])
    return require("transformers").GlmConfig(
        vocab_size=raw["padded_vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["ffn_hidden_size"],
        num_hidden_layers=raw["num_layers"],
        num_attention_heads=heads,
        num_key_value_heads=raw["multi_query_group_num"] if raw.get("multi_query_attention") else heads,
        head_dim=raw["kv_channels"],
        rms_norm_eps=raw.get("layernorm_epsilon", 1e-5),
        max_position_embeddings=raw.get("seq_length", 2048),
        attention_bias=bool(raw.get("add_qkv_bias")),
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": _ROPE_BASE * float(raw.get("rope_ratio", 1)),
            "partial_rotary_factor": 0.5,
        },
        eos_token_id=raw.get("eos_token_id"),
        pad_token_id=raw.get("pad_token_id") or 0,
        dtype=raw.get("torch_dtype"),
    )


def renamed(tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The checkpoint's tensors under transformers' names, fused ones cut."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer = _LAYER.fullmatch(name)
        if name in _NAMES:
            _add(found, _NAMES[name], tensor)
        elif layer and layer[2] in _PARTS:
            _add(found, f"model.layers.{layer[1]}.{_PARTS[layer[2]]}", tensor)
        elif layer and (fused := _FUSED.fullmatch(layer[2])):
            for part, piece in _cut(tensor, config).items():
                _add(found, f"model.layers.{layer[1]}.self_attn.{part}_proj.{fused[1]}", piece)
        elif not name.endswith(_ROTARY):
            _add(found, name, tensor)  # unknown: reported with the others that do not fit
    return found


def _add(found: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    found[name] = replace(tensor, name=name)


def _cut(tensor: Tensor, config: Any) -> dict[str, Tensor]:  # noqa: ANN401
    own, shared = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    if tensor.shape[:1] != (own + 2 * shared,):
        raise BuildError(f"{tensor.name} has the shape {list(tensor.shape)}, not {own + 2 * shared} rows")
    pieces, start = {}, 0
    for part, count in (("q", own), ("k", shared), ("v", shared)):
        pieces[part] = rows(tensor, start, start + count)
        start += count
    return pieces


def rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Some rows of a tensor: a view, as rows stand one after the other."""
    width = tensor.nbytes // tensor.shape[0]
    return replace(
        tensor,
        shape=(stop - start, *tensor.shape[1:]),
        load=lambda: tensor.load()[start * width : stop * width],
    )
