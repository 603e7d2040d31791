"""Keys, signatures, lock files and bundles as their users meet them, and the example app from its first start on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import publish_model
from contract.servers import serving

from wszoo.cli import main
from wszoo.names import Ref
from wszoo.store.store import Store

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "digits-app"


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "mine"))
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))
    monkeypatch.delenv("WSZOO_KEY_PASSPHRASE", raising=False)

    def call(*words):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


@pytest.fixture
def key(run, tmp_path):
    """A private key's file, and the public key."""
    path = str(tmp_path / "publisher.key")
    code, out, err = run("key", "new", "-o", path)
    assert code == 0, err
    return path, out.strip()


@pytest.fixture
def served(origin):
    with serving(origin) as server:
        yield server.url


def pulled(run, *words):
    return run("pull", "net:1", "--gpu", "sm89", "--no-assemble", *words)


def test_from_a_new_key_to_a_trusted_pull(run, key, origin, served):
    path, public = key
    assert run("key", "show", path)[1].strip() == public
    words = ["--key", path, "--expires", "90d", "--store", str(origin.layout.root), "--json"]
    code, out, err = run("sign", "net:1", *words)
    assert code == 0, err
    assert json.loads(out)["key"] == public
    code, _, err = pulled(run, "--from", served)
    assert (code, "wszoo trust add" in err) == (10, True)
    assert run("trust", "add", served, public)[0] == 0
    assert json.loads(run("trust", "list", "--json")[1]) == [{"remote": served, "key": public, "id": _id(public)}]
    code, out, err = pulled(run, "--from", served, "--json")
    assert code == 0, err
    assert json.loads(out)["trust"]["how"] == "signed"
    assert f"signed by key {_id(public)[:16]}" in run("show", "net:1")[1]
    assert "signed" in run("list")[1]
    assert "sha256-" not in run("list")[1]
    assert run("trust", "remove", served)[0] == 0
    assert pulled(run, "--from", served)[0] == 10
    assert pulled(run)[0] == 0, "what was taken stays"


def _id(public):
    from wszoo.trust.keys import PublicKey

    return PublicKey(public).id


def test_push_signs_and_a_configured_name_stands_for_its_url(run, key, origin, tmp_path):
    path, public = key
    words = ["push", "net:1", str(tmp_path / "www"), "--store", str(origin.layout.root), "--sign", path]
    code, _, err = run(*words)
    assert code == 0, err
    assert "1 signature" in err
    with serving(Store(tmp_path / "www")) as server:
        run("remote", "add", "acme", server.url)
        assert run("trust", "add", "acme", public)[0] == 0
        code, _, err = pulled(run, "--from", "acme")
        assert code == 0, err
        # Who changes what the name stands for does not take the trust along.
        run("remote", "add", "acme", "http://127.0.0.1:1/elsewhere", "--mirror", server.url)
        assert pulled(run, "--from", "acme")[0] == 10


def test_signing_under_another_name_is_a_usage_error(run, key, origin, tmp_path):
    words = ["--store", str(origin.layout.root), "--sign", key[0], "--as", "a:1"]
    assert run("push", "net:1", str(tmp_path / "www"), *words)[0] == 2
    assert not (tmp_path / "www").exists()


def test_unsigned_is_loud_even_when_quiet_and_json(run, served):
    for words in (["-q"], ["--json"], ["--dry-run", "-q"]):
        code, _, err = pulled(run, "--from", served, "--allow-unsigned", *words)
        assert code == 0, err
        assert "WARNING: net:1" in err
        assert "UNSIGNED" in err
    assert "NOTHING: it is unsigned" in run("show", "net:1")[1]
    assert "UNSIGNED" in run("list")[1]
    assert pulled(run, "--from", served)[0] == 10, "it holds for that one command"


def test_allow_unsigned_comes_from_no_variable_and_no_setting(run, served, tmp_path, monkeypatch):
    (tmp_path / "wszoo.toml").write_text("allow_unsigned = true\n[pull]\nallow-unsigned = true\n")
    for name in ("WSZOO_ALLOW_UNSIGNED", "WSZOO_PULL_ALLOW_UNSIGNED"):
        monkeypatch.setenv(name, "1")
    assert pulled(run, "--from", served)[0] == 10


def test_an_expired_signature_is_refused(run, key, origin, served, monkeypatch):
    import wszoo.trust.vouching as shell

    run("sign", "net:1", "--key", key[0], "--expires", "2h", "--store", str(origin.layout.root))
    run("trust", "add", served, key[1])

    class Tomorrow(shell.datetime):
        @classmethod
        def now(cls, zone):
            from datetime import timedelta

            return super().now(zone) + timedelta(days=1)

    monkeypatch.setattr(shell, "datetime", Tomorrow)
    code, _, err = pulled(run, "--from", served, "--allow-unsigned")
    assert (code, "expired on" in err) == (10, True)


