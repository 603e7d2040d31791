"""Runtime caches that travel with a model: ``wszoo cache ship REF``, and what a pull takes of them.

TensorRT-RTX compiles a plan's kernels on the client and keeps them in a runtime cache, a file for each GPU product and
version (:mod:`wszoo.backends.trt_cache`). Who has a product can add its caches to a model, so that clients with the
same one need not compile. They hold code for the GPU, so they come the way plans do: by digest from an index that was
vouched for. They only save time: what lacks, is damaged or does not fit is left alone, and TensorRT-RTX itself looks
at the compute capability and the versions of TensorRT-RTX and CUDA before it uses one ("Working with Runtime Cache").
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import MalformedError, NotFoundError, UsageError, WszooError
from wszoo.gpu.fit import version_key
from wszoo.gpu.machine import product_key
from wszoo.publish import publish, read_published, write_cache
from wszoo.schema.runtime_cache import RuntimeCacheFacts
from wszoo.store.documents import read_index
from wszoo.store.files import storage_errors, write_atomic
from wszoo.store.shipped_caches import MAX_CACHE, cache_descriptors, cache_facts, read_cache, read_kernels
from wszoo.store.wholeness import advice, lack_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.distribution.pull import Selection
    from wszoo.gpu.machine import Gpu, Machine
    from wszoo.names import Ref
    from wszoo.schema.oci import Descriptor
    from wszoo.store.documents import DocumentSource, PlanDocument
    from wszoo.store.layout import StoreLayout
    from wszoo.store.store import Store

_LOG = logging.getLogger(__name__)
_SUFFIX = ".runtime"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
_LEVEL = 9  # machine code; level 19 gains another 2 % in eight times the time


def ship(store: Store, ref: Ref, machine: Machine) -> tuple[RuntimeCacheFacts, ...]:
    """Add the runtime caches of this machine's GPUs to a model's index.

    Args:
        store: holds the whole model, and the caches that loading and running its plans left.
        ref: the model; its tag moves.
        machine: this one.

    Returns:
        What was added, or was there already.

    Raises:
        NotFoundError: no such ref, not all of it is here, or no plan of it has run on these GPUs.
        UsageError: this machine has no GPU.
        StorageError: the disk is full or refuses.
    """
    if not machine.gpus:
        raise UsageError(
            f"this machine has no GPU whose runtime caches could be shipped: {machine.problem}",
            hint="run it where the plans have run",
        )
    entry = store.refs.get(ref)
    if lack := lack_of(store, entry):
        raise NotFoundError(
            f"{ref.tagged} is not here as a whole, so nothing can be added to it: {lack}",
            hint=f"fetch the rest first: {advice(entry)}",
        )
    with store.lease():
        published = read_published(store, ref)
        assert published.model is not None
        found = [each for plan in published.plans for each in _kept(store.layout, plan, machine)]
        if not found:
            names = ", ".join(dict.fromkeys(gpu.name for gpu in machine.gpus))
            raise NotFoundError(
                f"no plan of {ref.tagged} has left a runtime cache here on {names}",
                hint="load its TensorRT-RTX plan and run it once with the shapes that matter, then try again",
            )
        written = [write_cache(store, facts, zstd.compress(data, level=_LEVEL)) for facts, data in found]
        publish(store, ref, published.model, [], caches=written)
    return tuple(facts for facts, _ in found)


def take_fitting(
    store: Store, source: DocumentSource, selection: Selection, machine: Machine
) -> tuple[RuntimeCacheFacts, ...]:
    """Put the runtime caches that fit the chosen plans on their GPU where loading looks for them.

    Args:
        store: gets them; what it has of its own stays.
        source: where the model comes from.
        selection: the plans that were pulled, of an index that was vouched for and is in the store.
        machine: whose driver counts; one without any is taken to prepare for another.

    Returns:
        Those that were put there. One that cannot be had is left out: it only saves time.
    """
    gpu = selection.resolution.gpu
    listed = cache_descriptors(read_index(store, selection.index))
    if gpu is None or not listed:
        return ()
    paths = dict(_wanted(store.layout, selection, gpu))
    taken = []
    for descriptor in listed:
        try:
            facts = cache_facts(source, descriptor)
            path = paths.get((facts.engine, facts.backend, facts.version))
            if path is not None and not path.exists() and _fits(facts, gpu, machine):
                _put(path, _kernels(source, descriptor, facts))
                taken.append(facts)
        except WszooError as error:
            _LOG.warning("a runtime cache is left out: %s", error.message)
    return tuple(taken)


def _kernels(source: DocumentSource, descriptor: Descriptor, facts: RuntimeCacheFacts) -> bytes:
    cache = read_cache(source, descriptor)
    if cache.facts != facts:
        raise MalformedError(f"the index says other things of runtime cache {descriptor.digest} than the cache itself")
    return read_kernels(source, cache)


def _kept(layout: StoreLayout, plan: PlanDocument, machine: Machine) -> Iterator[tuple[RuntimeCacheFacts, bytes]]:
    target, engine = plan.config.target, plan.config.kept_as
    for gpu in {product_key(gpu.name): gpu for gpu in machine.gpus}.values():
        path = _place(layout, engine, gpu, target.version)
        with storage_errors(f"read the runtime cache {path}"):
            if path is None or not path.is_file() or not 0 < path.stat().st_size <= MAX_CACHE:
                continue
            data = path.read_bytes()
        yield (
            RuntimeCacheFacts(
                engine=engine,
                backend=target.backend,
                version=target.version,
                product=product_key(gpu.name),
                cuda=machine.cuda_driver,
                size=len(data),
                digest=Digest.of(data),
            ),
            data,
        )


def _wanted(layout: StoreLayout, selection: Selection, gpu: Gpu) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Engine, backend and version of the plans, and the file for each."""
    for name, plan in selection.plans.items():
        target, engine = plan.config.target, plan.config.kept_as
        runtime = selection.resolution.choices[name].runtime
        version = runtime.version if runtime is not None else target.version
        if path := _place(layout, engine, gpu, version):
            yield (engine, target.backend, version), path


def _fits(facts: RuntimeCacheFacts, gpu: Gpu, machine: Machine) -> bool:
    new_enough = not machine.cuda_driver or version_key(machine.cuda_driver) >= version_key(facts.cuda)
    return facts.product == product_key(gpu.name) and new_enough


def _place(layout: StoreLayout, engine: Digest, gpu: Gpu, version: str) -> Path | None:
    """Where :class:`wszoo.backends.trt_engine.TrtEngine` looks; None for a version that can be no part of a file name.

    Where no runtime is installed, as for a GPU that is in another machine, it is the publisher who says the version.
    """
    if not _VERSION.fullmatch(version):
        return None
    return layout.runtime / engine.hex / f"{product_key(gpu.name)}-{version}{_SUFFIX}"


def _put(path: Path, data: bytes) -> None:
    with storage_errors("keep a runtime cache in"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, path.parent)
