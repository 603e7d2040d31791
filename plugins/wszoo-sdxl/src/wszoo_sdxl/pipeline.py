"""From a prompt to pictures: the steps of diffusers' pipelines, with every network run from its pulled plan.

Networks are loaded one after the other and let go of, so that memory holds the largest and not all. Random numbers come
from torch's CPU generator, in the order and type in which diffusers draws them: the same seed gives the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import NotFoundError, UsageError
from wszoo.families.arrays import numpy_dtype
from wszoo_sdxl.components import to_torch
from wszoo_sdxl.prompts import tokenize
from wszoo_sdxl.recipe import ASSET, Recipe, read
from wszoo_sdxl.schedule import make_scheduler, set_steps, takes_generator
from wszoo_sdxl.tensors import missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from wszoo.families.protocol import PulledModel, RunnableComponent
    from wszoo.progress import Progress

    Floats = NDArray[np.float32]

NEEDED = ("text_encoder_2", "unet", "vae_decoder")
MAX_EDGE = 8192
GREYS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to draw.

    Attributes:
        prompt: what should be seen.
        negative: what should not; None for nothing, which models may treat unlike an empty text.
        steps: of denoising.
        guidance: how strongly the prompt counts; up to 1 switches guidance off, as Turbo wants it.
        seed: of the noise.
        height: in pixels; 0 for the model's own.
        width: the same.
        count: pictures.
        image: ``(height, width, 3)``, 0..255, to start from instead of noise; None for noise.
        strength: 0..1, how much of ``image`` may be changed.
        score: how beautiful the refiner should find it.
    """

    prompt: str
    negative: str | None = None
    steps: int = 30
    guidance: float = 5.0
    seed: int = 0
    height: int = 0
    width: int = 0
    count: int = 1
    image: NDArray[np.uint8] | None = None
    strength: float = 0.3
    score: float = 6.0

    @property
    def guided(self) -> bool:
        """Whether the unet runs with and without the prompt."""
        return self.guidance > 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the unet is told besides the noisy latents, with a row to each row of them.

    Attributes:
        hidden: ``(rows, tokens, context)``.
        pooled: ``(rows, pooled)``.
    """

    hidden: NDArray[Any]
    pooled: NDArray[Any]


def draw(model: PulledModel, wish: Wish, progress: Progress) -> NDArray[np.uint8]:
    """Draw pictures.

    Returns:
        ``(count, height, width, 3)``, 0..255.

    Raises:
        UsageError: a size or a number that the model does not take.
        NotFoundError: the model lacks a component or an asset.
        IncompatibleError: a shape outside of the plans' profiles, or an engine that fails.
        MissingExtraError: diffusers, transformers or torch is not installed.
    """
    recipe = read(model.asset(ASSET))
    _check(model, wish, recipe)
    torch = _torch()
    generator = torch.Generator().manual_seed(wish.seed)
    scheduler = make_scheduler(model)
    conditions = _conditions(model, wish, recipe, progress)
    latents = None if wish.image is None else _encode(model, wish, recipe, generator, progress)
    final = _denoise(model, wish, recipe, conditions, scheduler, latents, generator, progress)
    return _decode(model, recipe, final, progress)


def size_of(wish: Wish, recipe: Recipe) -> tuple[int, int]:
    """Height and width in pixels."""
    if wish.image is not None:
        return wish.image.shape[0], wish.image.shape[1]
    return wish.height or recipe.edge, wish.width or recipe.edge


def _check(model: PulledModel, wish: Wish, recipe: Recipe) -> None:
    needed = NEEDED if wish.image is None else (*NEEDED, "vae_encoder")
    absent = [name for name in needed if name not in model.components]
    if absent:
        raise NotFoundError(
            f"drawing needs {', '.join(absent)}, and the model was built with {', '.join(model.components)}",
            hint="build it again without --option components=",
        )
    step = recipe.scale * recipe.multiple
    for name, edge in zip(("height", "width"), size_of(wish, recipe), strict=True):
        if edge % step or not step <= edge <= MAX_EDGE:
            raise UsageError(f"a {name} of {edge} pixels is not possible", hint=f"give a multiple of {step}")


def _conditions(model: PulledModel, wish: Wish, recipe: Recipe, progress: Progress) -> Conditions:
    texts = [wish.prompt]
    zeros = wish.negative is None and recipe.zero_negative
    if wish.guided and not zeros:
        texts.insert(0, wish.negative or "")
    encoders = [name for name in ("text_encoder", "text_encoder_2") if _has_tokenizer(model, name)]
    hidden, pooled = [], np.empty(0)
    with progress.stage("read the prompt", len(encoders), "encoders") as advance:
        for name in encoders:
            ids = tokenize(model, _tokenizer_of(name), texts, recipe.tokens)
            found = model[name].load()(input_ids=ids)
            hidden.append(found["hidden_states"])
            pooled = found.get("text_embeds", pooled)
            advance(1)
    both = Conditions(np.concatenate(hidden, axis=-1), pooled)
    if wish.guided and zeros:
        both = Conditions(*(np.concatenate([np.zeros_like(array), array]) for array in (both.hidden, both.pooled)))
    return Conditions(np.repeat(both.hidden, wish.count, axis=0), np.repeat(both.pooled, wish.count, axis=0))


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _has_tokenizer(model: PulledModel, encoder: str) -> bool:
    prefix = f"{_tokenizer_of(encoder)}."
    there = any(name.startswith(prefix) for name in model.assets)
    if there and encoder not in model.components:
        raise NotFoundError(f"the model reads prompts with {encoder}, and was built without it")
    return there


def _time_ids(wish: Wish, recipe: Recipe) -> Floats:
    height, width = size_of(wish, recipe)
    full = recipe.time_ids > 5  # noqa: PLR2004 - original size, crop, target size; the refiner's score stands for the last
    rows = [[height, width, 0, 0, *((height, width) if full else (score,))] for score in _scores(wish)]
    return np.repeat(np.asarray(rows, np.float32), wish.count, axis=0)


def _scores(wish: Wish) -> list[float]:
    # What diffusers' refiner pipeline takes for the pictures that are not wanted.
    return [2.5, wish.score] if wish.guided else [wish.score]


def _encode(
    model: PulledModel, wish: Wish, recipe: Recipe, generator: torch.Generator, progress: Progress
) -> torch.Tensor:
    torch = _torch()
    assert wish.image is not None
    with progress.stage("encode the image"):
        network = model["vae_encoder"].load()
        dtype = numpy_dtype(network.inputs[0])
        pixels = (wish.image.astype(np.float32) / GREYS * 2 - 1).transpose(2, 0, 1)[None].astype(dtype)
        moments = torch.from_numpy(network(pixels=pixels)["moments"].astype(np.float32))
    mean, logvar = moments.chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=generator)
    sample = mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise
    return _normalised(sample, recipe).repeat(wish.count, 1, 1, 1)


def _normalised(latents: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    mean, std = _statistics(recipe)
    return (latents - mean) * recipe.scaling_factor / std


def _statistics(recipe: Recipe) -> tuple[Any, Any]:
    torch = _torch()
    if recipe.latents_mean is None or recipe.latents_std is None:
        return 0.0, 1.0
    return tuple(torch.tensor(each).view(1, -1, 1, 1) for each in (recipe.latents_mean, recipe.latents_std))  # type: ignore[return-value]


def _denoise(
    model: PulledModel,
    wish: Wish,
    recipe: Recipe,
    conditions: Conditions,
    scheduler: Any,  # noqa: ANN401
    start: torch.Tensor | None,
    generator: torch.Generator,
    progress: Progress,
) -> torch.Tensor:
    with progress.stage("load unet"):
        unet = model["unet"].load()
    feed = _Unet(unet, conditions, _time_ids(wish, recipe), wish)
    set_steps(scheduler, wish.steps)
    latents, timesteps = _start(wish, recipe, feed.dtype, scheduler, start, generator)
    extra = {"generator": generator} if takes_generator(scheduler) else {}
    with progress.stage("denoise", len(timesteps), "steps") as advance:
        for timestep in timesteps:
            noise = feed(scheduler.scale_model_input(latents, timestep), timestep)
            latents = scheduler.step(noise, timestep, latents, **extra, return_dict=False)[0]
            advance(1)
    return latents


def _start(
    wish: Wish,
    recipe: Recipe,
    dtype: torch.dtype,
    scheduler: Any,  # noqa: ANN401
    start: torch.Tensor | None,
    generator: torch.Generator,
) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    torch = _torch()
    height, width = (edge // recipe.scale for edge in size_of(wish, recipe))
    shape = (wish.count, recipe.latent_channels, height, width)
    if start is None:
        return torch.randn(shape, generator=generator, dtype=dtype) * scheduler.init_noise_sigma, scheduler.timesteps
    kept = min(int(wish.steps * wish.strength), wish.steps)
    if not kept:
        raise UsageError(f"a strength of {wish.strength} leaves none of {wish.steps} steps", hint="give more of either")
    first = (wish.steps - kept) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:]
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    return scheduler.add_noise(start.to(dtype), noise, timesteps[:1].repeat(wish.count)), timesteps


class _Unet:
    """The unet with everything but the latents and the timestep given; guides where that is wished."""

    def __init__(self, network: RunnableComponent, conditions: Conditions, time_ids: Floats, wish: Wish) -> None:
        takes = {value.name: value for value in network.inputs}
        self._network = network
        self._wish = wish
        self._numpy = numpy_dtype(takes["sample"])
        rows = wish.count * (2 if wish.guided else 1)
        self._fixed = {
            "encoder_hidden_states": conditions.hidden.astype(self._numpy),
            "text_embeds": conditions.pooled.astype(self._numpy),
            "time_ids": time_ids[:rows] if len(time_ids) >= rows else np.tile(time_ids, (2, 1)),
        }
        self.dtype = to_torch(np.zeros(1, self._numpy)).dtype

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        torch = _torch()
        sample = torch.cat([latents, latents]) if self._wish.guided else latents
        found = self._network(
            sample=sample.float().numpy().astype(self._numpy),
            timestep=np.asarray([float(timestep)], np.float32),
            **self._fixed,
        )
        noise = to_torch(found["noise"])
        if not self._wish.guided:
            return noise
        without, wanted = noise.chunk(2)
        return without + self._wish.guidance * (wanted - without)


def _decode(model: PulledModel, recipe: Recipe, latents: torch.Tensor, progress: Progress) -> NDArray[np.uint8]:
    mean, std = _statistics(recipe)
    with progress.stage("decode", len(latents), "pictures") as advance:
        network = model["vae_decoder"].load()
        dtype = numpy_dtype(network.inputs[0])
        plain = (latents.float() * std / recipe.scaling_factor + mean).numpy().astype(dtype)
        pictures = []
        for one in plain:  # one at a time: at 1024x1024 each takes gigabytes on its way
            image = network(latents=one[None])["image"].astype(np.float32)
            pictures.append(np.clip(image / 2 + 0.5, 0, 1)[0].transpose(1, 2, 0))
            advance(1)
    return np.round(np.stack(pictures) * GREYS).astype(np.uint8)


def _torch() -> Any:  # noqa: ANN401
    try:
        import torch
    except ImportError as error:
        raise missing("torch", "run") from error
    return torch
