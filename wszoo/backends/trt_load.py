"""From a verified plan to an engine, with every refusal explained before native code sees the plan.

Checking the header and refusing on a machine without a GPU have run for real, and so has reading every byte of a plan
through the reader; what follows has run only with a fake of the runtime, because no machine at hand has a GPU that
TensorRT-RTX supports.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from wszoo.backends.cuda_memory import Cuda, Stream
from wszoo.backends.inputs import check_values
from wszoo.backends.trt_engine import TrtEngine
from wszoo.backends.trt_log import logger
from wszoo.backends.trt_plan import release_of
from wszoo.backends.trt_reader import Cursor, stream_reader
from wszoo.backends.trt_refit import refit, refit_through_parser, serialize
from wszoo.backends.trt_validity import check_header, check_validity, refusal
from wszoo.errors import IncompatibleError, StorageError
from wszoo.gpu.machine import product_key
from wszoo.plans.native import unknown_rules
from wszoo.plans.source import FileSource
from wszoo.progress import Silent
from wszoo.schema.refit import Mode
from wszoo.store.refitted import find_refitted, keep_refitted, refit_key

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.backends.protocol import Assembled
    from wszoo.plans.source import PlanSource
    from wszoo.schema.refit import RefitMap

_LOG = logging.getLogger(__name__)


def load_engine(trt: Any, assembled: Assembled, *, title: str, tag: bytes, extra: str) -> TrtEngine:  # noqa: ANN401
    """Load a plan onto the first GPU, and refit it if it has no weights.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        assembled: a plan whose digest has been checked.
        title: the product's name for messages.
        tag: what its plans begin with.
        extra: the extra of wszoo that brings its runtime.

    Raises:
        MalformedError: the file is no plan of this product, or its refit map is malformed.
        IncompatibleError: another release wrote it, there is no GPU, or the runtime refuses.
        MissingExtraError: ``cuda-bindings`` is not installed.
        StorageError: the file cannot be read.
    """
    target = assembled.config.target
    if (assembled.engine is None and assembled.source is None) or assembled.device != "cuda":
        raise IncompatibleError(f"a plan for {target.name} runs on 'cuda', not on {assembled.device!r}")
    check_values(assembled.config.component, assembled.graph)
    source = FileSource(assembled.engine) if assembled.engine is not None else assembled.source
    assert source is not None
    try:
        header = check_header(source, target, title=title, tag=tag, installed=trt.__version__)
        cuda = Cuda.open(extra=extra, purpose=f"running a plan for {target.name} with {title}")
        loader = Loader(trt, cuda, f"{title} {release_of(trt.__version__)} refuses the plan for {target.name}")
        loader.check(header)
        engine = loader.native(assembled, source) if assembled.refit else loader.engine(source)
    finally:
        source.close()
    return TrtEngine(trt, cuda, engine, assembled, keep=loader)


def refitted_plan(trt: Any, assembled: Assembled, *, title: str, tag: bytes, extra: str) -> Path:  # noqa: ANN401
    """A native plan with its weights, as a file: kept from an earlier load, or made now on the first GPU.

    Arguments and errors as for :func:`load_engine`; the GPU has to be the product that the plan is for.
    """
    target, source = assembled.config.target, assembled.source
    if source is None or assembled.refit is None:
        raise IncompatibleError(f"the plan for {target.name} was not stripped by its builder")
    header = check_header(source, target, title=title, tag=tag, installed=trt.__version__)
    cuda = Cuda.open(extra=extra, purpose=f"giving the plan for {target.name} its weights with {title}")
    if target.sku and product_key(target.sku) != product_key(cuda.product()):
        raise IncompatibleError(f"the plan for {target.name} is for {target.sku}, this GPU is {cuda.product()}")
    loader = Loader(trt, cuda, f"{title} {release_of(trt.__version__)} refuses the plan for {target.name}")
    loader.check(header)
    return loader.whole(assembled, source)


class Loader:
    """Deserializes plans with one runtime, which lives as long as this object.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        cuda: the CUDA runtime.
        refusal: subject and verb of refusals: ``TensorRT 11.4.0 refuses the plan for trt-sm89``.
    """

    def __init__(self, trt: Any, cuda: Cuda, refusal: str) -> None:  # noqa: ANN401
        self._trt = trt
        self._cuda = cuda
        self._refusal = refusal
        self._log, theirs = logger(trt)
        self._runtime = trt.Runtime(theirs)

    def check(self, header: bytes) -> None:
        """Ask the runtime about a plan's header; see :func:`wszoo.backends.trt_validity.check_validity`."""
        check_validity(self._trt, self._runtime, header, self._refusal, self._log)

    def engine(self, source: PlanSource) -> Any:  # noqa: ANN401 - the class belongs to TensorRT
        """Deserialize a plan.

        Raises:
            IncompatibleError: the runtime refuses it.
            StorageError: it cannot be read.
            IntegrityError: a tensor that it is made of is damaged.
        """
        mark = self._log.mark()
        cursor = Cursor(source)
        try:
            engine = self._runtime.deserialize_cuda_engine(stream_reader(self._trt, cursor))
        except RuntimeError as error:
            raise IncompatibleError(f"the plan {source.name} cannot be loaded: {error}") from error
        if cursor.error is not None:
            raise cursor.error
        if engine is None:
            raise refusal(self._refusal, self._log.reason(mark))
        return engine

    def native(self, assembled: Assembled, source: PlanSource) -> Any:  # noqa: ANN401
        """A stripped plan as an engine with its weights: kept from an earlier load, or refitted now and then kept.

        Raises:
            IncompatibleError: the runtime refuses the plan or its weights.
            IntegrityError: the refit map or a tensor is damaged.
        """
        key = self._key(assembled)
        kept = find_refitted(assembled.cache, key, Silent()) if assembled.keep else None
        if kept is not None:
            whole = FileSource(kept)
            try:
                return self.engine(whole)
            except IncompatibleError as error:  # of another driver, say: it can be made again
                _LOG.info("the kept plan %s is of no use: %s", kept, error.message)
            finally:
                whole.close()
        engine = self._made(assembled, source)
        if assembled.keep:
            try:
                self._keep(engine, assembled, key)
            except (IncompatibleError, StorageError) as error:  # it only costs a refit at the next start
                _LOG.warning("the refitted plan is not kept: %s", error.message)
        return engine

    def whole(self, assembled: Assembled, source: PlanSource) -> Path:
        """The file of a stripped plan with its weights: kept from an earlier load, or refitted now and then kept.

        Raises:
            IncompatibleError: the runtime refuses the plan or its weights, or does not serialize the engine.
            IntegrityError: the refit map or a tensor is damaged.
            StorageError: it cannot be kept.
        """
        key = self._key(assembled)
        kept = find_refitted(assembled.cache, key, Silent())
        return kept if kept is not None else self._keep(self._made(assembled, source), assembled, key)

    def _made(self, assembled: Assembled, source: PlanSource) -> Any:  # noqa: ANN401
        engine = self.engine(source)
        assert assembled.refit is not None
        self.refit(engine, assembled.refit, assembled)
        return engine

    def refit(self, engine: Any, refit_map: RefitMap, assembled: Assembled) -> None:  # noqa: ANN401
        """Give an engine its weights, by name where this wszoo knows how to make all of them.

        Raises:
            IncompatibleError: the engine refuses them.
            IntegrityError: the refit map or a tensor is damaged.
        """
        stream = Stream(self._cuda)
        if unknown_rules(refit_map) and hasattr(self._trt, "OnnxParserRefitter"):
            refit_through_parser(self._trt, engine, assembled.graph, stream)
        else:
            refit(self._trt, engine, refit_map, assembled.graph, stream)

    def _key(self, assembled: Assembled) -> str:
        # Not the driver: what was kept has the stripped plan's kernels, and the runtime judges it whenever it loads.
        where = f"{self._trt.__name__} {self._trt.__version__}\n{self._cuda.product()}"
        return refit_key(assembled.config.weights, where)

    def _keep(self, engine: Any, assembled: Assembled, key: str) -> Path:  # noqa: ANN401
        assert assembled.refit is not None
        plan = serialize(self._trt, engine, weights=True, refittable=assembled.refit.mode == Mode.ANY)
        with memoryview(plan) as data:
            return keep_refitted(assembled.cache, key, data)
