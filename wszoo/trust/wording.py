"""What vouches for a model, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wszoo.schema.trust import Decision


def trust_word(decision: Decision | None) -> str:
    """What a model was taken on, in a word."""
    if decision is None:
        return "local"
    return "UNSIGNED" if decision.how == "unsigned" else str(decision.how)


def trust_text(decision: Decision | None, signatures: int = 0) -> str:
    """What a model was taken on, in a line."""
    carried = f"; {signatures} signatures are here" if signatures else ""
    if decision is None:
        return f"local: built here, or copied with the store{carried}"
    texts = {
        "signed": f"signed by key {decision.key[:16]}, release {decision.release}",
        "locked": "pinned by a lock file",
        "pinned": "pinned by its digest",
        "folder": "a folder that was named on the command line",
        "unsigned": "NOTHING: it is unsigned, and was allowed with --allow-unsigned",
    }
    until = f", until {decision.expires:%Y-%m-%d}" if decision.expires else ""
    return f"{texts[decision.how]}{until}; from {decision.remote}{carried}"
