"""What ``wszoo build`` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wszoo.names import Ref, TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One model.

    Attributes:
        family: the plugin's name.
        source: file or folder.
        ref: the tag to publish under.
        targets: what to build for; may be empty, for all that there are, with ``weights_of``.
        profiles: as given with ``--profile``.
        precision: as given; empty for the source's own.
        options: the family's own options.
        weights_of: only weights changed since this version, whose targets and profiles are followed; None for a build
            that decides for itself.
        licence: SPDX expression, instead of what the family found; empty for that.
    """

    family: str
    source: Path
    ref: Ref
    targets: tuple[TargetSpec, ...]
    profiles: tuple[str, ...] = ()
    precision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    weights_of: Ref | None = None
    licence: str = ""
