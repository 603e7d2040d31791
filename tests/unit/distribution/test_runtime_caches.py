"""Runtime caches that travel with a model. What is in them is made up here: only a GPU can tell whether it fits."""

import dataclasses
import json

import msgspec
import pytest
from builders import MACHINE, RUNTIMES, SimulatedRemote, age, around, network, publish_model, splice_plan
from click.testing import CliRunner

from wszoo.api import Zoo
from wszoo.cli.app import app
from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.distribution import runtime_caches
from wszoo.distribution.pull import pull
from wszoo.distribution.push import push
from wszoo.distribution.runtime_caches import ship, take_fitting
from wszoo.errors import NotFoundError, UsageError
from wszoo.gpu.machine import Gpu
from wszoo.gpu.request import GpuRequest
from wszoo.names import Ref
from wszoo.publish import publish, read_published, write_cache, write_plan
from wszoo.remotes.directory import DirectoryRemote
from wszoo.schema.decode import encode
from wszoo.schema.runtime_cache import ANNOTATION, RuntimeCacheFacts
from wszoo.store.documents import read_index
from wszoo.store.gc import collect
from wszoo.store.shipped_caches import cache_descriptors, read_cache
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import RemoteDocuments
from wszoo.weights.graph import graph_from_model

REF = Ref.parse("net:1")
RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9")
DESKTOP = dataclasses.replace(MACHINE, gpus=(RTX_4090,), driver="580.1", cuda_driver="13.0")
FILE = "geforcertx4090-1.7.1.116.runtime"
KERNELS = b"kernels " * 1000


def plan_for(store, target="rtx-sm89"):
    return next(plan for plan in read_published(store, REF).plans if plan.config.target.name == target)


def folder_of(store, target="rtx-sm89"):
    found = store.layout.runtime / plan_for(store, target).config.kept_as.hex
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def shipping(origin):
    """A publisher's store whose sm89 plan has run on an RTX 4090, and was shipped with what that compiled."""
    (folder_of(origin) / FILE).write_bytes(KERNELS)
    ship(origin, REF, DESKTOP)
    return origin


def pulled(store, remote, machine=DESKTOP, gpu=None):
    """Pull for a GPU of the machine, or for one that is named, as the Python interface does."""
    where = dataclasses.replace(around(gpu or "sm89"), machine=machine)
    where = where if gpu else dataclasses.replace(where, request=GpuRequest())
    selection = pull(store, remote, REF, where).selection
    return take_fitting(store, RemoteDocuments(remote), selection, machine)


def kept(store):
    return {path.name: path.read_bytes() for path in store.layout.runtime.glob("*/*.runtime")}


def test_what_a_gpu_compiled_is_added_to_the_index(shipping):
    (descriptor,) = cache_descriptors(read_index(shipping, shipping.refs.get(REF).descriptor))
    assert descriptor.size > 0
    assert len(read_published(shipping, REF).plans) == 3, "the plans stay"
    age(shipping)
    assert len(collect(shipping, grace=0).deleted) == 1, "the index before"
    assert verify(shipping).problems == ()


def test_shipping_again_changes_nothing_and_new_kernels_replace_the_old(shipping):
    before = shipping.refs.get(REF).descriptor
    ship(shipping, REF, DESKTOP)
    assert shipping.refs.get(REF).descriptor == before
    (folder_of(shipping) / FILE).write_bytes(b"more kernels")
    (facts,) = ship(shipping, REF, DESKTOP)
    assert (facts.digest, facts.product, facts.cuda) == (Digest.of(b"more kernels"), "geforcertx4090", "13.0")
    assert len(read_published(shipping, REF).caches) == 1


def test_caches_of_other_products_and_versions_are_not_taken_for_this_gpus(origin):
    for name in ("geforcertx3090-1.7.1.116.runtime", "geforcertx4090-1.7.0.1.runtime", "kernels"):
        (folder_of(origin) / name).write_bytes(KERNELS)
    (folder_of(origin) / FILE).write_bytes(b"")
    with pytest.raises(NotFoundError, match="has left a runtime cache here on NVIDIA GeForce RTX 4090"):
        ship(origin, REF, DESKTOP)


def test_a_machine_without_a_gpu_ships_nothing(origin):
    with pytest.raises(UsageError, match="no GPU whose runtime caches could be shipped"):
        ship(origin, REF, MACHINE)


def test_nothing_is_added_to_a_model_that_is_here_in_part(store, remote):
    pull(store, remote, REF, around())
    with pytest.raises(NotFoundError, match="is not here as a whole") as error:
        ship(store, REF, DESKTOP)
    assert "--complete" in error.value.hint


def test_the_same_product_gets_it_with_its_plan(shipping, store):
    (facts,) = pulled(store, SimulatedRemote(shipping))
    assert kept(store) == {FILE: KERNELS}
    assert facts.size == len(KERNELS)
    assert verify(store).problems == ()


