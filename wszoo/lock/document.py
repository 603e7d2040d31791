"""Reading and writing lock files: equal locks are equal bytes, and one changed plan changes its own lines only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wszoo.errors import NotFoundError, StorageError
from wszoo.schema.lock import MAX_LOCK, VERSION, decode_lock
from wszoo.store.files import storage_errors, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tomlkit.items import Array, InlineTable, Table

    from wszoo.schema.lock import Lock, LockedBlob, LockedModel, LockedPlan

_HEAD = "Made by 'wszoo lock', which writes it anew: the bytes that the app needs, by their sha256. See docs/lock.md."


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        NotFoundError: there is no such file.
        StorageError: it cannot be read.
        IntegrityError: it is malformed.
        IncompatibleError: it is of a later version.
    """
    try:
        with storage_errors("read"), path.open("rb") as file:
            data = file.read(MAX_LOCK + 1)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotFoundError(f"no lock file {path}", hint="make one: wszoo lock REF --gpu sm89 -o FILE") from error
        raise
    return decode_lock(data, str(path))


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file; whoever reads it meanwhile sees the old one or the new.

    Raises:
        StorageError: the file system refuses.
    """
    with storage_errors("write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lock_text(lock).encode(), path.parent)


def lock_text(lock: Lock) -> str:
    """A lock file's text: no times, no names of this machine, everything in a fixed order."""
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(_HEAD))
    document.add("version", tomlkit.item(VERSION))
    document.add("gpus", _strings(lock.gpus))
    models = tomlkit.aot()
    for model in lock.models:
        models.append(_model(model))
    document.add("models", models)
    return tomlkit.dumps(document)


def _model(model: LockedModel) -> Table:
    import tomlkit

    table = tomlkit.table()
    table.add("name", model.name)
    table.add("tag", model.tag)
    table.add("remotes", _strings(model.remotes))
    for name in ("index", "manifest", "config"):
        table.add(name, _blob(getattr(model, name)))
    for name in ("graphs", "packs"):
        table.add(name, _blobs(getattr(model, name)))
    plans = tomlkit.aot()
    for plan in model.plans:
        plans.append(_plan(plan))
    table.add("plans", plans)
    return table


def _plan(plan: LockedPlan) -> Table:
    import tomlkit

    table = tomlkit.table()
    table.add("component", plan.component)
    table.add("target", plan.target)
    table.add("gpus", _strings(plan.gpus))
    for name in ("manifest", "config"):
        table.add(name, _blob(getattr(plan, name)))
    table.add("layers", _blobs(plan.layers))
    table.add("engine", _blob(plan.engine))
    return table


def _strings(texts: Iterable[str]) -> Array:
    import tomlkit

    return tomlkit.item([str(text) for text in texts])


def _blobs(blobs: Iterable[LockedBlob]) -> Array:
    import tomlkit

    array = tomlkit.array()
    for blob in blobs:
        array.append(_blob(blob))
    return array.multiline(multiline=True)


def _blob(blob: LockedBlob) -> InlineTable:
    import tomlkit

    table: Any = tomlkit.inline_table()
    table.update({"digest": str.__str__(blob.digest), "size": blob.size})
    return table  # type: ignore[no-any-return]
