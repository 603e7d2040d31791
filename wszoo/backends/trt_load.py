"""From a verified plan in a file to an engine, with every refusal explained before native code sees the plan.

Checking the header and refusing on a machine without a GPU have run for real; what follows has run only with a fake of
the runtime, because no machine at hand has a GPU that TensorRT-RTX supports.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from wszoo.backends.cuda_memory import Cuda
from wszoo.backends.inputs import check_values
from wszoo.backends.trt_engine import TrtEngine
from wszoo.backends.trt_log import Log, logger
from wszoo.backends.trt_plan import HEADER, read_header, release_of
from wszoo.errors import IncompatibleError, StorageError
from wszoo.store.files import storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.backends.protocol import Assembled

_READ = 64 << 20  # bytes at a time: every read is copied once more by TensorRT's binding


def load_engine(trt: Any, assembled: Assembled, *, title: str, tag: bytes, extra: str) -> TrtEngine:  # noqa: ANN401
    """Load a plan onto the first GPU.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        assembled: a plan whose digest has been checked.
        title: the product's name for messages.
        tag: what its plans begin with.
        extra: the extra of wszoo that brings its runtime.

    Raises:
        MalformedError: the file is no plan of this product.
        IncompatibleError: another release wrote it, there is no GPU, or the runtime refuses.
        MissingExtraError: ``cuda-bindings`` is not installed.
        StorageError: the file cannot be read.
    """
    target = assembled.config.target
    if assembled.engine is None or assembled.device != "cuda":
        raise IncompatibleError(f"a plan for {target.name} runs on 'cuda', not on {assembled.device!r}")
    check_values(assembled.config.component, assembled.graph)
    header = _header(assembled.engine)
    written, installed = read_header(header, tag, str(assembled.engine)).release, release_of(trt.__version__)
    if written != installed and not target.version_compatible:
        raise IncompatibleError(
            f"{title} {written} wrote this plan, and {installed} is installed", hint="its plans need the same release"
        )
    cuda = Cuda.open(extra=extra, purpose=f"running a plan for {target.name} with {title}")
    log, theirs = logger(trt)
    mark = log.mark()
    runtime = trt.Runtime(theirs)
    _check_validity(trt, runtime, header, f"{title} {installed} refuses the plan for {target.name}", log)
    engine = _deserialize(trt, runtime, assembled.engine)
    if engine is None:
        raise IncompatibleError(f"{title} {installed} refuses the plan for {target.name}: {log.reason(mark)}")
    return TrtEngine(trt, cuda, engine, assembled, keep=(runtime, log))


def _header(path: Path) -> bytes:
    with storage_errors(f"read the plan {path}"), path.open("rb") as file:
        return file.read(HEADER)


def _check_validity(trt: Any, runtime: Any, header: bytes, refusal: str, log: Log) -> None:  # noqa: ANN401
    if not hasattr(runtime, "get_engine_validity"):  # TensorRT before 10.13
        return
    mark = log.mark()
    validity, diagnostics = runtime.get_engine_validity(header)
    if validity == trt.EngineValidity.INVALID:
        members = trt.EngineInvalidityDiagnostics.__members__.items()
        names = [name.lower().replace("_", " ") for name, flag in members if int(diagnostics) & int(flag)]
        raise IncompatibleError(f"{refusal}: {', '.join(names) or log.reason(mark)}")


def _deserialize(trt: Any, runtime: Any, path: Path) -> Any:  # noqa: ANN401
    with storage_errors(f"read the plan {path}"), path.open("rb") as file:
        reader = _reader(trt, file)
        try:
            engine = runtime.deserialize_cuda_engine(reader)
        except RuntimeError as error:
            raise IncompatibleError(f"the plan {path} cannot be loaded: {error}") from error
    if reader.error is not None:
        raise StorageError(f"cannot read the plan {path}: {reader.error}") from reader.error
    return engine


def _reader(trt: Any, file: IO[bytes]) -> Any:  # noqa: ANN401
    """An ``IStreamReaderV2`` over a file: the plan is never whole in host memory."""

    class Reader(trt.IStreamReaderV2):  # type: ignore[misc] # a class without type information
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)
            self.error: OSError | None = None

        def read(self, num_bytes: int, stream: int) -> bytes:  # noqa: ARG002 - TensorRT's signature
            try:
                return file.read(min(num_bytes, _READ))
            except OSError as error:  # must not travel through TensorRT's frames
                self.error = error
                return b""

        def seek(self, offset: int, where: Any) -> bool:  # noqa: ANN401
            try:
                file.seek(offset, {"SET": 0, "CUR": 1, "END": 2}[where.name])
            except (OSError, ValueError) as error:
                self.error = OSError(str(error))
                return False
            return True

    return Reader()
