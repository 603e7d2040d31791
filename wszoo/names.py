"""Names that people type and that files may carry: refs, target specs, and what is safe as a file name.

The rules are the stricter of three: OCI's grammar for ``org.opencontainers.image.ref.name``, registries' grammar for
repositories and tags, and what NTFS accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from wszoo.digest import Digest
from wszoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REFERRERS = re.compile(r"sha256-[0-9a-f]{64}.*")
_SM = re.compile(r"sm([1-9][0-9]{1,2})")
_OPTION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# Windows counts superscript digits as digits, and drops spaces between a device's name and the extension.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?", re.IGNORECASE)
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\ud800-\udfff]')  # with lone surrogates, which have no UTF-8

DEFAULT_TAG = "latest"
MAX_NAME = 200  # registries allow 255 with their host in front
MAX_FILE_NAME = 255  # bytes, the least of NTFS, APFS and ext4


@dataclass(frozen=True, slots=True)
class Ref:
    """``name[:tag][@digest]``: the mutable name of a model, optionally pinned to one index.

    Attributes:
        name: lower-case path such as ``sdxl`` or ``acme/sdxl``.
        tag: the mutable part; ``latest`` when not given.
        digest: the index's digest when pinned, else None.
    """

    name: str
    tag: str = DEFAULT_TAG
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what a user typed.

        Raises:
            UsageError: the name or tag breaks the grammar.
            MalformedError: the digest is not one.
        """
        rest, at, pin = text.partition("@")
        name, colon, tag = rest.partition(":")
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise UsageError(
                f"not a model name: {name!r} in {text!r}",
                hint="use lower-case letters, digits, '.', '_', '-' and '/', for example 'sdxl:1.0' or 'acme/sdxl'",
            )
        if colon and not _TAG.fullmatch(tag):
            raise UsageError(
                f"not a tag: {tag!r} in {text!r}",
                hint="a tag has up to 128 letters, digits, '.', '_' and '-', and starts with a letter, digit or '_'",
            )
        return cls(name, tag or DEFAULT_TAG, Digest(pin) if at else None)

    @property
    def tagged(self) -> str:
        """``name:tag``, the key under which a store keeps the index."""
        return f"{self.name}:{self.tag}"

    @property
    def unpinned(self) -> Self:
        """The same ref, whatever it points to."""
        return replace(self, digest=None)

    def pinned(self, digest: Digest) -> Self:
        """The same ref, pinned."""
        return replace(self, digest=digest)

    def referrers(self, index: Digest) -> Self:
        """Where signatures of an index of this name are listed: OCI's tag schema for what refers to a manifest."""
        return replace(self, tag=f"sha256-{index.hex}", digest=None)

    def locked(self, index: Digest) -> Self:
        """The name under which a store keeps an index for lock files, wherever the tag moves."""
        return replace(self, tag=f"lock-{index.hex[:32]}", digest=None)

    @property
    def is_referrers(self) -> bool:
        """True for what lists signatures, which is no model."""
        return _REFERRERS.fullmatch(self.tag) is not None

    def __str__(self) -> str:
        return self.tagged if self.digest is None else f"{self.tagged}@{self.digest}"


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What a user asks to build for: ``portable``, ``rtx-sm89``, ``rtx-sm86-sm89``, ``trt-sm80+.version-compatible``.

    Attributes:
        prefix: a backend's short name (``rtx``, ``trt``, ``portable``).
        compute_capabilities: dotted, ascending, without duplicates (``("8.6", "8.9")``); empty for ``portable``.
        plus: hardware compatibility with newer architectures was asked for.
        options: words behind dots, the backend's own; sorted, without duplicates.
    """

    prefix: str
    compute_capabilities: tuple[str, ...] = ()
    plus: bool = False
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a target.

        Raises:
            UsageError: it is not ``PREFIX`` followed by ``-smNN`` parts, perhaps ``+``, and ``.OPTION`` parts.
        """
        built_for, *options = text.split(".")
        prefix, *parts = built_for.removesuffix("+").split("-")
        try:
            capabilities = sorted({compute_capability(part) for part in parts}, key=capability_key)
        except UsageError:
            capabilities = []
        named = re.fullmatch(r"[a-z][a-z0-9_]*", prefix) and all(map(_OPTION.fullmatch, options))
        if not named or len(capabilities) != len(parts):
            raise UsageError(
                f"not a target: {text!r}",
                hint="a target is 'portable', 'rtx-sm89', or several compute capabilities as in 'rtx-sm86-sm89'",
            )
        return cls(prefix, tuple(capabilities), built_for.endswith("+"), tuple(sorted(set(options))))

    def __str__(self) -> str:
        built_for = "-".join([self.prefix, *map(sm_name, self.compute_capabilities)]) + ("+" if self.plus else "")
        return ".".join([built_for, *self.options])

    def refuse_options(self, known: Collection[str] = ()) -> None:
        """Raise for an option that is none of ``known``.

        Raises:
            UsageError: with those that there are.
        """
        for option in self.options:
            if option not in known:
                there = f"options of {self.prefix} targets: {', '.join(sorted(known))}"
                raise UsageError(
                    f"no option {option!r} for {self.prefix} targets, in {str(self)!r}",
                    hint=there if known else f"{self.prefix} targets take none",
                )


def compute_capability(text: str) -> str:
    """``sm89`` -> ``8.9``, ``sm120`` -> ``12.0``.

    Raises:
        UsageError: not of that form.
    """
    match = _SM.fullmatch(text)
    if match is None:
        raise UsageError(f"not a compute capability: {text!r}", hint="write it as in 'sm89' or 'sm120'")
    return f"{match[1][:-1]}.{match[1][-1]}"


def sm_name(capability: str) -> str:
    """``8.9`` -> ``sm89``."""
    return "sm" + capability.replace(".", "")


def capability_key(capability: str) -> tuple[int, ...]:
    """Sort key: ``10.0`` comes after ``9.0``."""
    return tuple(int(part) for part in capability.split("."))


def is_portable_file_name(name: str) -> bool:
    """True when ``name`` can be one path component on NTFS, APFS and ext4 alike."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # a POSIX name that is no text
        return False
    return not (
        name in {"", ".", ".."}
        or _ILLEGAL.search(name)
        or length > MAX_FILE_NAME
        or name[-1] in " ."
        or _RESERVED.fullmatch(name)
    )
