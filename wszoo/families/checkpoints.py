"""Checkpoint folders as transformers and diffusers write them: a JSON config beside safetensors files.

Pickles are refused wherever they are met: loading one runs the code in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.errors import BuildError, MalformedError, NotFoundError, UsageError
from wszoo.families.sources import read_asset
from wszoo.names import is_portable_file_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

SHOWN = 5  # names in a message

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        NotFoundError: no such file.
        MalformedError: not a JSON object.
    """
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    try:
        return msgspec.json.decode(read_asset(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"{path} is not a JSON object: {error}") from error


def weight_files(folder: Path, stem: str = "model", variants: Sequence[str] = ("",)) -> list[Path]:
    """The safetensors files of a network, one or several shards.

    Args:
        folder: the network's.
        stem: how the files' names begin: ``model`` in transformers, ``diffusion_pytorch_model`` in diffusers.
        variants: in the order of preference; ``fp16`` finds ``model.fp16.safetensors``, and empty the plain name.

    Raises:
        NotFoundError: there are none, or an index lists one that is missing.
        UsageError: there are only pickles.
        MalformedError: an index that lists files elsewhere.
    """
    for variant in variants:
        dotted = f".{variant}" if variant else ""
        for index in (f"{stem}.safetensors.index{dotted}.json", f"{stem}{dotted}.safetensors.index.json"):
            if (folder / index).is_file():
                return _shards(folder / index)
        single = folder / f"{stem}{dotted}.safetensors"
        if single.is_file():
            return [single]
    refuse_pickles(folder)
    raise NotFoundError(
        f"no {stem}.safetensors in {folder}", hint="give the folder as it was saved, with its weights in safetensors"
    )


def refuse_pickles(folder: Path) -> None:
    """Say why a folder is of no use whose only weights are pickles; nothing when there are none.

    Raises:
        UsageError: it holds pickles.
    """
    pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UsageError(
            f"{folder} holds its weights only as a pickle ({named(pickles)}), and loading a pickle runs its code",
            hint="save them with safetensors: model.save_pretrained(folder, safe_serialization=True)",
        )


def check_keys(missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str], what: str = "") -> None:
    """Refuse a checkpoint whose tensors are not those of the architecture.

    Args:
        missing: names that the architecture has and the checkpoint lacks.
        unexpected: names that only the checkpoint has.
        mismatched: names of tensors whose shapes differ, perhaps with the shapes.
        what: the network's name, for the message.

    Raises:
        BuildError: the message names the first of each kind.
    """
    parts = [
        f"{verb} {named(sorted(names))}"
        for verb, names in (
            ("misses", list(missing)),
            ("does not expect", list(unexpected)),
            ("has another shape for", list(mismatched)),
        )
        if names
    ]
    if parts:
        raise BuildError(
            f"the checkpoint{f' of {what}' if what else ''} does not fit its config: "
            f"the architecture {'; it '.join(parts)}",
            hint="config.json and the safetensors files must come from the same model",
        )


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map") or {}
    if not isinstance(table, dict):
        raise MalformedError(f"{index} has a weight_map that is no object")
    names = sorted({str(name) for name in table.values()})
    for name in names:
        if not is_portable_file_name(name):
            raise MalformedError(f"{index} lists {name!r}, which is not a file's name")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        raise NotFoundError(f"{index.parent} lacks {named(missing) or 'files'}, which {index.name} lists")
    return [index.parent / name for name in names]
