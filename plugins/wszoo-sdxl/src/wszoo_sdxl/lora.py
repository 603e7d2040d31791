"""LoRA files: small matrices that are added to a model's weights before it is exported.

A pair (down ``A`` of ``[r, in]``, up ``B`` of ``[out, r]``) changes a weight to ``W + scale * alpha / r * B @ A``.
Three ways of naming the pairs are read, all as safetensors::

    unet.mid_block.attentions.0.proj_in.lora_A.weight        PEFT, as diffusers writes it now
    unet.mid_block.attentions.0.proj_in.lora.down.weight     diffusers, before PEFT
    lora_unet_middle_block_1_proj_in.lora_down.weight        kohya, with the names of Stability's code or of diffusers
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError, MalformedError, NotFoundError, UsageError
from wszoo_sdxl.lora_names import aliases
from wszoo_sdxl.tensors import open_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch

    Pairs = dict[str, dict[str, str]]  # module as the file calls it -> role -> key

_ROLES = {
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "alpha": "alpha",
}
# Before PEFT, diffusers kept the pairs in the attention processors: "attn1.processor.to_q_lora.down.weight".
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight")
_BARE = ("down_blocks.", "mid_block.", "up_blocks.")  # a file for the unet alone may leave its name out
_PREFIXES = {
    "unet": ("unet.base_model.model.", "unet.", "lora_unet_", "base_model.model.", *_BARE),
    "text_encoder": ("text_encoder.base_model.model.", "text_encoder.", "lora_te1_"),
    "text_encoder_2": ("text_encoder_2.base_model.model.", "text_encoder_2.", "lora_te2_"),
}


@dataclass(frozen=True, slots=True)
class Lora:
    """A file and how strongly it is merged.

    Attributes:
        path: of a safetensors file.
        scale: 1 for as it was trained.
    """

    path: Path
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.path.name}:{self.scale:g}"


def parse(text: str) -> tuple[Lora, ...]:
    """Read ``FILE[:SCALE][,FILE[:SCALE]]``.

    Raises:
        UsageError: a scale that is no finite number, or a pickle.
        NotFoundError: no such file.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> Lora:
    name, colon, scale = text.rpartition(":")
    if not colon or Path(text).is_file() or "/" in scale or "\\" in scale:  # "C:\style.safetensors" has no scale
        name, scale = text, "1"
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"not a LoRA's scale: {scale!r} in {text!r}", hint="write --option lora=FILE:0.8")
    path = Path(name)
    if not path.is_file():
        raise NotFoundError(f"no such LoRA file: {path}", hint="write --option lora=FILE[:SCALE]")
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            f"{path} is not a safetensors file; a pickle would run its code when it is loaded",
            hint="get the LoRA as safetensors",
        )
    return Lora(path, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one pair adds to one weight.

    Attributes:
        lora: where it comes from.
        down: key of ``A``.
        up: key of ``B``.
        factor: scale times alpha over rank.
    """

    lora: Lora
    down: str
    up: str
    factor: float

    def add_to(self, weight: torch.Tensor, name: str) -> torch.Tensor:
        """The weight with the pair's product added.

        Args:
            weight: fp32, ``[out, in]`` or ``[out, in, height, width]``.
            name: for messages.

        Raises:
            BuildError: the shapes do not fit; the message has the key and both.
        """
        with open_file(self.lora.path) as file:
            down, up = file.get_tensor(self.down).float(), file.get_tensor(self.up).float()
        product = up.flatten(1) @ down.flatten(1) if up.shape[1:2] == down.shape[:1] else None
        if product is None or product.numel() != weight.numel() or product.shape[0] != weight.shape[0]:
            raise BuildError(
                f"{self.lora.path.name} does not fit: {self.up!r} {list(up.shape)} times {self.down!r} "
                f"{list(down.shape)} is not of the shape {list(weight.shape)} of {name!r}",
                hint="it was trained for another model: SDXL takes LoRAs for SDXL only",
            )
        return weight + self.factor * product.reshape(weight.shape)


def deltas(loras: Sequence[Lora], component: str, modules: Iterable[str]) -> dict[str, list[Delta]]:
    """What the files add to one network, by the weight's name.

    Args:
        loras: in the order of merging.
        component: ``unet``, ``text_encoder`` or ``text_encoder_2``; others take none.
        modules: dotted names of the network's modules that have a weight.

    Raises:
        BuildError: a key names no module, or is of another kind than LoRA.
        MalformedError: a pair that lacks a half, or a file that is damaged.
    """
    if component not in _PREFIXES:
        return {}
    names = aliases(component, modules)
    found: dict[str, list[Delta]] = {}
    for lora in loras:
        for weight, delta in _of_file(lora, component, names):
            found.setdefault(weight, []).append(delta)
    return found


def components_of(lora: Lora) -> set[str]:
    """Which networks a file changes.

    Raises:
        BuildError: a key belongs to none of them, or is of another kind than LoRA.
    """
    with open_file(lora.path) as file:
        return {_split(lora, key)[0] for key in file.keys()}  # noqa: SIM118 - not a dict


def _of_file(lora: Lora, component: str, names: Mapping[str, str]) -> list[tuple[str, Delta]]:
    with open_file(lora.path) as file:
        pairs = _pairs(lora, component, file.keys())
        alphas = {name: float(file.get_tensor(keys["alpha"])) for name, keys in pairs.items() if "alpha" in keys}
        ranks = {name: file.get_slice(keys["down"]).get_shape()[0] for name, keys in pairs.items()}
        trained = _metadata(file.metadata() or {}, component)
    found = []
    for name, keys in pairs.items():
        if name not in names:
            raise BuildError(
                f"{lora.path.name} does not fit: {keys['down']!r} names no layer of {component}",
                hint="it was trained for another model: SDXL takes LoRAs for SDXL only",
            )
        alpha = alphas.get(name, trained.get(names[name], trained.get("", float(ranks[name]))))
        delta = Delta(lora=lora, down=keys["down"], up=keys["up"], factor=lora.scale * alpha / ranks[name])
        found.append((f"{names[name]}.weight", delta))
    return found


def _pairs(lora: Lora, component: str, keys: Iterable[str]) -> Pairs:
    pairs: Pairs = {}
    for key in keys:
        part, module, role = _split(lora, key)
        if part == component:
            pairs.setdefault(module, {})[role] = key
    for module, roles in pairs.items():
        if "down" not in roles or "up" not in roles:
            raise MalformedError(f"{lora.path.name} has only {', '.join(roles)} for {module!r}, and a pair is needed")
    return pairs


def _split(lora: Lora, key: str) -> tuple[str, str, str]:
    """Component, module as the file calls it, and role."""
    plain = _PROCESSOR.sub(lambda match: f".{match[1]}.lora_{match[2]}.weight", key)
    suffix = next((suffix for suffix in _ROLES if plain.endswith(f".{suffix}")), None)
    if suffix is None:
        raise BuildError(
            f"{lora.path.name} holds {key!r}, which is not of a LoRA's pair",
            hint="LoRA is supported, also for convolutions; LoHa, LoKr, DoRA, OFT and embeddings are not",
        )
    module = plain.removesuffix(f".{suffix}")
    for component, prefixes in _PREFIXES.items():
        for prefix in prefixes:
            if module.startswith(prefix):
                return component, module if prefix in _BARE else module.removeprefix(prefix), _ROLES[suffix]
    raise BuildError(f"{lora.path.name} holds {key!r}, which names none of {', '.join(_PREFIXES)}")


def _metadata(metadata: Mapping[str, str], component: str) -> dict[str, float]:
    """Alphas that diffusers keeps in the file's header: by module, and for all others under an empty name.

    Raises:
        MalformedError: the header's entry is not understood.
        BuildError: a kind of LoRA that is not merged by this rule.
    """
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        stored: dict[str, Any] = json.loads(text)
        own = {key.removeprefix(f"{component}."): value for key, value in stored.items() if key.startswith(component)}
        patterns = {str(name): float(alpha) for name, alpha in (own.get("alpha_pattern") or {}).items()}
        alpha = {"": float(own["lora_alpha"])} if own.get("lora_alpha") is not None else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise MalformedError(f"the LoRA's lora_adapter_metadata is not understood: {error}") from error
    for flag in ("use_dora", "use_rslora"):
        if own.get(flag):
            raise BuildError(f"the LoRA for {component} was trained with {flag}, which is not merged as a plain LoRA")
    return {**alpha, **patterns}
