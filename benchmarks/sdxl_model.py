"""Stable Diffusion XL at full size with seeded weights: the published configurations, and a folder made of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

TEXT: dict[str, Any] = {
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": TEXT
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": TEXT
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def make(source: Path, *components: str) -> None:
    """Write the model's folder, as diffusers does, with the weights of some components."""
    from wszoo_sdxl import tiny

    source.mkdir()
    (source / "model_index.json").write_text(json.dumps(INDEX))
    (source / "scheduler").mkdir()
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULER))
    for part, config in CONFIGS.items():
        (source / part).mkdir()
        (source / part / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer", "tokenizer_2"):
        tiny.write_tokenizer(source / name)
    for part in dict.fromkeys("vae" if name.startswith("vae") else name for name in components):
        _write_weights(source, part)


def _write_weights(source: Path, part: str) -> None:
    import torch
    from wszoo_sdxl import tiny

    torch.set_default_dtype(torch.float32 if part == "vae" else torch.float16)
    with torch.device("meta"):
        module = network(part)
    module = module.to_empty(device="cpu")
    tiny.fill(module, 0)
    module.save_pretrained(source / part, max_shard_size="10GB")


def network(part: str) -> torch.nn.Module:
    import diffusers
    import transformers

    library, kind = INDEX[part]
    if library == "transformers":
        return getattr(transformers, kind)(transformers.CLIPTextConfig(**CONFIGS[part]))
    return getattr(diffusers, kind).from_config(CONFIGS[part])