def test_a_product_that_was_named_gets_it_too(shipping, store):
    bare = dataclasses.replace(MACHINE, problem="no driver")
    assert len(pulled(store, SimulatedRemote(shipping), bare, "RTX 4090")) == 1


@pytest.mark.parametrize(
    ("machine", "gpu"),
    [
        (dataclasses.replace(DESKTOP, gpus=(Gpu(name="NVIDIA L40S", compute_capability="8.9"),)), None),
        (dataclasses.replace(DESKTOP, cuda_driver="12.9"), None),
        (DESKTOP, "sm89"),
        (DESKTOP, "RTX 3090"),
        (DESKTOP, "none"),
    ],
)
def test_nobody_else_fetches_a_byte_of_it(shipping, store, machine, gpu):
    remote = SimulatedRemote(shipping)
    assert pulled(store, remote, machine, gpu) == ()
    assert kept(store) == {}
    (cache,) = read_published(shipping, REF).caches
    assert cache.digest not in remote.opened


def test_another_runtime_version_does_not_take_it(shipping, store):
    remote = SimulatedRemote(shipping)
    selection = pull(store, remote, REF, around("RTX 4090")).selection
    choice = selection.resolution.choices["net"]
    later = dataclasses.replace(choice, runtime=dataclasses.replace(RUNTIMES[0], version="1.8.0.1"))
    resolution = dataclasses.replace(selection.resolution, choices={"net": later})
    other = dataclasses.replace(selection, resolution=resolution)
    assert take_fitting(store, RemoteDocuments(remote), other, DESKTOP) == ()


def test_what_was_compiled_here_stays(shipping, store):
    (folder_of(shipping) / FILE).write_bytes(KERNELS)
    folder = store.layout.runtime / plan_for(shipping).config.kept_as.hex
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(b"compiled here")
    assert pulled(store, SimulatedRemote(shipping)) == ()
    assert kept(store) == {FILE: b"compiled here"}


def test_facts_are_found_where_another_tool_dropped_the_annotations(shipping, store):
    index = read_index(shipping, shipping.refs.get(REF).descriptor)
    bare = tuple(msgspec.structs.replace(each, annotations={}) for each in index.manifests)
    data = encode(msgspec.structs.replace(index, manifests=bare))
    entry = shipping.refs.get(REF)
    descriptor = msgspec.structs.replace(entry.descriptor, digest=shipping.blobs.put(data), size=len(data))
    shipping.refs.swap(REF, descriptor, held=None, expected=entry)
    assert len(pulled(store, SimulatedRemote(shipping))) == 1


def _blobs(store):
    """Manifest, config and layer of the one runtime cache."""
    return read_cache(store, read_published(store, REF).caches[0]).blobs


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("how", [lambda data: data[:-1], lambda data: b"?" + data[1:], lambda data: data * 2])
def test_a_damaged_cache_is_left_out_and_the_pull_goes_on(shipping, store, which, how, caplog):
    remote = SimulatedRemote(shipping)
    remote.tamper[_blobs(shipping)[which].digest] = lambda data: iter([how(data)])
    assert pulled(store, remote) == ()
    assert kept(store) == {}
    assert "a runtime cache is left out" in caplog.text
    assert store.refs.find(REF) is not None


@pytest.mark.parametrize("claim", [{"size": 1}, {"size": 1 << 40}, {"digest": Digest.of(b"other")}])
def test_a_cache_that_is_not_what_its_publisher_says_is_left_out(origin, store, claim, monkeypatch, caplog):
    (folder_of(origin) / FILE).write_bytes(KERNELS)
    honest = runtime_caches.write_cache
    monkeypatch.setattr(
        runtime_caches,
        "write_cache",
        lambda store, facts, layer: honest(store, msgspec.structs.replace(facts, **claim), layer),
    )
    ship(origin, REF, DESKTOP)
    assert pulled(store, SimulatedRemote(origin)) == ()
    assert kept(store) == {}
    assert "a runtime cache is left out" in caplog.text


@pytest.mark.parametrize("product", ["../../../etc/passwd", "geforcertx4090/x", ""])
def test_a_product_that_is_a_path_leads_nowhere(origin, store, product, monkeypatch):
    """File names are made of this machine's facts, never of the publisher's."""
    (folder_of(origin) / FILE).write_bytes(KERNELS)
    honest = runtime_caches.write_cache
    monkeypatch.setattr(
        runtime_caches,
        "write_cache",
        lambda store, facts, layer: honest(store, msgspec.structs.replace(facts, product=product), layer),
    )
    ship(origin, REF, DESKTOP)
    assert pulled(store, SimulatedRemote(origin)) == ()
    assert kept(store) == {}


