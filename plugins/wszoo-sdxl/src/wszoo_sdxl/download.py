"""Which files of a Hub repository are needed: SDXL base has 78 GB of them, and its export in fp16 takes 7.

Beside each other there lie fp32 and fp16 safetensors, single-file checkpoints, Flax and ONNX exports, and pictures.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wszoo_sdxl.layout import COMPONENTS, INDEX, TOKENIZER_FILES, folder_of
from wszoo_sdxl.load import VARIANTS, stem_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SMALL = (
    INDEX,
    "README.md",
    "scheduler/scheduler_config.json",
    *(f"{folder}/{name}" for folder in ("tokenizer", "tokenizer_2") for name in TOKENIZER_FILES),
    *dict.fromkeys(f"{folder_of(name)}/config.json" for name in COMPONENTS),
)


def choose(names: Sequence[str], precisions: Mapping[str, str], wanted: str = "") -> list[str]:
    """The files that an export reads.

    Args:
        names: all that the repository has.
        precisions: what each component is exported in.
        wanted: components to build, with commas between; empty for all.

    Returns:
        Some of ``names``; none when it is not in diffusers' layout.
    """
    if INDEX not in names:
        return []
    components = [name.strip() for name in wanted.split(",") if name.strip()] or COMPONENTS
    weights = [
        name for component in components for name in _weights(names, component, precisions.get(component, "fp16"))
    ]
    there = set(names)
    return list(dict.fromkeys([*(name for name in SMALL if name in there), *weights]))


def _weights(names: Collection[str], component: str, precision: str) -> list[str]:
    """A component's files in the first variant that there is: one file, or shards and their index."""
    for variant in VARIANTS[precision]:
        dotted = re.escape(f".{variant}") if variant else ""
        stem = f"{folder_of(component)}/{stem_of(component)}"
        shard = r"(-\d+-of-\d+)"
        pattern = re.compile(
            rf"{re.escape(stem)}({dotted}{shard}?|{shard}{dotted})\.safetensors|"
            rf"{re.escape(stem)}({dotted}\.safetensors\.index|\.safetensors\.index{dotted})\.json"
        )
        found = [name for name in names if pattern.fullmatch(name)]
        if found:
            return found
    return []