@pytest.mark.parametrize("when", ["", "90", "0d", "soon", "2020-01-01", "2027-13-01", "99999y"])
def test_a_time_that_is_none_or_past_is_a_usage_error(run, key, origin, when):
    assert run("sign", "net:1", "--key", key[0], "--expires", when, "--store", str(origin.layout.root))[0] == 2


def test_keys_that_are_none_are_usage_errors(run, key, served):
    assert run("trust", "add", served, "ed25519:short")[0] == 2
    assert run("trust", "add", served, key[0])[0] == 2, "a private key is no public one"
    assert run("key", "new", "-o", key[0])[0] == 2
    assert run("trust", "remove", served)[0] == 3
    assert run("sign", "net:1", "--key", "nowhere.key")[0] == 3


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(run, origin, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_KEY_PASSPHRASE", "open sesame")
    path = str(tmp_path / "hidden.key")
    assert json.loads(run("key", "new", "-o", path, "--json")[1])["encrypted"] is True
    words = ["sign", "net:1", "--key", path, "--store", str(origin.layout.root)]
    assert run(*words)[0] == 0
    monkeypatch.delenv("WSZOO_KEY_PASSPHRASE")
    code, _, err = run(*words)
    assert (code, "is encrypted" in err) == (2, True)


def test_lock_check_upgrade_and_pull(run, key, origin, served, tmp_path):
    lock = str(tmp_path / "app.lock")
    words = ["lock", "net:1", "--gpu", "sm89,sm86", "-o", lock, "--from", served]
    assert run(*words)[0] == 10, "what is locked is trusted: so it is checked"
    run("sign", "net:1", "--key", key[0], "--release", "1", "--store", str(origin.layout.root))
    run("trust", "add", served, key[1])
    code, out, err = run(*words)
    assert code == 0, err
    assert "rtx-sm86" in out
    assert served in Path(lock).read_text()
    before = Path(lock).read_bytes()
    assert run(*words)[0] == 0
    assert Path(lock).read_bytes() == before
    assert run("lock", "--check", "-o", lock)[0] == 0
    assert run("trust", "remove", served)[0] == 0
    code, out, err = run("pull", "--locked", lock, "--gpu", "sm89", "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    assert (model["trust"]["how"], list(model["engines"])) == ("locked", ["net"])
    run("trust", "add", served, key[1])
    publish_model(origin, "net:1", seed=5)
    run("sign", "net:1", "--key", key[0], "--release", "2", "--store", str(origin.layout.root))
    code, _, err = run("lock", "--check", "-o", lock)
    assert (code, "is stale" in err, "locked as sha256:" in err) == (5, True, True)
    assert Path(lock).read_bytes() == before
    code, out, err = run("lock", "--upgrade", "-o", lock)
    assert (code, "net:1 is sha256:" in out) == (0, True), err
    assert run("lock", "--check", "-o", lock)[0] == 0
    assert run("pull", "--locked", lock, "--gpu", "sm89", "--offline")[0] == 3
    assert run("pull", "--locked", lock, "--gpu", "sm89")[0] == 0
    assert run("pull", "--locked", lock, "--gpu", "sm89", "--offline")[0] == 0


def test_a_machine_that_only_locks_refuses_a_rollback_too(run, key, origin, served, tmp_path):
    sign = ("sign", "net:1", "--key", key[0], "--store", str(origin.layout.root), "--release")
    words = ("lock", "net:1", "--gpu", "sm89", "--from", served, "-o", str(tmp_path / "app.lock"))
    run("trust", "add", served, key[1])
    run(*sign, "1")
    old = origin.refs.get(Ref.parse("net:1"))
    assert run(*words)[0] == 0
    publish_model(origin, "net:1", seed=5)
    run(*sign, "2")
    assert run("lock", "--check", "-o", words[-1])[0] == 5, "it has seen release 2 now, though it kept nothing of it"
    assert Store(tmp_path / "mine").refs.all() == []
    assert origin.refs.swap(old.ref, old.descriptor, held=None, expected=origin.refs.get(old.ref))
    for again in (words, ("lock", "--check", "-o", words[-1]), ("lock", "--upgrade", "-o", words[-1])):
        code, _, err = run(*again)
        assert (code, "release 1 of net:1, older than release 2" in err) == (10, True), err
    assert pulled(run, "--from", served)[0] == 10, "a pull into that store knows it as well"


def test_lock_from_a_folder_tells_nobody_its_path(run, origin, tmp_path):
    lock = tmp_path / "app.lock"
    assert run("lock", "net:1", "--gpu", "none", "-o", str(lock), "--from", str(origin.layout.root))[0] == 0
    assert str(origin.layout.root) not in lock.read_text()
    assert "remotes = []" in lock.read_text()
    code, _, err = run("pull", "--locked", str(lock), "--gpu", "none")
    assert (code, "does not say where" in err) == (3, True)
    assert run("pull", "--locked", str(lock), "--gpu", "none", "--from", str(origin.layout.root))[0] == 0
    assert run("lock", "--check", "-o", str(lock), "--from", str(origin.layout.root))[0] == 0
    assert run("lock", "--check", "-o", str(lock))[0] == 0, "the store has it"


def test_passwords_in_a_url_do_not_get_into_a_lock(run, origin, served, tmp_path):
    lock = tmp_path / "app.lock"
    url = served.replace("http://", "http://user:secret@")
    digest = origin.refs.get(Ref.parse("net:1")).descriptor.digest
    code, _, err = run("lock", f"net:1@{digest}", "--gpu", "none", "-o", str(lock), "--from", url)
    assert code == 0, err
    assert "secret" not in lock.read_text()
    assert served in lock.read_text()


def test_bundle_and_install_from_it(run, origin, tmp_path):
    store, lock, made = str(origin.layout.root), str(tmp_path / "app.lock"), tmp_path / "bundle"
    run("lock", "net:1", "--gpu", "sm89", "-o", lock, "--store", store)
    code, out, err = run("bundle", lock, "-o", str(made), "--store", store, "--json")
    assert code == 0, err
    assert json.loads(out)["blobs"] == sum(1 for _ in (made / "blobs" / "sha256").iterdir())
    assert run("bundle", lock, "-o", str(made), "--store", store)[0] == 2
    code, _, err = run("pull", "--locked", str(made / "wszoo.lock"), "--from", str(made), "--gpu", "sm89")
    assert code == 0, err
    light = tmp_path / "light"
    assert run("bundle", lock, "-o", str(light), "--store", store, "--without-weights")[0] == 0
    words = ["--locked", lock, "--from", str(light), "--gpu", "sm89", "--store", str(tmp_path / "other")]
    assert run("pull", *words)[0] == 3


def test_usage_of_lock_and_pull_locked(run, tmp_path):
    lock = str(tmp_path / "app.lock")
    assert run("lock", "-o", lock)[0] == 2
    assert run("lock", "net:1", "-o", lock)[0] == 2
    assert run("lock", "net:1", "--gpu", "auto", "-o", lock)[0] == 2
    assert run("lock", "net:1", "--check", "-o", lock)[0] == 2
    assert run("lock", "--check", "--upgrade", "-o", lock)[0] == 2
    assert run("lock", "--check", "-o", lock)[0] == 3
    assert run("pull")[0] == 2
    assert run("pull", "net:1", "--locked", lock)[0] == 2
    assert run("pull", "--locked", lock)[0] == 3
    assert not Path(lock).exists()


@pytest.fixture
def app(tmp_path, run):
    """A copy of the example app whose lock names a server of the sample zoo; ``start`` runs it."""
    folder, zoo = tmp_path / "app", Store(Path(shutil.copytree(ROOT / "store", tmp_path / "zoo")))
    shutil.copytree(APP, folder)
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}

    def start(text, **extra):
        words = [sys.executable, str(folder / "app.py"), "--data", str(tmp_path / "data")]
        return subprocess.run(
            words, input=text, capture_output=True, text=True, check=False, timeout=120, env={**environment, **extra}
        )

    return folder, zoo, start


NO_NETWORK = """
import socket

def refuse(*_):
    raise SystemExit("the app connected to the network")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
"""


def test_the_app_fetches_at_its_first_start_and_runs_offline_afterwards(run, app, tmp_path):
    pytest.importorskip("onnxruntime")
    folder, zoo, start = app
    models = ["digits-cnn:1.0", "digit-writer:1.0"]
    with serving(zoo) as server:
        words = ["--gpu", "none", "--from", str(ROOT / "store"), "--remote", server.url]
        assert run("lock", *models, *words, "-o", str(folder / "wszoo.lock"))[0] == 0
        first = start("314\n")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "read as: 3 1 4"
    assert "100%" in first.stderr
    second = start("27\n", PYTHONPATH=str(tmp_path / "offline"))
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1] == "read as: 2 7"
    assert "fetch" not in second.stderr


def test_the_app_that_finds_nothing_at_its_first_start_says_so(run, app, tmp_path):
    folder, _, start = app
    (tmp_path / "empty").mkdir()
    with serving(Store(tmp_path / "empty")) as server:  # it answers at once that it has nothing
        words = ["--gpu", "none", "--from", str(ROOT / "store"), "--remote", server.url]
        assert run("lock", "digits-cnn:1.0", "digit-writer:1.0", *words, "-o", str(folder / "wszoo.lock"))[0] == 0
        done = start("1\n")
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_app_with_a_bundle_beside_it_needs_no_network_at_all(run, app, tmp_path):
    pytest.importorskip("onnxruntime")
    folder, _, start = app
    made = run("bundle", str(folder / "wszoo.lock"), "-o", str(folder / "models"), "--from", str(ROOT / "store"))
    assert made[0] == 0, made[2]
    done = start("5\n", PYTHONPATH=str(tmp_path / "offline"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("read as:")


def test_the_apps_own_lock_is_what_the_sample_zoo_has(run):
    code, _, err = run("lock", "--check", "-o", str(APP / "wszoo.lock"), "--from", str(ROOT / "store"))
    assert code == 0, err