@pytest.mark.parametrize(
    "version", ["1/../../../../../../outside", "..\\..\\outside", "/outside", "C:outside", "1" * 100, ""]
)
def test_a_version_that_is_a_path_leads_nowhere(origin, store, tmp_path, version):
    """Where no runtime is installed it is the publisher who says it."""
    honest = plan_for(origin)
    target = msgspec.structs.replace(honest.config.target, name="rtx-sm89-hostile", version=version)
    layers = [(each.media_type, each.digest) for each in honest.manifest.layers]
    plan = write_plan(origin, msgspec.structs.replace(honest.config, target=target), layers)
    facts = RuntimeCacheFacts(
        engine=honest.config.kept_as,
        backend=target.backend,
        version=version,
        product="geforcertx4090",
        cuda="13.0",
        size=len(KERNELS),
        digest=Digest.of(KERNELS),
    )
    cache = write_cache(origin, facts, zstd.compress(KERNELS, level=1))
    publish(origin, REF, read_published(origin, REF).model, [plan], caches=[cache])
    remote = SimulatedRemote(origin)
    where = dataclasses.replace(around("RTX 4090", runtimes=()), avoid=("rtx-sm89", "portable"))
    selection = pull(store, remote, REF, where).selection
    assert selection.plans["net"].config.target.version == version
    assert take_fitting(store, RemoteDocuments(remote), selection, MACHINE) == ()
    assert list(tmp_path.rglob("*outside*")) == []
    assert kept(store) == {}


def _annotate(store, text):
    """Let the index say something else of its runtime cache."""
    entry = store.refs.get(REF)
    index = read_index(store, entry.descriptor)
    (cache,) = cache_descriptors(index)
    hostile = tuple(
        msgspec.structs.replace(each, annotations={ANNOTATION: text}) if each == cache else each
        for each in index.manifests
    )
    data = encode(msgspec.structs.replace(index, manifests=hostile))
    descriptor = msgspec.structs.replace(entry.descriptor, digest=store.blobs.put(data), size=len(data))
    store.refs.swap(REF, descriptor, held=None, expected=entry)


def test_an_annotation_that_is_no_json_is_left_out(shipping, store, caplog):
    _annotate(shipping, "{")
    assert pulled(store, SimulatedRemote(shipping)) == ()
    assert "a runtime cache is left out" in caplog.text


def test_an_annotation_that_says_other_things_than_the_cache_is_left_out(shipping, store, caplog):
    (cache,) = read_published(shipping, REF).caches
    facts = read_cache(shipping, cache).facts
    _annotate(shipping, encode(msgspec.structs.replace(facts, cuda="12.0")).decode())
    assert pulled(store, SimulatedRemote(shipping)) == ()
    assert kept(store) == {}
    assert "says other things of runtime cache" in caplog.text


def test_it_is_pushed_with_the_model_and_completed_with_it(shipping, tmp_path, store):
    (tmp_path / "mirror").mkdir()
    mirror = DirectoryRemote(tmp_path / "mirror")
    push(shipping, mirror, REF)
    assert len(pulled(store, SimulatedRemote(Store(tmp_path / "mirror")))) == 1
    Zoo(store.layout.root).complete("net:1", source=str(tmp_path / "mirror"))
    assert len(read_published(store, REF).caches) == 1


def test_what_was_pushed_before_it_was_shipped_is_pushed_again_as_it_is(origin, tmp_path):
    (tmp_path / "mirror").mkdir()
    mirror = DirectoryRemote(tmp_path / "mirror")
    push(origin, mirror, REF)
    (folder_of(origin) / FILE).write_bytes(KERNELS)
    ship(origin, REF, DESKTOP)
    push(origin, mirror, REF)
    assert len(read_published(Store(tmp_path / "mirror"), REF).caches) == 1


def test_a_plan_that_is_added_later_leaves_it_there_and_a_model_that_is_replaced_does_not(shipping):
    published = read_published(shipping, REF)
    component = published.model.config.components["net"]
    publish(shipping, REF, published.model, [splice_plan(shipping, graph_from_model(network()), component, "rtx-sm75")])
    assert len(read_published(shipping, REF).caches) == 1
    publish_model(shipping, "net:1", seed=5)
    assert read_published(shipping, REF).caches == ()


def test_the_python_interface_takes_it_with_a_pull(shipping, store, monkeypatch):
    monkeypatch.setattr("wszoo.surroundings.machine", lambda: DESKTOP)
    monkeypatch.setattr("wszoo.surroundings.runtimes", lambda: RUNTIMES)
    Zoo(store.layout.root).pull("net:1", source=str(shipping.layout.root))
    assert kept(store) == {FILE: KERNELS}


def test_the_command_line_ships_it(origin, monkeypatch):
    monkeypatch.setattr("wszoo.surroundings.machine", lambda: DESKTOP)
    (folder_of(origin) / FILE).write_bytes(KERNELS)
    result = CliRunner().invoke(app, ["cache", "ship", "net:1", "--store", str(origin.layout.root), "--json"])
    assert result.exit_code == 0, result.output
    (facts,) = json.loads(result.stdout)["caches"]
    assert (facts["product"], facts["version"], facts["size"]) == ("geforcertx4090", "1.7.1.116", len(KERNELS))
