"""Lists of signatures whose index no ref points to any more; see :mod:`wszoo.trust.signatures` for what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.digest import Digest
    from wszoo.store.store import Store


def drop_dangling(store: Store, is_old: Callable[[Digest], bool], *, dry_run: bool) -> set[str]:
    """Forget those lists; the refs of those that went, or would.

    Args:
        store: which.
        is_old: whether a blob is old enough to go: a list is written before the ref of its index, when pushed here.
        dry_run: only tell.
    """
    entries = store.refs.all()
    living = {entry.ref.referrers(entry.descriptor.digest).tagged for entry in entries}
    gone = set()
    for entry in entries:
        if entry.ref.is_referrers and entry.ref.tagged not in living and is_old(entry.descriptor.digest):
            gone.add(entry.ref.tagged)
            if not dry_run:
                store.refs.swap(entry.ref, None, held=None, expected=entry)
    return gone
