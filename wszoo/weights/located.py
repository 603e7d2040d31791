"""Where tensors' bytes stand: frames in packs. Light: who only fetches packs needs no NumPy, and imports none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wszoo.digest import Digest
    from wszoo.schema.model import ModelConfig

ALIGN = 64  # raw frames are mapped as arrays, which every element type may then read aligned


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame and the pack it is in; fields as in :class:`wszoo.schema.model.Frame`."""

    pack: Digest
    offset: int
    stored: int
    raw: int
    codec: str


Located = tuple[StoredFrame, ...]


def known_tensors(configs: Iterable[ModelConfig]) -> dict[Digest, Located]:
    """Where the tensors of models stand; of several places, the last model's."""
    known: dict[Digest, Located] = {}
    for config in configs:
        for digest, at in config.frames.items():
            if all(frame.pack < len(config.packs) for frame in at):
                known[digest] = tuple(
                    StoredFrame(config.packs[frame.pack], frame.offset, frame.stored, frame.raw, frame.codec)
                    for frame in at
                )
    return known
