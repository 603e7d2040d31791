"""From a folder to a torch module, one tensor at a time: the network is never in memory twice.

The module is made without memory (torch's meta device), then each tensor is taken from its file. Where the file already
has the wanted type the tensor stays mapped and costs no memory of its own; else it is converted, alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError
from wszoo.families.checkpoints import check_keys, named, weight_files
from wszoo.families.torch_export import require_torch
from wszoo_sdxl.components import PRECISIONS
from wszoo_sdxl.layout import CLASSES, folder_of
from wszoo_sdxl.libraries import require
from wszoo_sdxl.lora import deltas
from wszoo_sdxl.tensors import check_types, open_file
from wszoo_sdxl.vae import halve_attention

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from wszoo_sdxl.layout import Layout
    from wszoo_sdxl.lora import Delta, Lora

# fp16 weights come from an fp16 variant where there is one: half of what has to be read. A network in more takes the
# full ones if it can.
VARIANTS = {"fp16": ("fp16", ""), "fp32": ("", "fp16"), "mixed": ("", "fp16"), "bf16": ("bf16", "", "fp16")}
_POSITIONS = "position_ids"  # 0, 1, 2, ...: a buffer, which old checkpoints hold and new ones do not
_TEXT_PREFIX = "text_model."
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(rf"(.*\.attentions\.\d+\.)({'|'.join(_OLD_ATTENTION)})\.(weight|bias)")


def files_of(layout: Layout, component: str, precision: str) -> list[Path]:
    """The files that hold a component's weights.

    Raises:
        NotFoundError, UsageError, MalformedError: see :func:`weight_files`.
    """
    return weight_files(layout.folder / folder_of(component), stem_of(component), VARIANTS[precision])


def stem_of(component: str) -> str:
    """How the names of its weight files begin: transformers and diffusers differ."""
    return "model" if component.startswith("text") else "diffusion_pytorch_model"


def load(layout: Layout, component: str, precision: str, loras: Sequence[Lora], *, any_type: bool = False) -> Any:  # noqa: ANN401
    """Load a component's network.

    Args:
        layout: of the model.
        component: which.
        precision: what its weights are converted to; see :data:`wszoo_sdxl.components.PRECISIONS`.
        loras: merged into the weights in fp32, before they are rounded once.
        any_type: accept a checkpoint of several element types.

    Returns:
        diffusers' or transformers' module, in evaluation mode.

    Raises:
        BuildError: config and weights do not fit, weights that are not finite, mixed types, a LoRA that does not fit.
        NotFoundError, UsageError, MalformedError: the files are not there, or not what they should be.
        MissingExtraError: a library is not installed.
    """
    files = files_of(layout, component, precision)
    if not any_type:
        check_types(files, component)
    part = folder_of(component)
    module = _empty(part, layout.configs[part])
    weights = [name.removesuffix(".weight") for name in module.state_dict() if name.endswith(".weight")]
    changes = deltas(loras, component, weights)
    _fill(module, files, getattr(require_torch(), PRECISIONS[precision]), changes, component)
    _positions(module)
    if precision == "mixed":
        halve_attention(module)
    return module.eval()


def _empty(part: str, config: Mapping[str, Any]) -> Any:  # noqa: ANN401
    torch = require_torch()
    diffusers, transformers = require("diffusers", "export"), require("transformers", "export")
    try:
        with torch.device("meta"):
            if part.startswith("text"):
                kind = getattr(transformers, CLASSES[part])
                return kind(transformers.CLIPTextConfig.from_dict(dict(config)))
            return getattr(diffusers, CLASSES[part]).from_config(dict(config))
    except Exception as error:  # whatever a wrong config makes the library raise
        raise BuildError(f"the config of {part} is not understood: {type(error).__name__}: {error}") from error


def _fill(
    module: Any,  # noqa: ANN401
    files: Sequence[Path],
    dtype: torch.dtype,
    changes: Mapping[str, Sequence[Delta]],
    component: str,
) -> None:
    wanted = _wanted(module)
    todo, unexpected, mismatched, broken = dict(wanted), [], [], []
    for key, tensor in _tensors(files):
        name = _name(key, wanted)
        if name not in wanted:
            unexpected += [] if key.endswith(_POSITIONS) else [key]
            continue
        shaped = tensor.reshape(wanted[name].shape) if _OLD.fullmatch(key) else tensor
        if shaped.shape != wanted[name].shape:
            mismatched.append(f"{key} {list(shaped.shape)} instead of {list(wanted[name].shape)}")
            continue
        made = _converted(shaped, dtype, changes.get(name, ()), name)
        broken += [] if bool(made.isfinite().all()) else [name]
        _assign(module, name, made)
        todo.pop(name, None)
    check_keys(todo, unexpected, mismatched, component)
    _check_finite(broken, component)


def _wanted(module: Any) -> dict[str, Any]:  # noqa: ANN401
    """The tensors that a checkpoint of a module holds."""
    persistent = module.state_dict().keys()
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in persistent}
    return {**dict(module.named_parameters()), **buffers}


def _check_finite(broken: Sequence[str], component: str) -> None:
    if broken:
        raise BuildError(
            f"these weights of {component} hold NaN or infinity: {named(broken)}",
            hint="the checkpoint is damaged, or too large for fp16: try --precision fp32",
        )


def _tensors(files: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for path in files:
        with open_file(path) as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                yield key, file.get_tensor(key)


def _name(key: str, wanted: Mapping[str, Any]) -> str:
    """What the installed library calls a tensor that an older or newer one has named."""
    old = _OLD.fullmatch(key)
    for name in (key, key.removeprefix(_TEXT_PREFIX), _TEXT_PREFIX + key):
        if name in wanted:
            return name
    return f"{old[1]}{_OLD_ATTENTION[old[2]]}.{old[3]}" if old else key


def _converted(tensor: torch.Tensor, dtype: torch.dtype, changes: Sequence[Delta], name: str) -> torch.Tensor:
    if changes:
        tensor = tensor.float()
        for change in changes:
            tensor = change.add_to(tensor, name)
    return tensor.to(dtype)


def _assign(module: Any, name: str, tensor: torch.Tensor) -> None:  # noqa: ANN401
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:  # noqa: SLF001 - torch offers no other way to put a tensor in an empty module
        setattr(owner, leaf, require_torch().nn.Parameter(tensor, requires_grad=False))
    else:
        setattr(owner, leaf, tensor)


def _positions(module: Any) -> None:  # noqa: ANN401
    # Buffers that no checkpoint holds: the text encoders number their positions.
    torch = require_torch()
    for name, buffer in list(module.named_buffers()):
        if not buffer.is_meta:
            continue
        if not name.endswith(_POSITIONS):
            raise BuildError(f"the network keeps {name!r}, which no checkpoint holds", hint="install another diffusers")
        _assign(module, name, torch.arange(buffer.shape[-1]).expand(buffer.shape))
