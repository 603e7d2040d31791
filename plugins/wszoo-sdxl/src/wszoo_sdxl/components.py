"""The five networks: what each takes and gives, and how it is wrapped so that arrays go in and come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import BuildError
from wszoo.families.torch_export import require_torch
from wszoo.schema.model import Value
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

# What arrays go in and out as; "mixed" is a VAE in fp32 whose attention computes in fp16.
PRECISIONS = {"fp32": "float32", "mixed": "float32", "fp16": "float16", "bf16": "bfloat16"}
RGB = 3

OUTPUTS = {
    "text_encoder": ("hidden_states", "last_hidden_state"),
    "text_encoder_2": ("hidden_states", "text_embeds"),
    "unet": ("noise",),
    "vae_decoder": ("image",),
    "vae_encoder": ("moments",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers of a configuration that inputs depend on.

    Attributes:
        tokens: a prompt's length.
        words: size of the vocabulary.
        latent_channels: of what the unet denoises.
        context: length of a token's embedding as the unet takes it.
        pooled: length of a prompt's pooled embedding.
        time_ids: numbers that describe size and crop: 6, and 5 with an aesthetic score instead of a target size.
        multiple: what latents' edges must be multiples of: the unet halves them so often.
        scale: pixels to an edge of a latent.
    """

    tokens: int = 77
    words: int = 49408
    latent_channels: int = 4
    context: int = 2048
    pooled: int = 1280
    time_ids: int = 6
    multiple: int = 4
    scale: int = 8


def shape_of(component: str, config: Mapping[str, Any]) -> Shape:
    """Read a network's configuration.

    Raises:
        BuildError: not SDXL's architecture, or a number is missing.
    """
    try:
        if component.startswith("text"):
            return Shape(tokens=int(config["max_position_embeddings"]), words=int(config["vocab_size"]))
        if component == "unet":
            return _unet_shape(config)
        return Shape(latent_channels=int(config["latent_channels"]), scale=2 ** (len(config["block_out_channels"]) - 1))
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(f"the config of {component} is not understood: {type(error).__name__}: {error}") from error


def _unet_shape(config: Mapping[str, Any]) -> Shape:
    if config.get("addition_embed_type") != "text_time":
        raise BuildError(
            f"the unet's addition_embed_type is {config.get('addition_embed_type')!r}, and SDXL's is 'text_time'",
            hint="another Stable Diffusion is not exported by the family 'sdxl'",
        )
    if config.get("time_cond_proj_dim") is not None:
        raise BuildError(
            "the unet takes an embedding of the guidance scale (a consistency model), which is not exported"
        )
    # The projection takes the pooled embedding and a sinusoid of each of 5 or 6 numbers: SDXL's 1280 + 6 * 256 = 2816,
    # the refiner's 1280 + 5 * 256 = 2560. The context says which: the refiner's is one text encoder's alone.
    step, whole = int(config["addition_time_embed_dim"]), int(config["projection_class_embeddings_input_dim"])
    context = int(config["cross_attention_dim"])
    count = 5 if whole - 5 * step == context else 6
    return Shape(
        latent_channels=int(config["in_channels"]),
        context=context,
        pooled=whole - count * step,
        time_ids=count,
        multiple=2 ** (len(config["block_out_channels"]) - 1),
    )


def inputs_of(component: str, shape: Shape, precision: str) -> tuple[Value, ...]:
    """What a network takes; dynamic dimensions by name."""
    dtype = PRECISIONS[precision]
    if component.startswith("text"):
        return (Value(name="input_ids", dtype="int64", shape=("batch", shape.tokens)),)
    if component == "vae_encoder":
        return (Value(name="pixels", dtype=dtype, shape=("batch", RGB, "height", "width")),)
    latents = ("batch", shape.latent_channels, "height", "width")
    if component == "vae_decoder":
        return (Value(name="latents", dtype=dtype, shape=latents),)
    return (
        Value(name="sample", dtype=dtype, shape=latents),
        Value(name="timestep", dtype="float32", shape=(1,)),
        Value(name="encoder_hidden_states", dtype=dtype, shape=("batch", shape.tokens, shape.context)),
        Value(name="text_embeds", dtype=dtype, shape=("batch", shape.pooled)),
        # fp16 has no odd numbers above 2048, and these are pixels.
        Value(name="time_ids", dtype="float32", shape=("batch", shape.time_ids)),
    )


