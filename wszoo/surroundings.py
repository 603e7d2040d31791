"""What plans are chosen for: this machine, what is installed on it, and the GPU that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.distribution.pull import Surroundings
from wszoo.gpu.machine import bare
from wszoo.gpu.request import How, parse_gpu
from wszoo.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.gpu.machine import Machine, Runtime


def surroundings(gpu: str, components: Sequence[str] | None = None, avoid: Sequence[str] = ()) -> Surroundings:
    """This machine, what is installed on it, and the GPU that was asked for.

    Raises:
        UsageError: ``gpu`` is none of the forms it can have.
    """
    request = parse_gpu(gpu)
    here = bare() if request.how is How.NONE else machine()
    return Surroundings(machine=here, runtimes=runtimes(), request=request, components=components, avoid=avoid)


def machine() -> Machine:
    """This machine's facts, from NVML."""
    from wszoo.gpu.nvml import detect

    return detect()


def runtimes() -> tuple[Runtime, ...]:
    """The installed runtimes, without importing them."""
    found = (backend.runtime() for backend in registry().backends.values())
    return tuple(runtime for runtime in found if runtime is not None)
