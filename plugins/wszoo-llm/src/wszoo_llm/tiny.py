"""Tiny language models with seeded weights and a real tokenizer: for tests, and for trying every command out.

    python -m wszoo_llm.tiny FOLDER [--kind llama|mistral|gemma|gemma2|gemma3|phi|phi3|qwen2|qwen3|glm|...]

Each has the architecture of the real one in a size that builds in seconds, and speaks nonsense: its weights are noise.
The tokenizer is a byte-level BPE that is trained on a few sentences here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from wszoo.families.torch_export import require_torch
from wszoo_llm.libraries import require

SEED = 11
WORDS = 512  # of the vocabulary
CONTEXT = 256
TEXT = (
    "Once upon a time there was a lighthouse on a cliff, and its keeper counted the ships that came by.",
    "Every weight once, one small plan per card: the rest is bookkeeping, and bookkeeping is done at night.",
    "When the wind blows from the west, the waves are higher than the wall, and nobody goes to the harbour.",
    "A reader who reads slowly reads twice; a writer who writes slowly is read at all.",
    "She asked how many there were, and he said: one, two, three, four, five, six, seven, eight, nine, ten.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, und im Hafen schläft die Katze.",
)
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>")

SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# What sets each kind apart: the configuration's class, and what differs from the sizes above. Windows are shorter than
# what tests generate, so that they matter.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": False}),
    "llama3": (
        "LlamaConfig",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": 16}),
    "gemma": ("GemmaConfig", {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2Config", {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 32,
            "sliding_window": 16,
            "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi": ("PhiConfig", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3Config", {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}),
    "glm": ("GlmConfig", {"head_dim": 32, "attention_bias": True}),
    "glm4": ("Glm4Config", {"head_dim": 32}),
}


def make(folder: Path, kind: str = "llama", *, seed: int = SEED, precision: str = "fp32", **changes: Any) -> Path:  # noqa: ANN401
    """Write a tiny model as transformers saves it.

    Args:
        folder: where; made when it does not exist.
        kind: one of :data:`KINDS`.
        seed: for the weights.
        precision: of the weights that are saved: ``fp32``, ``fp16`` or ``bf16``.
        **changes: to the configuration.

    Returns:
        ``folder``.
    """
    torch, transformers = require_torch(), require("transformers")
    name, own = KINDS[kind]
    config = getattr(transformers, name)(**{**SIZES, **own, **changes})
    module = transformers.AutoModelForCausalLM.from_config(config)
    fill(module, seed)
    module.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision])
    folder.mkdir(parents=True, exist_ok=True)
    module.save_pretrained(folder, max_shard_size="200KB")
    write_tokenizer(folder)
    return folder


def fill(module: Any, seed: int) -> None:  # noqa: ANN401 - a torch module
    """Seed a module's weights so that signals stay alive through every layer, and answers are not all one word.

    Norms start near one (Gemma's, which add one, near zero), biases near zero. In the module's own element type.
    """
    torch = require_torch()
    generator = torch.Generator().manual_seed(seed)
    from_zero = "Gemma" in type(module).__name__
    # Small words: where they are the output layer too, a large one would answer with itself. Gemma multiplies them.
    words = 0.01 if from_zero else 0.1
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            noise.mul_(0.05).add_(0.0 if from_zero or "norm" not in name or name.endswith("bias") else 1.0)
        else:
            noise.mul_(words if "embed" in name else parameter.shape[-1] ** -0.5)
        parameter.data.copy_(noise)
    module.eval()


def write_tokenizer(folder: Path, *, template: bool = True) -> None:
    """Train a byte-level BPE on the sentences above, and write it with a chat template."""
    tokenizers = require("tokenizers", "export")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": CONTEXT,
        **({"chat_template": TEMPLATE} if template else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def main() -> None:
    """``python -m wszoo_llm.tiny FOLDER``."""
    parser = argparse.ArgumentParser(
        prog="python -m wszoo_llm.tiny", description="Write a tiny language model to try things out."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=sorted(KINDS), default="llama")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16"], default="fp32")
    options = parser.parse_args()
    make(options.folder, options.kind, precision=options.precision)


if __name__ == "__main__":
    main()
