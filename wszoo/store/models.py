"""The models of a store, for those who look for tensors that are there already."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.errors import IntegrityError, NotFoundError
from wszoo.store.documents import read_indexed_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wszoo.names import Ref
    from wszoo.schema.model import ModelConfig
    from wszoo.store.store import Store


def known_models(store: Store, *, last: Ref) -> Iterator[ModelConfig]:
    """The config of every model in a store; damaged ones are passed over, since they only cost reuse.

    Args:
        store: which.
        last: a ref whose model comes last, so that its packs win where several hold a tensor.
    """
    readable, _ = store.refs.survey()
    entries = sorted(readable, key=lambda entry: (entry.ref.tagged == last.tagged, entry.ref.name == last.name))
    for entry in entries:
        with suppress(IntegrityError, NotFoundError):
            yield read_indexed_model(store, entry.descriptor).config
