"""Stores and folders in which something else stands where a file should: links, pipes, devices, folders, bombs.

``every_use`` does with a store whatever a user can do; each must end soon, with an error of ours or well, and nothing
outside of the store may be read into it or changed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from builders import SimulatedRemote, around, plan_of, snapshot
from faults.tally import tally

from wszoo.assemble import assemble
from wszoo.describe import list_refs, show
from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.distribution.repair import repair
from wszoo.distribution.serve import StoreServer
from wszoo.errors import IntegrityError, NotFoundError, RemoteError, WszooError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.remotes.directory import DirectoryType
from wszoo.schema.oci import REF_NAME
from wszoo.store.cache import cached_engines, shrink_cache
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify

REF = Ref.parse("net:1")
SECRET = b"root:x:0:0:a secret that is none of the store's business\n" * 3

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes links and pipes")


def within(seconds, do):
    """Run something; fails if it is not over in time, as when it waits for the other end of a pipe."""
    results = []

    def run():
        try:
            results.append(do())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs"
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


@pytest.fixture
def secret(tmp_path):
    """A file outside of the store."""
    path = tmp_path / "outside" / "passwd"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def link(path, secret):
    path.symlink_to(secret)


def dangling(path, secret):
    path.symlink_to(secret.parent / "nothing")


def loop(path, secret):
    path.symlink_to(path)


def endless(path, secret):
    path.symlink_to("/dev/zero")


def pipe(path, secret):
    os.mkfifo(path)


def folder(path, secret):
    (path / "inner").mkdir(parents=True)


def unix_socket(path, secret):
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket has at most 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def hard_link(path, secret):
    os.link(secret, path)


IMPOSTORS = {each.__name__: each for each in (link, dangling, loop, endless, pipe, folder, unix_socket, hard_link)}


def blob_paths(store):
    found, plan = read_published(store, REF), plan_of(store, "net:1", "rtx-sm89")
    path = store.blobs.path
    return {
        "index": path(found.entry.descriptor.digest),
        "model manifest": path(found.model.descriptor.digest),
        "model config": path(found.model.manifest.config.digest),
        "pack": path(found.model.config.packs[0]),
        "plan layer": path(plan.manifest.layers[-1].digest),
    }


def every_use(store, away):
    """What can be done with a store that already has a model."""
    return {
        "list": lambda: list_refs(store),
        "show": lambda: show(store, REF),
        "verify": lambda: verify(store),
        "assemble": lambda: assembled(store),
        "pull into": lambda: pull(store, SimulatedRemote(away), REF, around()),
        "gc": lambda: collect(store, grace=-10),
        "cache": lambda: (cached_engines(store), shrink_cache(store, 0)),
    }


def assembled(store):
    chosen = select_local(store, REF, around())
    return assemble(store, chosen.model, chosen.plans["net"], "cuda", Silent())


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("kind", ["index", "model manifest", "model config", "pack", "plan layer"])
def test_a_blob_that_is_no_file_is_refused_by_every_use_named_by_verify_and_mended(
    origin, two_models, secret, kind, impostor
):
    path = blob_paths(origin)[kind]
    path.unlink()
    IMPOSTORS[impostor](path, secret)
    (problem,) = [each for each in within(10, lambda: verify(origin)).problems if each.path == str(path)]
    assert problem.what == "damaged"
    assert problem.refs == ("net:1",)
    for name in ("list", "show", "assemble"):
        with suppress(IntegrityError, NotFoundError):
            within(10, every_use(origin, two_models)[name])
    with suppress(WszooError):
        within(10, lambda: collect(origin, grace=-10))
    assert within(10, lambda: repair(origin, lambda _: [SimulatedRemote(two_models)])).left == ()
    assert verify(origin).problems == ()
    assert secret.read_bytes() == SECRET
    tally("hostile inputs: stores")


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize("kind", ["index", "model config", "pack", "plan layer"])
def test_a_folder_to_pull_from_cannot_make_a_client_read_something_else(store, origin, secret, kind, impostor):
    path = blob_paths(origin)[kind]
    path.unlink()
    IMPOSTORS[impostor](path, secret)
    remote = DirectoryType().open(str(origin.layout.root))
    with pytest.raises((IntegrityError, NotFoundError, RemoteError)):
        within(20, lambda: pull(store, remote, REF, around()))
    assert store.refs.all() == []
    assert not any(SECRET in data for data in snapshot(store.layout.root).values())
    tally("hostile inputs: stores")


@pytest.mark.parametrize("impostor", [name for name in IMPOSTORS if name != "hard_link"])
def test_serving_a_store_gives_nothing_away_that_is_not_in_it(origin, secret, impostor):
    path = origin.blobs.path(Digest.of(b"wanted"))
    IMPOSTORS[impostor](path, secret)
    with StoreServer(origin, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.url}/blobs/sha256/{path.name}", timeout=10)
        server.shutdown()
    tally("hostile inputs: stores")


@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.parametrize(
    "name", ["oci-layout", "index.json", "record", "engine", "stamp", "built", "tmp", "lease", "owner"]
)
def test_a_file_of_the_store_that_is_none_hangs_nothing_and_leads_nowhere(origin, two_models, secret, name, impostor):
    engine = assembled(origin).engine
    private = origin.layout.private
    path = {
        "oci-layout": origin.layout.marker,
        "index.json": origin.layout.index,
        "record": next(origin.layout.refs.rglob("record.json")),
        "engine": engine,
        "stamp": origin.layout.verified / engine.stem,
        "built": private / "built" / f"{0:064x}.json",
        "tmp": private / "tmp" / "litter",
        "lease": private / "leases" / f"1-{0:032x}.alive",
        "owner": private / "partials" / f"1-{0:032x}.alive",
    }[name]
    path.unlink(missing_ok=True)
    IMPOSTORS[impostor](path, secret)
    for use in every_use(origin, two_models).values():
        with suppress(WszooError):
            within(20, use)
    assert secret.read_bytes() == SECRET
    assert sorted(each.name for each in secret.parent.iterdir()) == ["passwd"]
    tally("hostile inputs: stores")


@pytest.mark.parametrize(
    ("name", "impostor"),
    [("index.json", each) for each in ("link", "endless", "pipe", "folder", "dangling")]
    + [("oci-layout", each) for each in ("endless", "pipe", "folder", "dangling")],  # nobody reads what is in it
)
def test_a_layout_of_another_tool_with_such_a_file_is_no_source(store, origin, secret, name, impostor):
    shutil.rmtree(origin.layout.private)
    path = origin.layout.root / name
    path.unlink()
    IMPOSTORS[impostor](path, secret)
    with pytest.raises(WszooError):
        within(20, lambda: pull(store, DirectoryType().open(str(origin.layout.root)), REF, around()))
    assert store.refs.all() == []
    tally("hostile inputs: stores")


def listing(origin, entries):
    """Another tool's layout with this ``index.json``."""
    shutil.rmtree(origin.layout.private)
    data = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    origin.layout.index.write_bytes(data)
    return DirectoryType().open(str(origin.layout.root))


