"""Adding plans for this machine's GPU to a published model: real RTX plans, and a fake GPU."""

import pytest
import workers
from zoos import job, network

from wszoo.errors import IncompatibleError, NotFoundError, TrustError
from wszoo.fleet import on_gpu
from wszoo.fleet.on_gpu import build_on_this_gpu, targets_here, this_gpu
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import build_matrix
from wszoo.gpu.machine import Gpu, Machine
from wszoo.names import Ref, TargetSpec
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.store.store import Store

RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9")
H200 = Gpu(name="NVIDIA H200", compute_capability="9.0")
REF = Ref.parse("net:1")


@pytest.fixture
def fake_gpu(monkeypatch):
    """Make this machine look as if it had a GPU."""

    def install(*gpus):
        monkeypatch.setattr(
            on_gpu, "detect", lambda: Machine(os="linux", arch="x86_64", gpus=gpus, problem="no driver")
        )

    install(RTX_4090)
    return install


@pytest.fixture
def public(tmp_path):
    """A remote that has the model with a plan for 8.6."""
    remote = open_for_push(str(tmp_path / "public"))
    made = job("net:1", network(tmp_path / "net.onnx"), "portable", "rtx-sm86")
    settings = Settings(executor="inline", remote=remote)
    build_matrix(Store(tmp_path / "publisher"), registry(), [made], settings, Silent())
    return remote


def build(store, remote, *targets, **settings):
    chosen = Settings(executor="inline", remote=remote, **settings)
    specs = [TargetSpec.parse(target) for target in targets]
    return build_on_this_gpu(store, registry(), REF, chosen, Silent(), targets=specs)


def names(store):
    return sorted(plan.config.target.name for plan in read_published(store, REF).plans)


def test_plans_are_appended_to_what_is_published_without_a_source(fake_gpu, public, tmp_path):
    (tmp_path / "net.onnx").unlink()
    farm = Store(tmp_path / "farm")
    report = build(farm, public, "rtx-sm89")
    assert not report.failed
    assert names(farm) == names(Store(tmp_path / "public")) == ["portable", "rtx-sm86", "rtx-sm89"]


def test_two_machines_that_add_to_one_tag_both_get_in(fake_gpu, public, tmp_path):
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    build(first, public, "rtx-sm89")
    build(second, public, "rtx-sm120")
    build(first, public, "rtx-sm75")
    assert names(Store(tmp_path / "public")) == ["portable", "rtx-sm120", "rtx-sm75", "rtx-sm86", "rtx-sm89"]


def test_two_processes_that_add_to_one_tag_at_once_both_get_in(public, tmp_path):
    """Real processes, real plans of TensorRT-RTX, and a GPU that is made up: the target names what to build."""
    given = [(str(tmp_path / target), str(tmp_path / "public"), target) for target in ("rtx-sm89", "rtx-sm120")]
    assert workers.together(workers.build_on_gpu, given) == [False, False]
    assert names(Store(tmp_path / "public")) == ["portable", "rtx-sm120", "rtx-sm86", "rtx-sm89"]


def test_doing_it_again_changes_nothing(fake_gpu, public, tmp_path):
    farm = Store(tmp_path / "farm")
    build(farm, public, "rtx-sm89")
    before = public.resolve(REF).digest
    report = build(farm, public, "rtx-sm89")
    assert str(report.models[0].state) == "unchanged"
    assert public.resolve(REF).digest == before


def test_what_nobody_signed_is_not_added_to(fake_gpu, public, tmp_path):
    public.trusted = False  # as every remote is but a folder
    with pytest.raises(TrustError):
        build(Store(tmp_path / "farm"), public, "rtx-sm89")
    assert not build(Store(tmp_path / "farm"), public, "rtx-sm89", allow_unsigned=True).failed


def test_a_model_that_is_nowhere_is_not_found(fake_gpu, tmp_path):
    with pytest.raises(NotFoundError, match="net:1 is not here"):
        build(Store(tmp_path / "farm"), None, "rtx-sm89")


def test_a_machine_without_a_gpu_says_why(fake_gpu):
    fake_gpu()
    with pytest.raises(IncompatibleError, match="no GPU to build on: no driver"):
        this_gpu()


def test_the_targets_are_those_that_only_this_gpu_can_build():
    assert [str(spec) for spec in targets_here(registry(), RTX_4090)] == ["rtx-sm89.strip"]


def test_a_gpu_that_no_builder_here_serves_is_named():
    with pytest.raises(
        IncompatibleError, match=r"no builder here makes plans for NVIDIA H200 .*tensorrt_rtx, tensorrt"
    ):
        targets_here(registry(), H200)
