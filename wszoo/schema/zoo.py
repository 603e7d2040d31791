"""``zoo.toml``: a whole zoo in one file. Its page is docs/fleet.md.

::

    remote = "oci://registry.example/acme"
    licence = "Apache-2.0"
    targets = ["portable", "rtx-sm86", "rtx-sm89"]

    [signing]
    key = "publisher.key"
    expires = "365d"

    [models."resnet:1.0"]
    family = "cnn"
    source = "resnet-50/"
    precision = "fp16"

What stands at the top holds for all models that do not say otherwise. Unknown names are refused: a typo that is ignored
would build the wrong thing.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from wszoo.errors import MalformedError, UsageError
from wszoo.names import Ref, TargetSpec
from wszoo.schema.decode import convert, decode_toml
from wszoo.text import nearest, printable

MAX_ZOO = 4 << 20  # bytes; a model takes about 300
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_Texts = Annotated[tuple[_Text, ...], msgspec.Meta(max_length=256)]
_HINT: Final = "see docs/fleet.md for what a zoo.toml may say"


class Signing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How models are signed.

    Attributes:
        key: the private key's file, relative to the zoo's.
        expires: as ``wszoo sign --expires`` takes it.
    """

    key: _Text
    expires: _Text = "365d"


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model.

    Attributes:
        family: the plugin's name.
        source: a path relative to the zoo's file, or ``hf:ORG/REPO``.
        targets: what to build for; the zoo's when empty.
        profiles: as given with ``--profile``; the zoo's when empty.
        precision: as given with ``--precision``; empty for the source's own.
        licence: SPDX expression; the zoo's, or what the family finds, when empty.
        options: the family's own.
    """

    family: _Text
    source: _Text
    targets: _Texts = ()
    profiles: _Texts = ()
    precision: str = ""
    licence: str = ""
    options: dict[str, str] = {}


class ZooFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        remote: where models are published as well; a folder is relative to the zoo's file. Empty for the store alone.
        executor: where builds run.
        licence: for models that name none.
        targets: for models that name none.
        profiles: for models that name none.
        signing: how models are signed; None for not at all.
        models: by ``name:tag``; still as TOML gave them, see :func:`decode_zoo`.
    """

    remote: str = ""
    executor: str = ""
    licence: str = ""
    targets: _Texts = ()
    profiles: _Texts = ()
    signing: Signing | None = None
    models: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1, max_length=100_000)]


class Zoo(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded file.

    Attributes:
        file: all but the models.
        models: by ref, with what the file says for all of them filled in.
    """

    file: ZooFile
    models: dict[Ref, ModelEntry]


def decode_zoo(data: bytes, name: str = "zoo.toml") -> Zoo:
    """Decode a file.

    Args:
        data: its bytes.
        name: for messages.

    Raises:
        LimitError: it is larger than any zoo.
        MalformedError: it is no TOML, or a field is unknown, missing or of another type; the message has its path, and
            the hint the nearest name that there is.
    """
    try:
        file = decode_toml(data, ZooFile, what=name, limit=MAX_ZOO, hint=_HINT)
    except MalformedError as error:
        raise _with_nearest(error, ZooFile, Signing) from error
    models = {}
    for text, raw in file.models.items():
        where = f"{name}, models.{printable(text)!r}"
        ref = _ref(text, where)
        if ref in models:
            raise MalformedError(f"{where} is there twice, once without its tag", hint=_HINT)
        models[ref] = _entry(file, raw, where)
    return Zoo(file=file, models=models)


def _entry(file: ZooFile, raw: dict[str, Any], where: str) -> ModelEntry:
    try:
        entry = convert(raw, ModelEntry, what=where, hint=_HINT)
    except MalformedError as error:
        raise _with_nearest(error, ModelEntry) from error
    filled = msgspec.structs.replace(
        entry,
        targets=entry.targets or file.targets,
        profiles=entry.profiles or file.profiles,
        licence=entry.licence or file.licence,
    )
    if not filled.targets:
        raise MalformedError(f"{where} has no targets", hint='write targets = ["portable", "rtx-sm89"]')
    for number, target in enumerate(filled.targets):
        try:
            TargetSpec.parse(target)
        except UsageError as error:
            raise MalformedError(f"{where}, targets[{number}]: {error.message}", hint=error.hint) from error
    return filled


def _ref(text: str, where: str) -> Ref:
    try:
        ref = Ref.parse(text)
    except (UsageError, MalformedError) as error:
        raise MalformedError(f"{where}: {error.message}", hint=error.hint) from error
    if ref.digest is not None:
        raise MalformedError(f"{where} is pinned, and a build decides what it will be", hint="leave the digest out")
    return ref


def _with_nearest(error: MalformedError, *kinds: type[msgspec.Struct]) -> MalformedError:
    """The error, and in its hint the field that was probably meant."""
    _, found, rest = error.message.partition("unknown field `")
    known = [field.encode_name for kind in kinds for field in msgspec.structs.fields(kind)]
    near = nearest(rest.partition("`")[0], known) if found else ""
    return MalformedError(error.message, hint=f"{near} There is: {', '.join(known)}") if near else error