def example(values: tuple[Value, ...], shape: Shape, seed: int, batch: int, edges: tuple[int, int]) -> Arrays:
    """Seeded inputs in the range of real ones.

    Args:
        values: what the network takes.
        shape: of its configuration.
        seed: of the noise.
        batch: rows.
        edges: height and width, as the network's dimensions of these names.
    """
    generator = np.random.default_rng(seed)
    sizes = {"batch": batch, "height": edges[0], "width": edges[1]}
    return {value.name: _noise(generator, value, shape, sizes) for value in values}


def _noise(generator: np.random.Generator, value: Value, shape: Shape, sizes: Mapping[str, int]) -> NDArray[Any]:
    dims = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in value.shape)
    dtype = dtype_of(value.dtype).numpy
    if value.name == "input_ids":
        ids = generator.integers(0, shape.words, dims)
        ids[:, shape.tokens // 2 :] = shape.words - 1  # the end of a prompt, which pooling looks for
        return ids.astype(dtype)
    if value.name == "timestep":
        return generator.integers(1, 1000, dims).astype(dtype)
    if value.name == "time_ids":
        return generator.integers(0, 1024, dims).astype(dtype)
    if value.name == "pixels":
        return generator.uniform(-1, 1, dims).astype(dtype)
    return generator.standard_normal(dims, np.float32).astype(dtype)


def wrap(component: str, module: torch.nn.Module) -> torch.nn.Module:
    """A module whose ``forward`` has the component's inputs as arguments and its outputs, in order, as results."""
    forward: dict[str, Callable[..., object]] = {
        "text_encoder": _text,
        "text_encoder_2": _text_2,
        "unet": _unet,
        "vae_decoder": _decoder,
        "vae_encoder": _encoder,
    }
    made: torch.nn.Module = _wrapper(module, forward[component]).eval()
    return made


def _wrapper(module: torch.nn.Module, function: Callable[..., object]) -> torch.nn.Module:
    """``function`` as the ``forward`` of a module that holds another, which is the function's first argument."""
    library = require_torch()

    class Wrapper(library.nn.Module):  # type: ignore[misc,name-defined]  # torch is imported only when it is needed
        def __init__(self) -> None:
            super().__init__()
            self.model = module

    # The exporter reads the arguments' names from forward's signature, so it has to be the function itself.
    Wrapper.forward = function
    made: torch.nn.Module = Wrapper()
    return made


def _text(self: Any, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - a Wrapper
    found = self.model(input_ids, output_hidden_states=True)
    return found.hidden_states[-2], found.last_hidden_state


def _text_2(self: Any, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
    found = self.model(input_ids, output_hidden_states=True)
    return found.hidden_states[-2], found.text_embeds


def _unet(  # noqa: PLR0917 - the network's inputs
    self: Any,  # noqa: ANN401
    sample: torch.Tensor,
    timestep: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    text_embeds: torch.Tensor,
    time_ids: torch.Tensor,
) -> torch.Tensor:
    # Inside, text_embeds meets sinusoids that are always fp32. torch's concat promotes silently; the exported Concat
    # would have two element types, which TensorRT's parser refuses. The promotion made plain:
    added = {"text_embeds": text_embeds.float(), "time_ids": time_ids}
    found: tuple[torch.Tensor, ...] = self.model(
        sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False
    )
    return found[0]


def _decoder(self: Any, latents: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    found: torch.Tensor = self.model.decode(latents, return_dict=False)[0]
    return found


def _encoder(self: Any, pixels: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    found: torch.Tensor = self.model.encode(pixels, return_dict=False)[0].parameters
    return found


def to_torch(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor, bfloat16 included."""
    library = require_torch()
    if array.dtype.name == "bfloat16":  # torch cannot read ml_dtypes' arrays
        narrow: torch.Tensor = library.from_numpy(array.view(np.uint16).copy()).view(library.bfloat16)
        return narrow
    plain: torch.Tensor = library.from_numpy(array)
    return plain