NAMES = [
    "../../etc:passwd",
    "..:..",
    "/etc/passwd:1",
    "net:../../x",
    "net:..",
    "C:\\x:1",
    "\\\\host\\share:1",
    "net:1\x00",
    "net:1\x1b[2J",
    "net:\u202e1",
    "\ud7ff:1",
    "NET:1",
    "net:" + "t" * 129,
    "n" * 300 + ":1",
    "net@sha256:../x",
    "",
    " net:1",
    "net:1\n",
    "con\\aux:1",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_an_index_that_are_no_refs_are_passed_over_and_never_become_paths(store, origin, name):
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": origin.refs.get(REF).descriptor.digest,
        "size": origin.refs.get(REF).descriptor.size,
        "annotations": {REF_NAME: name},
    }
    remote = listing(origin, [entry])
    assert remote.refs() == []
    with pytest.raises(NotFoundError):
        pull(store, remote, REF, around())
    before = snapshot(origin.layout.root)
    with pytest.raises(WszooError):
        collect(Store(origin.layout.root), grace=-10)
    assert snapshot(origin.layout.root) == before, "a folder that another tool keeps is not collected"
    tally("hostile inputs: stores")


@pytest.mark.parametrize("name", ["con:aux", "nul:1", "com1:lpt1", "a.b:prn", "aux:con."])
def test_names_that_windows_reserves_are_refs_and_become_no_file_names(store, origin, name):
    from wszoo.names import is_portable_file_name

    entry = origin.refs.get(REF)
    for digest in origin.blobs.all():
        store.blobs.put(origin.blobs.path(digest).read_bytes())
    assert store.refs.swap(Ref.parse(name), entry.descriptor, held=None, expected=None)
    assert store.refs.get(Ref.parse(name)).descriptor == entry.descriptor
    parts = {part for path in store.layout.root.rglob("*") for part in path.relative_to(store.layout.root).parts}
    assert [part for part in parts if not is_portable_file_name(part)] == []
    tally("hostile inputs: stores")


def test_blobs_under_names_that_are_no_digests_are_not_seen(origin):
    odd = ["..", "con", "a" * 63, "A" * 64, "a" * 64 + ".plan", "a" * 64 + ":x", "\u0661" * 21]
    for name in odd[1:]:
        (origin.layout.blobs / name).write_bytes(b"x")
    before = set(origin.blobs.all())
    assert not {digest.hex for digest in before} & set(odd)
    assert verify(origin).problems == ()
    collect(origin, grace=-10)
    assert {path.name for path in origin.layout.blobs.iterdir()} >= set(odd[1:])
    tally("hostile inputs: stores", len(odd))


def test_a_store_of_many_thousand_garbage_files_in_every_corner_is_still_collected(origin):
    for place in (origin.layout.tmp, origin.layout.leases, origin.layout.partials, origin.layout.tensors):
        for number in range(500):
            (place / f"{number}.start").write_bytes(b"")
            (place / f"{number}.json").write_bytes(b"{")
    within(60, lambda: collect(origin, grace=-10))
    assert verify(origin).problems == ()
    tally("hostile inputs: stores")
