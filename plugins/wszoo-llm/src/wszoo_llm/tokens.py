"""Text to tokens and back, with the tokenizer that travels with the model; code in it never runs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wszoo.errors import MalformedError, NotFoundError, UsageError
from wszoo_llm.libraries import require
from wszoo_llm.source import TOKENIZER_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.families.protocol import PulledModel

_UNFINISHED = "\ufffd"  # what decoding gives for the first bytes of a character


class Tokenizer:
    """The model's tokenizer.

    Args:
        model: with its files as assets.

    Raises:
        NotFoundError: the model has no tokenizer.
        MalformedError: its files are not understood.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, model: PulledModel) -> None:
        names = [name for name in TOKENIZER_FILES if name in model.assets]
        if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(names):
            raise NotFoundError(
                "this model was published without a tokenizer",
                hint="give tokens with --tokens 1,2,3, or put tokenizer.json beside config.json and build again",
            )
        with _folder(model, names) as folder:
            self._own = _load(folder)

    def encode(self, prompt: str, *, plain: bool = False) -> list[int]:
        """The tokens of a prompt; through the chat template where the model has one.

        Args:
            prompt: what the user says.
            plain: continue the text itself, without the template.

        Raises:
            MalformedError: the template fails.
        """
        if plain or not getattr(self._own, "chat_template", None):
            return list(self._own(prompt)["input_ids"])
        try:
            found = self._own.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=True, return_dict=True
            )
        except Exception as error:  # a template is a program; jinja2 raises whatever it raises
            raise MalformedError(
                f"the model's chat template fails: {type(error).__name__}: {error}",
                hint="--plain continues the prompt without it",
            ) from error
        return list(found["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, without special ones."""
        text: str = self._own.decode(list(tokens), skip_special_tokens=True)
        return text


class Speaker:
    """Turns tokens into text as they come.

    Whole words come out only when the next token has shown where they end, and a character only when all of its bytes
    are there: what was said is never taken back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._said = ""

    def add(self, token: int) -> str:
        """The text that a token adds; may be empty."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(_UNFINISHED) or not text.startswith(self._said):
            return ""
        piece, self._said = text[len(self._said) :], text
        return piece

    @property
    def text(self) -> str:
        """All of it."""
        return self._tokenizer.decode(self._tokens)

    def rest(self) -> str:
        """What had not been said yet at the end."""
        return self.text.removeprefix(self._said)


def check_tokens(text: str) -> list[int]:
    """Tokens that the user gave as numbers.

    Raises:
        UsageError: something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):  # noqa: PLR2004
        raise UsageError(f"--tokens: {text!r} are no token numbers", hint="write them as in --tokens 1,15043,3186")
    return [int(part) for part in parts]


@contextmanager
def _folder(model: PulledModel, names: Sequence[str]) -> Iterator[Path]:
    # transformers reads tokenizers from a folder only.
    with tempfile.TemporaryDirectory(prefix="wszoo-", ignore_cleanup_errors=True) as folder:
        for name in names:
            (Path(folder) / name).write_bytes(model.asset(name))
        yield Path(folder)


def _load(folder: Path) -> Any:  # noqa: ANN401 - transformers' own
    transformers = require("transformers", "run")
    try:
        if (folder / "tokenizer.json").is_file():
            return _fast(transformers, folder)
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a wrong file makes the libraries raise
        raise MalformedError(f"the model's tokenizer is not understood: {type(error).__name__}: {error}") from error


def _fast(transformers: Any, folder: Path) -> Any:  # noqa: ANN401
    """The tokenizer that tokenizer.json describes, whatever class the configuration names."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
