"""From text to numbers: CLIP's tokenizers, made again from the files that travel with a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import MalformedError, NotFoundError
from wszoo_sdxl.libraries import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wszoo.families.protocol import PulledModel


def tokenize(model: PulledModel, part: str, texts: Sequence[str], length: int) -> NDArray[np.int64]:
    """Turn texts into the numbers that a text encoder takes.

    Args:
        model: whose assets hold the tokenizer.
        part: ``tokenizer`` or ``tokenizer_2``.
        texts: prompts; what does not fit is cut off.
        length: numbers to a prompt.

    Returns:
        ``(len(texts), length)``.

    Raises:
        NotFoundError: the model has no such tokenizer.
        MalformedError: its files make none.
        MissingExtraError: transformers is not installed.
    """
    files = [name for name in model.assets if name.startswith(f"{part}.")]
    if not files:
        raise NotFoundError(f"the model has no {part}")
    with tempfile.TemporaryDirectory(prefix="wszoo-") as folder:
        for name in files:
            (Path(folder) / name.removeprefix(f"{part}.")).write_bytes(model.asset(name))
        tokenizer = _load(folder, part)
    ids = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True).input_ids
    return np.asarray(ids, np.int64)


def _load(folder: str, part: str) -> Any:  # noqa: ANN401 - transformers' own
    transformers = require("transformers", "run")
    try:
        return transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever damaged files make the library raise
        raise MalformedError(f"the {part}'s files make no tokenizer: {type(error).__name__}: {error}") from error
