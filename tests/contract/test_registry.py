"""Debian's docker-registry keeps the contracts of remotes, and skopeo copies what we push."""

from __future__ import annotations

import subprocess

import pytest
from builders import around
from contract.servers import free_port, process, program

from wszoo.assemble import assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.distribution.push import push
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.remotes import registry_upload
from wszoo.remotes.directory import DirectoryRemote
from wszoo.remotes.registry import RegistryType
from wszoo.remotes.web import Web
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.testing.remotes import FIRST, WriteContract
from wszoo.testing.zoo import sample_zoo

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def no_login(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)


@pytest.fixture
def registry(tmp_path, no_login):
    """Host and port of an empty registry."""
    binary, port = program("docker-registry", "apt-get install docker-registry"), free_port()
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(root=tmp_path / "registry", port=port))
    with process([binary, "serve", str(config)], f"http://127.0.0.1:{port}/v2/", log=tmp_path / "registry.log"):
        yield f"127.0.0.1:{port}"


class TestRegistry(WriteContract):
    @pytest.fixture
    def connect(self, registry):
        return lambda: RegistryType().open(f"oci://{registry}/zoo/models")


class TestRegistryWithoutPathInChunks(WriteContract):
    @pytest.fixture
    def connect(self, registry, monkeypatch):
        monkeypatch.setattr(registry_upload, "CHUNK", 2 << 20)
        return lambda: RegistryType().open(f"oci://{registry}")


def skopeo(*words):
    binary = program("skopeo", "apt-get install skopeo")
    flags = ["--insecure-policy", "--override-os", "linux"]
    done = subprocess.run([binary, *flags, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def copy(source, target):
    skopeo("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", source, target)


@pytest.mark.parametrize("gpu", ["sm86", "sm89", "none"])
def test_what_skopeo_copied_to_another_registry_and_back_is_pulled_and_assembled(origin, registry, tmp_path, gpu):
    """Skopeo 1.9 drops the artifact types in an index; nothing may depend on them."""
    push(origin, RegistryType().open(f"oci://{registry}/first"), FIRST)
    copy(f"docker://{registry}/first/net:1", f"docker://{registry}/second/net:1")
    second = RegistryType().open(f"oci://{registry}/second")
    pulled = pull(Store(tmp_path / "a"), second, FIRST.pinned(second.resolve(FIRST).digest), around(gpu)).selection
    copy(f"docker://{registry}/second/net:1", f"oci:{tmp_path / 'copied'}:net:1")
    again = pull(Store(tmp_path / "b"), DirectoryRemote(tmp_path / "copied"), FIRST, around(gpu)).selection
    expected = select_local(origin, FIRST, around(gpu))
    for selection in (pulled, again):
        assert selection.plans["net"].manifest == expected.plans["net"].manifest
        assert selection.model.manifest == expected.model.manifest
    made = assemble(Store(tmp_path / "b"), again.model, again.plans["net"], "cuda", Silent())
    assert made.engine is None or Digest.of_file(made.engine) == expected.plans["net"].config.engine_digest


def test_what_skopeo_copied_is_pushed_on(origin, registry, tmp_path):
    copied = tmp_path / "copied"
    copy(f"oci:{origin.layout.root}:net:1", f"oci:{copied}:net:1")
    remote = RegistryType().open(f"oci://{registry}/third")
    report = push(Store(copied), remote, FIRST)
    assert remote.resolve(FIRST).digest == report.ref.digest == Store(copied).refs.get(FIRST).descriptor.digest


def test_a_pinned_ref_is_found_after_its_tag_moved(registry, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    remote = RegistryType().open(f"oci://{registry}/zoo")
    old = push(zoo, remote, FIRST).ref
    push(zoo, remote, Ref.parse("acme/other:2.0"), target=FIRST, replace=True)
    assert remote.resolve(old).digest == old.digest
    assert remote.resolve(FIRST).digest != old.digest


@pytest.fixture
def requests(monkeypatch):
    """(method, URL) of what is sent to registries, which is sent all the same."""
    seen, send = [], Web.request

    def request(self, method, url, **options):
        seen.append((method, url))
        return send(self, method, url, **options)

    monkeypatch.setattr(Web, "request", request)
    return seen


def uploads(requests):
    return [url for method, url in requests if method in {"PUT", "PATCH"} and "/blobs/uploads/" in url]


def test_blobs_that_another_model_brought_are_not_sent_again(registry, tmp_path, requests):
    zoo = sample_zoo(tmp_path / "zoo")
    remote = RegistryType().open(f"oci://{registry}/zoo")
    push(zoo, remote, FIRST)
    assert uploads(requests)
    requests.clear()
    report = push(zoo, RegistryType().open(f"oci://{registry}/zoo"), FIRST, target=Ref.parse("renamed:1"))
    assert report.sent
    assert uploads(requests) == []
    assert any(f"from=zoo%2F{FIRST.name.replace('/', '%2F')}" in url for method, url in requests if method == "POST")
    again = RegistryType().open(f"oci://{registry}/zoo")
    pulled = pull(Store(tmp_path / "a"), again, report.ref, around("none"))
    assert verify(Store(tmp_path / "a")).problems == ()
    assert pulled.selection.index.digest == report.ref.digest


def test_a_model_that_was_not_pushed_there_costs_only_a_question(registry, tmp_path, requests):
    zoo = sample_zoo(tmp_path / "zoo")
    remote = RegistryType().open(f"oci://{registry}/zoo")
    report = push(zoo, remote, FIRST, target=Ref.parse("renamed:1"))
    blobs = [each for each in report.sent if "manifest" not in each.media_type]
    assert len(uploads(requests)) == len(blobs)
    assert any("zoo/acme/other/blobs" in url for method, url in requests if method == "HEAD")
    assert remote.resolve(report.ref).digest == report.ref.digest
