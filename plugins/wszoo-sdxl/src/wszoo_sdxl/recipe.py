"""What the demo must know about a model besides its networks: the asset ``pipeline.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from wszoo.errors import BuildError
from wszoo.families.checkpoints import read_json
from wszoo.schema.decode import decode
from wszoo_sdxl.components import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wszoo_sdxl.layout import Layout

ASSET = "pipeline.json"

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
Finite = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the pipeline.

    Attributes:
        edge: of the pictures that the model was trained on, in pixels.
        scale: pixels to an edge of a latent.
        multiple: what latents' edges must be multiples of.
        latent_channels: of what the unet denoises.
        tokens: a prompt's length.
        time_ids: how many numbers describe size and crop.
        scaling_factor: latents are divided by it before the VAE decodes them.
        latents_mean: of each channel, for models that normalise; None for others.
        latents_std: the same.
        zero_negative: without a negative prompt its embedding is zeros, not the empty prompt's.
    """

    edge: Count
    scale: Count
    multiple: Count
    latent_channels: Count
    tokens: Count
    time_ids: Annotated[int, msgspec.Meta(ge=5, le=6)]
    scaling_factor: Finite
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    zero_negative: bool = True


def scale_of(layout: Layout) -> int:
    """Pixels to an edge of a latent, also when no VAE is built."""
    return shape_of("vae_decoder", _config(layout, "vae")).scale


def encode(layout: Layout) -> bytes:
    """The asset for a model.

    Raises:
        BuildError: a number is missing or makes no sense.
    """
    unet, vae = _config(layout, "unet"), _config(layout, "vae")
    shape = shape_of("unet", unet)
    scale = shape_of("vae_decoder", vae).scale
    numbers = {
        "edge": unet.get("sample_size", 128) * scale,
        "scale": scale,
        "multiple": shape.multiple,
        "latent_channels": shape.latent_channels,
        "tokens": shape_of("text_encoder_2", _config(layout, "text_encoder_2")).tokens,
        "time_ids": shape.time_ids,
        "scaling_factor": vae.get("scaling_factor", 0.13025),
        "latents_mean": vae.get("latents_mean"),
        "latents_std": vae.get("latents_std"),
        "zero_negative": bool(layout.index.get("force_zeros_for_empty_prompt", True)),
    }
    try:
        msgspec.convert(numbers, Recipe, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        raise BuildError(f"the model's configs make no pipeline: {error}") from error
    return json.dumps(numbers, indent=1).encode() + b"\n"


def read(data: bytes) -> Recipe:
    """The asset of a pulled model.

    Raises:
        MalformedError: it is not what it should be.
    """
    return decode(data, Recipe, what=ASSET)


def _config(layout: Layout, part: str) -> Mapping[str, Any]:
    return layout.configs.get(part) or read_json(layout.folder / part / "config.json")
