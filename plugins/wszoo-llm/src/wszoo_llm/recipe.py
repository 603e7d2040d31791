"""What generating must know about a model besides its network: the asset ``generation.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from wszoo.errors import MalformedError
from wszoo.families.checkpoints import read_json
from wszoo.families.sources import read_asset
from wszoo.schema.decode import decode, encode
from wszoo_llm.source import TOKENIZER_FILES

if TYPE_CHECKING:
    from wszoo_llm.source import Source

ASSET = "generation.json"
COMPONENT = "model"

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Token = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the model.

    Attributes:
        vocabulary: how many tokens there are.
        context: the most tokens that prompt and answer may have together: the longest profile's, or what the model was
            made for where there are no profiles.
        stop: tokens that end an answer.
        pad: token that fills shorter prompts up.
        layers: how many the network has.
        ranks: how many pieces its layers are cut into; 1 for a network in one component.
    """

    vocabulary: Count
    context: Count
    stop: Annotated[tuple[Token, ...], msgspec.Meta(max_length=64)] = ()
    pad: Token = 0
    layers: Annotated[int, msgspec.Meta(ge=1, le=1 << 12)] = 1
    ranks: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1


def make(source: Source, context: int, ranks: int = 1) -> bytes:
    """The asset for a model."""
    config = source.config
    path = source.folder / "generation_config.json"
    given = read_json(path) if path.is_file() else {}
    stop = _tokens(given.get("eos_token_id")) or _tokens(getattr(config, "eos_token_id", None))
    pad = _tokens(given.get("pad_token_id")) or _tokens(getattr(config, "pad_token_id", None)) or stop or (0,)
    return encode(
        Recipe(vocabulary=config.vocab_size, context=context, stop=stop, pad=pad[0], layers=source.layers, ranks=ranks)
    )


def read(data: bytes) -> Recipe:
    """The asset of a pulled model.

    Raises:
        MalformedError: it is not what it should be.
    """
    found = decode(data, Recipe, what=ASSET)
    if any(token >= found.vocabulary for token in (*found.stop, found.pad)):
        raise MalformedError(f"{ASSET} names a token outside of the vocabulary of {found.vocabulary}")
    return found


def assets(source: Source) -> dict[str, bytes]:
    """The tokenizer's files, by the names that they have in the folder, and the model card.

    Raises:
        UsageError, LimitError, StorageError: a file that cannot be taken, see :func:`read_asset`.
    """
    names = [*TOKENIZER_FILES, "README.md"]
    return {name: read_asset(source.folder / name) for name in names if (source.folder / name).is_file()}


def trained_context(config: Any) -> int:  # noqa: ANN401 - transformers' own class
    """The longest context that a model was made for."""
    for name in ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 1:
            return value
    return 1 << 20  # positions are not limited (ALiBi)


def _tokens(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(token for token in values if isinstance(token, int) and token >= 0)
