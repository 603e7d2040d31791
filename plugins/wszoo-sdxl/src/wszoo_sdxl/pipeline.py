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
from wszoo_sdxl.libraries import require
from wszoo_sdxl.prompts import tokenize
from wszoo_sdxl.recipe import ASSET, Recipe, read
from wszoo_sdxl.schedule import make_scheduler, set_steps, takes_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from wszoo.families.protocol import PulledModel, RunnableComponent
    from wszoo.progress import Progress

NEEDED = ("text_encoder_2", "unet", "vae_decoder")
MAX_EDGE = 8192
GREYS = 255
# How beautiful the refiner is told that the picture is, and what is not wanted: diffusers' numbers.
SCORE, SCORE_OF_NEGATIVE = 6.0, 2.5

_WITH_TARGET = 6  # time ids
_LOGVAR = (-30.0, 20.0)  # diffusers' bounds


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

    @property
    def guided(self) -> bool:
        """Whether the unet runs with and without the prompt."""
        return self.guidance > 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the unet is told besides the noisy latents, with a row to each row of them: first those without the prompt.

    Attributes:
        hidden: ``(rows, tokens, context)``.
        pooled: ``(rows, pooled)``.
        time_ids: ``(rows, 5 or 6)``.
    """

    hidden: NDArray[Any]
    pooled: NDArray[Any]
    time_ids: NDArray[np.float32]


def draw(model: PulledModel, wish: Wish, progress: Progress) -> NDArray[np.uint8]:
    """Draw pictures.

    Returns:
        ``(count, height, width, 3)``, 0..255.

    Raises:
        UsageError: a size or a number that the model does not take.
        NotFoundError: the model lacks a component or an asset.
        MalformedError: an asset that is not what it should be.
        IncompatibleError: a shape outside of the plans' profiles, or an engine that fails.
        MissingExtraError: diffusers, transformers or torch is not installed.
    """
    run = _Run(model, wish, read(model.asset(ASSET)), progress)
    run.check()
    conditions = run.conditions()
    return run.decoded(run.denoised(conditions, run.encoded()))


def size_of(wish: Wish, recipe: Recipe) -> tuple[int, int]:
    """Height and width in pixels."""
    if wish.image is not None:
        return wish.image.shape[0], wish.image.shape[1]
    return wish.height or recipe.edge, wish.width or recipe.edge


class _Run:
    """One drawing: what its steps share. The generator is used in the order in which diffusers uses its own."""

    def __init__(self, model: PulledModel, wish: Wish, recipe: Recipe, progress: Progress) -> None:
        self._torch = require("torch", "run")
        self._model = model
        self._wish = wish
        self._recipe = recipe
        self._progress = progress
        self._scheduler = make_scheduler(model)
        self._generator = self._torch.Generator().manual_seed(wish.seed)

    def check(self) -> None:
        needed = NEEDED if self._wish.image is None else (*NEEDED, "vae_encoder")
        absent = [name for name in needed if name not in self._model.components]
        if absent:
            raise NotFoundError(
                f"drawing needs {', '.join(absent)}, and the model has only {', '.join(self._model.components)}",
                hint="build it again without --option components=",
            )
        step = self._recipe.scale * self._recipe.multiple
        for name, edge in zip(("height", "width"), size_of(self._wish, self._recipe), strict=True):
            if edge % step or not step <= edge <= MAX_EDGE:
                raise UsageError(f"a {name} of {edge} pixels is not possible", hint=f"give a multiple of {step}")

    def conditions(self) -> Conditions:
        wish = self._wish
        zeros = wish.negative is None and self._recipe.zero_negative
        texts = [wish.negative or "", wish.prompt] if wish.guided and not zeros else [wish.prompt]
        encoders = [name for name in ("text_encoder", "text_encoder_2") if self._reads_with(name)]
        hidden, pooled = [], np.empty(0)
        with self._progress.stage("read the prompt", len(encoders), "encoders") as advance:
            for name in encoders:
                ids = tokenize(self._model, _tokenizer_of(name), texts, self._recipe.tokens)
                found = self._model[name].load()(input_ids=ids)
                hidden.append(found["hidden_states"])
                pooled = found.get("text_embeds", pooled)
                advance(1)
        both = [np.concatenate(hidden, axis=-1), pooled]
        if wish.guided and zeros:
            both = [np.concatenate([np.zeros_like(array), array]) for array in both]
        first, second = (np.repeat(array, wish.count, axis=0) for array in both)
        return Conditions(first, second, self._time_ids())

    def encoded(self) -> torch.Tensor | None:
        """Latents of the picture to start from; None without one."""
        image, library = self._wish.image, self._torch
        if image is None:
            return None
        with self._progress.stage("encode the image"):
            network = self._model["vae_encoder"].load()
            pixels = (image.astype(np.float32) / GREYS * 2 - 1).transpose(2, 0, 1)[None]
            moments = network(pixels=pixels.astype(numpy_dtype(network.inputs[0])))["moments"]
        mean, logvar = library.from_numpy(moments.astype(np.float32)).chunk(2, dim=1)
        noise = library.randn(mean.shape, generator=self._generator)
        sample = mean + library.exp(0.5 * logvar.clamp(*_LOGVAR)) * noise
        offset, spread = self._statistics()
        latents: torch.Tensor = (sample - offset) * self._recipe.scaling_factor / spread
        return latents.repeat(self._wish.count, 1, 1, 1)

    def denoised(self, conditions: Conditions, start: torch.Tensor | None) -> torch.Tensor:
        scheduler = self._scheduler
        with self._progress.stage("load unet"):
            unet = _Unet(self._model["unet"].load(), conditions, self._wish)
        set_steps(scheduler, self._wish.steps)
        latents, timesteps = self._noise(unet.dtype) if start is None else self._noised(start.to(unet.dtype))
        extra = {"generator": self._generator} if takes_generator(scheduler) else {}
        with self._progress.stage("denoise", len(timesteps), "steps") as advance:
            for timestep in timesteps:
                noise = unet(scheduler.scale_model_input(latents, timestep), timestep)
                latents = scheduler.step(noise, timestep, latents, **extra, return_dict=False)[0]
                advance(1)
        return latents

    def decoded(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        offset, spread = self._statistics()
        plain = (latents.float() * spread / self._recipe.scaling_factor + offset).numpy()
        pictures = []
        with self._progress.stage("decode", len(latents), "pictures") as advance:
            network = self._model["vae_decoder"].load()
            for one in plain.astype(numpy_dtype(network.inputs[0])):  # each takes gigabytes on its way at 1024x1024
                image = network(latents=one[None])["image"].astype(np.float32)
                pictures.append(np.clip(image / 2 + 0.5, 0, 1)[0].transpose(1, 2, 0))
                advance(1)
        return np.round(np.stack(pictures) * GREYS).astype(np.uint8)

    def _reads_with(self, encoder: str) -> bool:
        there = any(name.startswith(f"{_tokenizer_of(encoder)}.") for name in self._model.assets)
        if there and encoder not in self._model.components:
            raise NotFoundError(f"the model reads prompts with {encoder}, and was built without it")
        return there

    def _time_ids(self) -> NDArray[np.float32]:
        wish, size = self._wish, size_of(self._wish, self._recipe)
        # Original size, crop, and target size; in the refiner a score stands for the last.
        ends = [size, size] if self._recipe.time_ids == _WITH_TARGET else [(SCORE_OF_NEGATIVE,), (SCORE,)]
        rows = [[*size, 0, 0, *end] for end in (ends if wish.guided else ends[1:])]
        return np.repeat(np.asarray(rows, np.float32), wish.count, axis=0)

    def _statistics(self) -> tuple[Any, Any]:
        mean, std = self._recipe.latents_mean, self._recipe.latents_std
        if mean is None or std is None:
            return 0.0, 1.0
        return self._torch.tensor(mean).view(1, -1, 1, 1), self._torch.tensor(std).view(1, -1, 1, 1)

    def _noise(self, dtype: torch.dtype) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        height, width = (edge // self._recipe.scale for edge in size_of(self._wish, self._recipe))
        shape = (self._wish.count, self._recipe.latent_channels, height, width)
        noise = self._torch.randn(shape, generator=self._generator, dtype=dtype)
        return noise * self._scheduler.init_noise_sigma, self._scheduler.timesteps

    def _noised(self, start: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        wish, scheduler = self._wish, self._scheduler
        kept = min(int(wish.steps * wish.strength), wish.steps)
        if not kept:
            raise UsageError(
                f"a strength of {wish.strength} leaves none of {wish.steps} steps", hint="give more of both"
            )
        first = (wish.steps - kept) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        timesteps = scheduler.timesteps[first:]
        noise = self._torch.randn(start.shape, generator=self._generator, dtype=start.dtype)
        return scheduler.add_noise(start, noise, timesteps[:1].repeat(wish.count)), timesteps


class _Unet:
    """The unet with all but the latents and the timestep given; guides where that is wished."""

    def __init__(self, network: RunnableComponent, conditions: Conditions, wish: Wish) -> None:
        takes = {value.name: value for value in network.inputs}
        self._torch = require("torch", "run")
        self._network = network
        self._wish = wish
        self._numpy = numpy_dtype(takes["sample"])
        self._fixed = {
            "encoder_hidden_states": conditions.hidden.astype(self._numpy),
            "text_embeds": conditions.pooled.astype(self._numpy),
            "time_ids": conditions.time_ids,
        }
        self.dtype = to_torch(np.zeros(1, self._numpy)).dtype

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        sample = self._torch.cat([latents, latents]) if self._wish.guided else latents
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


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")
