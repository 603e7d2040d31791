"""The one boundary where JSON from outside becomes typed objects, and back.

Nothing else in wszoo parses a manifest, config, index or lock. Bounds come first: size and number of values before
decoding, nesting while decoding; together they keep what a hostile document costs below 300 MB. Errors name the
document and the field's path. Unknown fields are ignored; a document's identity is the digest of the bytes as received,
so what is not understood is never lost by re-encoding.
"""

from __future__ import annotations

import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T")

MAX_DOCUMENT = 32 << 20  # bytes; a config with 100,000 tensors takes 30 MB
# Commas: 100,000 tensors have 1,000,000, and take 133 MB. The dearest documents, of short texts, take 170 bytes each.
MAX_VALUES = 1_100_000
MAX_MARKS = 250_000  # in TOML: what begins or ends a key or value; the dearest, a table, takes 440 bytes for one
MAX_DOTS = 100  # in a line of TOML: memory grows with their square, and 5,000 in one key take 97 MB
MAX_MANIFEST = 4 << 20  # what registries accept
_MAX_REASON = 500  # characters: msgspec repeats the offending value, which may have megabytes


def _decode_hook(kind: type[T], value: object) -> T:
    if kind is Digest and isinstance(value, str):
        try:
            return cast("T", Digest(value))
        except MalformedError as error:
            raise ValueError(error.message) from None  # msgspec adds the field's path to a ValueError
    raise TypeError(f"cannot decode {kind.__name__}")


def _encode_hook(value: object) -> object:
    if isinstance(value, str):  # a digest, a key
        return str.__str__(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_decode_hook)


_ENCODER = msgspec.json.Encoder(enc_hook=_encode_hook, order="deterministic")


def decode(data: bytes | memoryview, kind: type[T], *, what: str, limit: int = MAX_DOCUMENT) -> T:
    """Decode a JSON document from outside.

    Args:
        data: the document's bytes.
        kind: the struct to decode into.
        what: the document's name for error messages (``"manifest sha256:..."``).
        limit: the most bytes accepted.

    Raises:
        LimitError: larger than ``limit``, nested too deep, or of too many values.
        MalformedError: not JSON, or a field is missing or of another type.
    """
    if len(data) > limit:
        raise LimitError(f"{what} has {len(data)} bytes, more than the {limit} that wszoo accepts")
    if len(data) > MAX_VALUES and (values := bytes(data).count(b",")) > MAX_VALUES:
        raise LimitError(f"{what} has {values} values, more than the {MAX_VALUES} that wszoo accepts")
    try:
        return cast("T", _decoder(cast("Any", kind)).decode(data))
    except RecursionError:
        raise LimitError(f"{what} is nested too deep") from None
    except IntegrityError as error:
        raise MalformedError(f"{what}: {error.message}", hint=error.hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        reason = str(error)[:_MAX_REASON]
        raise MalformedError(f"{what} is malformed: {reason}", hint="distrust its source, or pull it again") from error


def decode_toml(data: bytes, kind: type[T], *, what: str, limit: int, hint: str) -> T:
    """Decode a TOML document. Arguments and errors as for :func:`decode`; ``hint`` says what to do about it."""
    if len(data) > limit:
        raise LimitError(f"{what} has {len(data)} bytes, more than the {limit} that wszoo accepts", hint=hint)
    if (marks := sum(map(data.count, (b"=", b"[", b"{", b",", b".")))) > MAX_MARKS:
        raise LimitError(f"{what} has {marks} keys and values, more than the {MAX_MARKS} that wszoo accepts", hint=hint)
    if any(line.count(b".") > MAX_DOTS for line in data.splitlines()):
        raise LimitError(f"a line of {what} has more than {MAX_DOTS} dots: its keys are nested too deep", hint=hint)
    try:
        value = tomllib.loads(data.decode())
    except RecursionError:
        raise LimitError(f"{what} is nested too deep", hint=hint) from None
    except ValueError as error:  # TOML's and Unicode's errors are ValueErrors
        raise MalformedError(f"{what} is malformed: {str(error)[:_MAX_REASON]}", hint=hint) from error
    return convert(value, kind, what=what, hint=hint)


def convert(value: object, kind: type[T], *, what: str, hint: str) -> T:
    """Turn what a decoder gave into a struct, as :func:`decode_toml` does with a whole document.

    Args:
        value: of plain types.
        kind: the struct.
        what: its name for error messages.
        hint: what to do about an error.

    Raises:
        MalformedError: a field is missing, unknown or of another type; the message has its path.
        LimitError: it is nested too deep.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_decode_hook)
    except RecursionError:
        raise LimitError(f"{what} is nested too deep", hint=hint) from None
    except (ValueError, msgspec.ValidationError) as error:
        raise MalformedError(f"{what} is malformed: {str(error)[:_MAX_REASON]}", hint=hint) from error


def encode(document: msgspec.Struct) -> bytes:
    """Encode a struct as JSON; equal structs give equal bytes on every machine."""
    return _ENCODER.encode(document)


def to_builtins(value: object) -> Any:  # noqa: ANN401 - JSON
    """Turn structs into plain JSON types, for ``--json`` output."""
    return msgspec.to_builtins(value, enc_hook=_encode_hook, order="deterministic")
