"""Using a model's weights while they are still on their way: a pull that hands out each tensor as it arrives."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from wszoo.store.blobs import map_file
from wszoo.transfer import GivenUp
from wszoo.weights.arriving import ArrivingTensors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from wszoo.digest import Digest
    from wszoo.distribution.pull import PullFollower, Selection
    from wszoo.model import Model
    from wszoo.store.store import Store

_LAST_WORDS = 10.0  # seconds that a pull gets to end when it is given up
_TICK = 0.2  # seconds; on Windows, Ctrl-C waits for the end of one


@dataclass(frozen=True, slots=True)
class StreamedTensor:
    """A tensor that has arrived, with verified bytes.

    Attributes:
        component: that it belongs to.
        name: unique in the component.
        dtype: element type, the lower-case ONNX name.
        shape: dimensions, outermost first.
        array: the elements, of that shape; 4-bit types as their flat packed bytes, two elements in each. It may be
            mapped from the store and read-only: copy it before you write into it.
    """

    component: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    array: NDArray[Any]


class TensorStream:
    """Iterates over the tensors of a model as they arrive, each once.

    The pull begins at once, on a thread. Who takes tensors slowly does not hold it up: what has not been taken stays
    on the disk, and about 130 MB at most are decoded ahead. The iteration ends when all tensors were handed out and the
    pull is over; then :attr:`model` is there. Leave the ``with`` block early, or call :meth:`close`, to give the rest
    up; what was fetched is kept, and the next pull goes on there.

    Args:
        store: that is pulled into.
        pull: does it, and tells the follower that it is given.
    """

    def __init__(self, store: Store, pull: Callable[[PullFollower], Model]) -> None:
        self._store = store
        self._pull = pull
        self._tensors = ArrivingTensors()
        self._given_up = threading.Event()
        self._model: Model | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wszoo-pull", daemon=True)
        self._thread.start()
        # NumPy comes with it. Now the pull waits for its first answers; loaded later, it holds up those who fetch.
        import_module("wszoo.weights.packs")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamedTensor:
        """The next tensor; waits for it.

        Raises:
            WszooError: as for :meth:`wszoo.Zoo.pull`; tensors that were handed out before are good all the same.
        """
        try:
            taken = self._tensors.take()
        except BaseException:
            self.close()
            raise
        if taken is None:
            self.close()
            raise StopIteration
        component, tensor, data = taken
        return StreamedTensor(component, tensor.name, tensor.dtype.name, tensor.shape, tensor.shaped(data))

    @property
    def model(self) -> Model:
        """What was pulled, as :meth:`wszoo.Zoo.pull` returns it; waits for the end of the pull.

        Raises:
            WszooError: as for :meth:`wszoo.Zoo.pull`.
            GivenUp: it was given up.
        """
        while self._thread.is_alive():
            self._thread.join(_TICK)
        if self._model is None:
            raise self._error or GivenUp
        return self._model

    def close(self) -> None:
        """Give up what has not arrived; does nothing after the end."""
        self._given_up.set()
        self._tensors.close()
        self._thread.join(_LAST_WORDS)

    # ---- the follower, on the pull's threads ----

    def chosen(self, selection: Selection, lacking: Collection[Digest]) -> None:
        """See :class:`wszoo.distribution.pull.PullFollower`."""
        from wszoo.weights.packs import PackReader

        config = selection.model.config
        here = [pack for pack in config.packs if pack not in lacking]
        self._tensors.expect(PackReader(self._store.blobs, config), sorted(selection.plans), here)

    def arrived(self, blob: Digest, path: Path | None) -> None:
        """See :class:`wszoo.transfer.Follower`."""
        if self._tensors.wants(blob):
            self._tensors.arrived(blob, map_file(path) if path is not None else None)

    def given_up(self) -> bool:
        """See :class:`wszoo.transfer.Follower`."""
        return self._given_up.is_set()

    def _run(self) -> None:
        try:
            self._model = self._pull(self)
        except BaseException as error:  # noqa: BLE001 - raised where tensors are taken
            self._error = error
        self._tensors.end(self._error)
