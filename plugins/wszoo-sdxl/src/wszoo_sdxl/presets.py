"""Optimization profiles by name: ``1024`` is one to four square pictures of that edge, guided or not.

With classifier-free guidance the unet sees each picture twice, once with the prompt and once without, so four pictures
are a batch of eight. The text encoders see up to four prompts and four negative ones.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from wszoo.errors import UsageError
from wszoo.families.profiles import dynamic_inputs, profiles_for_components
from wszoo.schema.plan import Profile, ShapeRange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.schema.model import Value
    from wszoo_sdxl.components import Shape

EDGES = (512, 768, 1024)
IMAGES = 4
DEFAULT = "1024"


def names() -> list[str]:
    """``512``, ``512-b1`` ... ``1024-b4``, and ``512-1024`` for every size between."""
    single = [f"{edge}{batch}" for edge, batch in product(EDGES, ("", *(f"-b{n}" for n in range(1, IMAGES + 1))))]
    return [*single, f"{EDGES[0]}-{EDGES[-1]}"]


def profiles(
    inputs: Mapping[str, Sequence[Value]],
    shapes: Mapping[str, Shape],
    specs: Sequence[str],
    *,
    scale: int,
    required: bool,
) -> dict[str, tuple[Profile, ...]]:
    """Each component's optimization profiles.

    Args:
        inputs: what each component takes.
        shapes: of each component's configuration.
        specs: as the user gave them: presets, or ``unet/sample=2x4x64x64:2x4x128x128:8x4x128x128,...``.
        scale: pixels to an edge of a latent.
        required: whether a target needs profiles.

    Raises:
        UsageError: see :func:`profiles_for_components`; or latents that the unet cannot halve as often as it does.
    """
    presets = {name: {each: _preset(each, name, values, scale) for each in names()} for name, values in inputs.items()}
    found = profiles_for_components(inputs, specs, presets=presets, default=DEFAULT, required=required)
    for name, each in found.items():
        if name == "unet":
            _check_multiples(each, shapes[name].multiple)
    return {name: _distinct(each) for name, each in found.items()}


def _preset(preset: str, component: str, values: Sequence[Value], scale: int) -> Profile:
    head, _, tail = preset.partition("-")
    least = int(head)
    most = int(tail) if tail.isdigit() else least
    images = int(tail[1:]) if tail.startswith("b") else 0
    rows = 1 if component.startswith("vae") else 2  # to a picture, with guidance; Turbo, which has none, needs one
    batches = images or 1, (images or 1) * rows, (images or IMAGES) * rows
    pixels = 1 if component == "vae_encoder" else scale
    edges = least // pixels, most // pixels, most // pixels
    sizes = [{"batch": batch, "height": edge, "width": edge} for batch, edge in zip(batches, edges, strict=True)]
    return Profile(name=preset, inputs={name: _range(value, sizes) for name, value in dynamic_inputs(values).items()})


def _range(value: Value, sizes: Sequence[Mapping[str, int]]) -> ShapeRange:
    least, opt, most = (tuple(size[dim] if isinstance(dim, str) else dim for dim in value.shape) for size in sizes)
    return ShapeRange(min=least, opt=opt, max=most)


def _check_multiples(found: Sequence[Profile], multiple: int) -> None:
    for profile in found:
        shapes = profile.inputs["sample"]
        for shape in (shapes.min, shapes.opt, shapes.max):
            if any(edge % multiple for edge in shape[2:]):
                raise UsageError(
                    f"--profile: latents of {shape[2]}x{shape[3]} cannot be halved down to the unet's middle",
                    hint=f"heights and widths of latents must be multiples of {multiple}",
                )


def _distinct(found: Sequence[Profile]) -> tuple[Profile, ...]:
    # Text encoders know no picture sizes: 512 and 1024 are one profile to them.
    kept: dict[tuple[tuple[str, ShapeRange], ...], Profile] = {}
    for profile in found:
        kept.setdefault(tuple(profile.inputs.items()), profile)
    return tuple(kept.values())
