"""What LoRA files call a network's modules: diffusers' names, and kohya's two spellings of them with underscores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wszoo.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Stability's code numbers the unet's blocks through, two resnets and a sampler to each resolution on the way down, and
# three resnets on the way up; diffusers counts blocks and layers within a block.
_LAYERS = 3
_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_MODULE = re.compile(
    r"(?P<block>down_blocks\.(?P<down>\d+)|mid_block|up_blocks\.(?P<up>\d+))\."
    r"(?P<kind>attentions|resnets|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<rest>.+)"
)
_TOP = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
}
_PREFIX = "text_model."  # which transformers 5 dropped from one of the two text encoders, and LoRA files carry


def aliases(component: str, modules: Iterable[str]) -> dict[str, str]:
    """From what a file may call a module to its name.

    Args:
        component: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        modules: dotted names.

    Raises:
        BuildError: two modules would be called alike.
    """
    found: dict[str, str] = {}
    for module in modules:
        for alias in {module, *_spellings(component, module)}:
            if found.setdefault(alias, module) != module:
                raise BuildError(f"the name {alias!r} could mean {module!r} and {found[alias]!r} of {component}")
    return found


def _spellings(component: str, module: str) -> Iterator[str]:
    if component == "unet":
        yield module.replace(".", "_")
        stability = _stability(module)
        if stability is not None:
            yield stability
        if module.endswith(".to_out.0"):  # without its number in diffusers' first LoRAs
            yield module.removesuffix(".0")
        return
    for name in (module, _PREFIX + module.removeprefix(_PREFIX)):
        yield name
        yield name.replace(".", "_")
        if name.endswith(".out_proj") or "_proj" in name.rpartition(".")[2]:  # diffusers' first LoRAs
            yield re.sub(r"\.(q|k|v|out)_proj$", r".to_\1", name)


def _stability(module: str) -> str | None:
    """The name with underscores that Stability's code gives a module of the unet; None when it has no counterpart."""
    match = _MODULE.fullmatch(module)
    if match is None:
        return _TOP.get(module)
    kind, layer, rest = match["kind"], int(match["layer"]), match["rest"]
    tail = (_RESNET.get(rest, rest) if kind == "resnets" else rest).replace(".", "_")
    place = 0 if kind == "resnets" else 1
    if match["down"] is not None:
        first = 1 + _LAYERS * int(match["down"])
        return (
            f"input_blocks_{first + 2}_0_op"
            if kind == "downsamplers"
            else f"input_blocks_{first + layer}_{place}_{tail}"
        )
    if match["up"] is not None:
        first = _LAYERS * int(match["up"])  # the upsampler comes after a resnet and an attention
        return (
            f"output_blocks_{first + 2}_2_conv"
            if kind == "upsamplers"
            else f"output_blocks_{first + layer}_{place}_{tail}"
        )
    return f"middle_block_{1 if kind == 'attentions' else 2 * layer}_{tail}"
