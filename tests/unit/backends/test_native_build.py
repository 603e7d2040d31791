"""From ``wszoo build --target trt-sm89`` to a run, with a fake of TensorRT and everything else real."""

import numpy as np
import pytest
from builders import SimulatedRemote, age, around, scaling

from wszoo.backends import tensorrt
from wszoo.backends.trt_load import Loader
from wszoo.building.build import BuildRequest, build
from wszoo.distribution.pull import pull, select_local
from wszoo.errors import BuildError, IncompatibleError, NotFoundError
from wszoo.gpu.machine import Gpu, Machine, Runtime
from wszoo.model import Model
from wszoo.names import Ref, TargetSpec
from wszoo.plans.source import FileSource
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.refit import refit
from wszoo.schema.plan import Kind
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify

WIDTH = 1 << 16
RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9")
VERSION = "11.4.0.106"


@pytest.fixture
def desktop(monkeypatch, fake_classic):
    monkeypatch.setattr(tensorrt, "detect", lambda: Machine(os="linux", arch="x86_64", gpus=(RTX_4090,)))
    monkeypatch.setattr("wszoo.backends.trt_backend.installed_version", lambda *_: VERSION)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return fake_classic


@pytest.fixture
def build_version(store, desktop, tmp_path):
    """Build a version of ``z = x * w`` with its own weights."""

    def run(number, target):
        path = tmp_path / f"{number}.onnx"
        weight, ref = scaling(path, number, WIDTH), Ref.parse(f"net:{number}")
        return weight, build(store, registry(), _request(path, ref, target))

    return run


def _request(path, ref, target):
    return BuildRequest(family="onnx", source=path, ref=ref, targets=(TargetSpec.parse(target),))


def _run(store, number):
    runtimes = (Runtime(backend="tensorrt", version=VERSION, devices=("cuda",)),)
    model = Model(store, select_local(store, Ref.parse(f"net:{number}"), around("RTX 4090", runtimes)), Silent())
    return model["model"].load()(x=np.ones((1, WIDTH), np.float32))["z"][0]


def test_a_native_plan_is_built_published_and_run_on_a_fake(store, build_version):
    weight, report = build_version(1, "trt-sm89")
    (plan,) = report.built
    assert (plan.config.kind, plan.config.target.sku) == (Kind.NATIVE, RTX_4090.name)
    assert plan.config.engine_bytes > weight.nbytes > sum(layer.size for layer in plan.manifest.layers) * 50
    np.testing.assert_array_equal(_run(store, 1), weight)
    assert [path.suffix for path in store.layout.timing.iterdir()] == [".timing"]


def test_building_again_keeps_the_native_plan_on_a_fake(store, build_version, desktop):
    build_version(1, "trt-sm89")
    built = len(desktop.built)
    _, report = build_version(1, "trt-sm89")
    assert (len(report.kept), len(report.built), len(desktop.built)) == (1, 0, built)


def test_what_cannot_be_refitted_is_spliced_and_kept_like_that_on_a_fake(store, build_version, desktop):
    desktop.made_up = "tmp_weight_7"
    _, report = build_version(1, "trt-sm89")
    assert [plan.config.kind for plan in report.built] == [Kind.SPLICE]
    _, again = build_version(1, "trt-sm89")
    assert [plan.config.kind for plan in again.kept] == [Kind.SPLICE]


def test_a_plan_that_was_to_take_other_weights_is_not_published_whole_on_a_fake(build_version, desktop):
    desktop.made_up = "tmp_weight_7"
    with pytest.raises(BuildError, match="wants weights named 'tmp_weight_7'"):
        build_version(1, "trt-sm89.refit")


def test_a_new_version_gets_the_plan_of_the_old_one_and_its_own_weights_on_a_fake(store, build_version, desktop):
    build_version(1, "trt-sm89.refit")
    built = len(desktop.built)
    weight, _ = build_version(2, "portable")
    refit(store, Ref.parse("net:1"), Ref.parse("net:2"))
    assert len(desktop.built) == built
    np.testing.assert_array_equal(_run(store, 2), weight)


@pytest.fixture
def client(store, build_version, tmp_path):
    """A store that pulled the plan of ``net:1`` to keep its engine alone, and the weights that were published."""
    weight, _ = build_version(1, "trt-sm89")
    made = Store(tmp_path / "client")
    runtimes = (Runtime(backend="tensorrt", version=VERSION, devices=("cuda",)),)
    pull(made, SimulatedRemote(store), Ref.parse("net:1"), around("RTX 4090", runtimes), engines_only=True)
    return made, weight


def _collect(store):
    age(store)
    return len(collect(store).deleted)


def test_an_engine_is_kept_in_place_of_weights_and_loads_without_them_on_a_fake(client, desktop):
    store, weight = client
    assert _collect(store) == 0, "nothing was loaded yet, so nothing is complete"
    np.testing.assert_array_equal(_run(store, 1), weight)
    assert _collect(store) == 1, "the pack"
    assert verify(store).problems == ()
    refits = desktop.refits
    np.testing.assert_array_equal(_run(store, 1), weight)
    assert desktop.refits == refits


@pytest.mark.parametrize("how", ["lost", "damaged", "refused"])
def test_an_engine_that_is_of_no_use_any_more_says_which_pull_fetches_weights_on_a_fake(
    client, desktop, monkeypatch, how
):
    store, _ = client
    _run(store, 1)
    _collect(store)
    (engine,) = store.layout.runtime.glob("*/*.plan")
    if how == "refused":  # as by a runtime with an older driver
        load = Loader.engine
        monkeypatch.setattr(Loader, "engine", lambda self, source: _unless_kept(load, self, source))
    else:
        engine.unlink() if how == "lost" else engine.write_bytes(b"?" * engine.stat().st_size)
    with pytest.raises(NotFoundError, match="net:1 was pulled with --keep engine: the plan kept of model") as error:
        _run(store, 1)
    assert error.value.hint.startswith("fetch them again: wszoo pull net:1 --from ")


def _unless_kept(load, loader, source):
    if isinstance(source, FileSource):
        raise IncompatibleError("the runtime refuses the kept plan")
    return load(loader, source)
