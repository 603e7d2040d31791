"""``wszoo verify --repair`` and ``wszoo cache`` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from wszoo.names import Ref
from wszoo.store.documents import read_indexed_model


@pytest.fixture
def run(tmp_path):
    """Run ``wszoo`` with settings and a store of the test's own."""
    environment = {
        **os.environ,
        "WSZOO_STORE": str(tmp_path / "mine"),
        "WSZOO_CONFIG": str(tmp_path / "config.toml"),
        "NO_COLOR": "1",
    }

    def wszoo(*words, code=0):
        command = [sys.executable, "-m", "wszoo", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in words else done

    return wszoo


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.fixture
def damaged(run, origin, tmp_path):
    """A pulled model whose pack has another byte; the pack's path."""
    from wszoo.store.store import Store

    run("pull", "net:1", "--from", str(origin.layout.root), "--gpu", "none")
    store = Store(tmp_path / "mine")
    pack = store.blobs.path(read_indexed_model(store, store.refs.get(Ref.parse("net:1")).descriptor).config.packs[0])
    flip(pack)
    return pack


def test_damage_is_told_with_what_to_do_and_repaired_from_where_the_model_came(run, damaged):
    done = run("verify", code=4)
    assert damaged.name in done.stdout
    assert "net:1" in done.stdout
    assert "--repair" in done.stderr
    done = run("verify", "--repair")
    assert "put 1 file aside, fetched 1 blob," in done.stderr
    assert "0 problems left" in done.stderr
    assert run("verify", "--json")["problems"] == []


def test_repair_as_json(run, damaged, origin):
    found = run("verify", "--repair", "--json", "--from", str(origin.layout.root))
    assert [problem["what"] for problem in found["problems"]] == ["damaged"]
    assert found["fetched"] == [f"sha256:{damaged.name}"]
    assert (found["quarantined"], found["left"]) == (1, [])


def test_what_cannot_be_repaired_is_told_and_exits_with_4(run, damaged, origin):
    origin.layout.marker.unlink()
    done = run("verify", "--repair", code=4)
    assert "net:1" in done.stdout
    assert "name a remote that has them with --from" in done.stderr
    assert run("verify", "--repair", "--json", code=4)["left"][0]["refs"] == ["net:1"]


def test_a_source_without_repair_is_a_usage_error(run, damaged):
    assert "--repair" in run("verify", "--from", "x", code=2).stderr


def test_the_cache_is_listed_limited_and_cleared(run, tmp_path, origin):
    run("pull", "net:1", "--from", str(origin.layout.root), "--gpu", "none")
    engines = tmp_path / "mine" / "wszoo" / "engines"
    (engines / f"{0:064x}.plan").write_bytes(bytes(3000))
    (engines / f"{1:064x}.plan").write_bytes(bytes(2000))
    for path in engines.iterdir():
        os.utime(path, (10**9, 10**9))
    os.utime(engines / f"{1:064x}.plan", (10**9 + 60, 10**9 + 60))
    found = run("cache", "list", "--json")
    assert [each["size"] for each in found["engines"]] == [2000, 3000]
    assert (found["total_bytes"], found["limit"]) == (5000, None)
    assert "2 assembled plans, 5.00 kB; no limit" in run("cache", "list").stderr
    assert run("cache", "limit", "2.5 kB", "--json")["freed_bytes"] == 3000
    assert "the limit is 2.50 kB" in run("cache", "limit").stderr
    assert run("cache", "clear", "--json")["freed_bytes"] == 2000
    assert "no limit" in run("cache", "limit", "--none").stderr
    assert "not a size: 'lots'" in run("cache", "limit", "lots", code=2).stderr
