"""A tiny SDXL with seeded weights and tokenizers of single letters: for tests, and for trying every command out.

    python -m wszoo_sdxl.tiny FOLDER [--kind base|refiner|turbo] [--tuned] [--lora FILE]

It has the architecture of the real one, all five networks, in a size that builds in a minute and draws coloured noise.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path
from typing import Any

from wszoo.families.torch_export import require_torch
from wszoo_sdxl.libraries import require

HIDDEN = 32  # of each text encoder
SEED = 7

TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": HIDDEN,
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "attention_head_dim": [2, 4],
    "transformer_layers_per_block": [1, 1],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def make(
    folder: Path,
    kind: str = "base",
    *,
    seed: int = SEED,
    precision: str = "fp32",
    variant: str = "",
    tuned: bool = False,
) -> Path:
    """Write a tiny model in diffusers' layout.

    Args:
        folder: where; made when it does not exist.
        kind: ``base``, ``turbo`` (another scheduler) or ``refiner`` (one text encoder, and an aesthetic score).
        seed: for the weights.
        precision: of the weights that are saved: ``fp32`` or ``fp16``.
        variant: for the files' names, such as ``fp16``; empty for none.
        tuned: with other weights in the unet's attention, as a fine-tune leaves them.

    Returns:
        ``folder``.
    """
    torch = require_torch()
    refiner = kind == "refiner"
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    networks = _networks(refiner)
    for number, network in enumerate(networks.values()):
        fill(network, seed + number)
        network.to(dtype)
    if tuned:
        tune(networks["unet"])
    for name in _tokenizers(refiner):
        write_tokenizer(folder / name, pad="!" if name == "tokenizer_2" else "<|endoftext|>")
    tokenizers = {name: read_tokenizer(folder / name) for name in _tokenizers(refiner)}
    pipeline = _pipeline(kind, {**networks, **tokenizers})
    pipeline.save_pretrained(folder, safe_serialization=True, variant=variant or None)
    return folder


def _tokenizers(refiner: bool) -> tuple[str, ...]:
    return ("tokenizer_2",) if refiner else ("tokenizer", "tokenizer_2")


def _pipeline(kind: str, parts: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers' own
    diffusers = require("diffusers", "export")
    if kind == "turbo":
        turbo = {**SCHEDULER, "timestep_spacing": "trailing"}
        scheduler = diffusers.EulerAncestralDiscreteScheduler(**turbo)
    else:
        scheduler = diffusers.EulerDiscreteScheduler(**SCHEDULER)
    if kind != "refiner":
        return diffusers.StableDiffusionXLPipeline(**parts, scheduler=scheduler)
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        **parts,
        text_encoder=None,
        tokenizer=None,
        scheduler=scheduler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


def make_lora(path: Path, *, seed: int = SEED) -> Path:
    """Write a LoRA of rank 2 for the unet's middle, as diffusers writes them.

    Returns:
        ``path``.
    """
    torch = require_torch()
    generator = torch.Generator().manual_seed(seed)
    width = UNET["block_out_channels"][-1]
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    shapes = {f"{layer}.lora_A.weight": (2, width), f"{layer}.lora_B.weight": (width, 2)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    require("safetensors.torch", "export").save_file(tensors, path)
    return path


def read_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - transformers' own
    """The tokenizer that :func:`make` wrote."""
    return require("transformers", "export").CLIPTokenizer.from_pretrained(folder)


def vocabulary() -> dict[str, int]:
    """Letters, digits and some marks, inside of a word and at its end, and the two special tokens."""
    marks = [*string.ascii_lowercase, *string.digits, "!", ",", "."]
    words = [*marks, *(f"{mark}</w>" for mark in marks), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def write_tokenizer(folder: Path, *, pad: str = "<|endoftext|>") -> None:
    """Write the files of a tokenizer of single letters, and of the word "cat"."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TEXT["max_position_embeddings"],
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def fill(module: Any, seed: int) -> None:  # noqa: ANN401 - a torch module
    """Seed a module's weights with the variance that keeps signals alive through every layer.

    Norms start near one, biases near zero. One tensor at a time, in the module's own element type.
    """
    torch = require_torch()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            noise.mul_(0.02).add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            noise.mul_(parameter[0].numel() ** -0.5)
        parameter.data.copy_(noise)
    module.eval()


def tune(unet: Any) -> None:  # noqa: ANN401 - a torch module
    """Change the weights of a unet's attention, and nothing else, by an eighth."""
    for name, parameter in unet.named_parameters():
        if ".attn" in name:
            parameter.data.mul_(1.125)


def _networks(refiner: bool) -> dict[str, Any]:
    diffusers, transformers = require("diffusers", "export"), require("transformers", "export")
    words = vocabulary()
    text = transformers.CLIPTextConfig(
        **TEXT,
        vocab_size=len(words),
        bos_token_id=words["<|startoftext|>"],
        eos_token_id=words["<|endoftext|>"],
        pad_token_id=words["<|endoftext|>"],
    )
    numbers = 5 if refiner else 6  # size, crop, and a score or the target size
    unet = diffusers.UNet2DConditionModel(
        **UNET,
        cross_attention_dim=HIDDEN if refiner else 2 * HIDDEN,
        projection_class_embeddings_input_dim=numbers * UNET["addition_time_embed_dim"] + HIDDEN,
    )
    both = {} if refiner else {"text_encoder": transformers.CLIPTextModel(text)}
    second = transformers.CLIPTextModelWithProjection(text)
    return {**both, "text_encoder_2": second, "unet": unet, "vae": diffusers.AutoencoderKL(**VAE)}


def main() -> None:
    """``python -m wszoo_sdxl.tiny FOLDER``."""
    parser = argparse.ArgumentParser(
        prog="python -m wszoo_sdxl.tiny", description="Write a tiny SDXL to try things out."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=["base", "refiner", "turbo"], default="base")
    parser.add_argument("--tuned", action="store_true", help="as a fine-tune of the unet's attention would be")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="also write a LoRA for it")
    options = parser.parse_args()
    _quiet()
    make(options.folder, options.kind, tuned=options.tuned)
    print(f"wrote {options.folder}")  # noqa: T201 - a program's output
    if options.lora:
        make_lora(options.lora)
        print(f"wrote {options.lora}")  # noqa: T201


def _quiet() -> None:
    """No progress bars and advice of libraries: they are not about this program's use of them."""
    for library in ("diffusers", "transformers"):
        logging = require(f"{library}.utils.logging", "export")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


if __name__ == "__main__":
    main()
