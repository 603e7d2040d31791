"""push, remote and pull from configured remotes, as their users meet them."""

from __future__ import annotations

import json

import pytest
from contract.servers import serving

from wszoo.cli import main
from wszoo.digest import Digest
from wszoo.names import Ref


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "mine"))
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))

    def call(*words):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


def test_push_to_a_new_folder_and_again(run, origin, tmp_path):
    words = ["push", "net:1", str(tmp_path / "new"), "--store", str(origin.layout.root)]
    code, out, err = run(*words)
    assert code == 0, err
    assert out.startswith("net:1 is sha256:")
    out = run(*words, "--json")[1]
    document = json.loads(out)
    assert (document["sent"], document["moved"]) == ([], False)
    code, out, err = run("pull", "net:1", "--from", str(tmp_path / "new"), "--gpu", "sm89", "--no-assemble")
    assert code == 0, err


def test_push_dry_run_and_another_name(run, origin, tmp_path):
    words = ["push", "net:1", str(tmp_path / "new"), "--store", str(origin.layout.root), "--as", "other:2"]
    code, out, _ = run(*words, "--dry-run")
    assert (code, out.split()[:3]) == (0, ["other:2", "would", "become"])
    assert run(*words)[0] == 0
    assert "other:2" in run("list", "--store", str(tmp_path / "new"))[1]


def test_push_where_nothing_can_be_written_is_a_usage_error(run, origin):
    with serving(origin) as server:
        code, _, err = run("push", "net:1", server.url, "--store", str(origin.layout.root))
    assert code == 2
    assert "can only be read" in err


def test_remotes_are_added_listed_and_removed(run):
    assert run("remote", "add", "acme", "https://host/zoo", "--mirror", "https://mirror/zoo")[0] == 0
    assert json.loads(run("remote", "list", "--json")[1]) == [
        {"name": "acme", "url": "https://host/zoo", "mirrors": ["https://mirror/zoo"]}
    ]
    assert "https://mirror/zoo" in run("remote", "list")[1]
    assert run("remote", "remove", "acme")[0] == 0
    assert run("remote", "remove", "acme")[0] == 3
    assert "remote add" in run("remote", "list")[2]
    assert run("remote", "add", "a b", "https://host")[0] == 2


def test_a_configured_remote_must_be_pinned_and_is_tried_for_what_is_not_here(run, origin):
    digest = origin.refs.get(Ref.parse("net:1")).descriptor.digest
    with serving(origin) as server:
        run("remote", "add", "lan", server.url)
        code, _, err = run("pull", "net:1", "--from", "lan", "--gpu", "sm89")
        assert code == 10
        assert "net:1@sha256:" in err
        assert run("pull", "net:1", "--gpu", "sm89")[0] == 10
        assert run("pull", f"net:1@{digest}", "--gpu", "sm89", "--offline")[0] == 3
        code, _, err = run("pull", f"net:1@{digest}", "--gpu", "sm89", "--no-assemble")
        assert code == 0, err
        assert run("pull", "nothing:1")[0] == 3
    assert run("pull", "net:1", "--gpu", "sm89", "--no-assemble")[0] == 0
    assert run("pull", "nothing:1")[0] == 9


def test_a_configured_folder_is_not_trusted_and_its_path_is(run, origin):
    run("remote", "add", "share", f"file://{origin.layout.root}")
    assert run("pull", "net:1", "--from", "share", "--gpu", "sm89")[0] == 10
    assert run("pull", "net:1", "--from", str(origin.layout.root), "--gpu", "sm89", "--no-assemble")[0] == 0


def test_a_mirror_serves_when_the_first_is_down(run, origin):
    digest = origin.refs.get(Ref.parse("net:1")).descriptor.digest
    with serving(origin) as server:
        run("remote", "add", "lan", "http://127.0.0.1:1/zoo", "--mirror", server.url)
        code, _, err = run("pull", f"net:1@{digest}", "--from", "lan", "--gpu", "sm89", "--no-assemble")
        assert code == 0, err
        words = ["--from", "http://127.0.0.1:1/zoo", "--mirror", server.url, "--gpu", "sm86", "--no-assemble"]
        assert run("pull", "net:1", *words)[0] == 10
        assert run("pull", f"net:1@{digest}", *words, "--dry-run")[0] == 0
        assert run("pull", "net:1", "--mirror", server.url)[0] == 2
        code, _, err = run("pull", f"net:1@{digest}", *words)
    assert code == 0, err


def test_a_remote_with_an_unknown_scheme_is_a_usage_error(run, origin):
    code, _, err = run("push", "net:1", "gopher://host", "--store", str(origin.layout.root))
    assert code == 2
    assert "gopher" in err


def test_push_of_what_was_pulled_for_one_gpu_says_how_to_get_the_rest_and_that_works(run, origin, tmp_path):
    assert run("pull", "net:1", "--from", str(origin.layout.root), "--gpu", "sm89", "--no-assemble")[0] == 0
    code, _, err = run("push", "net:1", str(tmp_path / "new"))
    assert code == 3
    assert "not here as a whole" in err
    command = next(line for line in err.splitlines() if "wszoo pull" in line).partition("wszoo ")[2].split()
    code, out, err = run(*command)
    assert code == 0, err
    assert out.startswith("net:1 is here as a whole")
    assert run("push", "net:1", str(tmp_path / "new"))[0] == 0
    assert json.loads(run(*command, "--json")[1]) == {"ref": "net:1", "fetched": [], "fetched_bytes": 0}


def test_what_came_over_http_is_completed_by_the_command_that_push_names(run, origin, tmp_path):
    digest = origin.refs.get(Ref.parse("net:1")).descriptor.digest
    with serving(origin) as server:
        pull = ["pull", f"net:1@{digest}", "--from", server.url, "--gpu", "sm89", "--no-assemble"]
        assert run(*pull)[0] == 0
        err = run("push", "net:1", str(tmp_path / "new"))[2]
        command = next(line for line in err.splitlines() if "wszoo pull" in line).partition("wszoo ")[2].split()
        assert run(*command)[0] == 0
    assert run("push", "net:1", str(tmp_path / "new"))[0] == 0


def test_a_pull_of_everything_at_once_can_be_pushed(run, origin, tmp_path):
    words = ["pull", "net:1", "--from", str(origin.layout.root), "--gpu", "sm89", "--no-assemble", "--complete"]
    code, out, err = run(*words)
    assert code == 0, err
    assert "rtx-sm89" in out
    assert run("push", "net:1", str(tmp_path / "new"))[0] == 0


def test_serve_names_the_models_that_are_not_here_as_a_whole(run, origin, monkeypatch):
    from wszoo.distribution.serve import StoreServer

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreServer, "serve_forever", interrupt)
    assert "not here as a whole" not in run("serve", "--port", "0", "--store", str(origin.layout.root))[2]
    run("pull", "net:1", "--from", str(origin.layout.root), "--gpu", "sm89", "--no-assemble")
    code, _, err = run("serve", "--port", "0")
    assert code == 0
    assert "net:1 is not here as a whole" in err
    assert "--complete" in err


def test_complete_needs_a_connection(run, origin):
    code, _, err = run("pull", "net:1", "--from", str(origin.layout.root), "--complete", "--offline")
    assert code == 2
    assert "--complete" in err


def test_a_dry_run_lists_packs_that_would_be_fetched_in_part(run, tmp_path):
    from unit.transfer.partly import publish_two

    made = publish_two(tmp_path)
    assert run("pull", "a:1", "--from", str(tmp_path / "a"), "--gpu", "sm89", "--no-assemble")[0] == 0
    words = ["pull", "b:1", "--from", str(tmp_path / "b"), "--gpu", "sm89", "--dry-run"]
    document = json.loads(run(*words, "--json")[1])
    (part,) = document["would_fetch_partly"]
    assert part["ranges"] == 1
    assert 0 < part["bytes"] < 0.3 * part["size"]
    assert document["would_fetch_bytes"] == part["bytes"] + sum(each["size"] for each in document["would_fetch"])
    out = run(*words)[1]
    assert f"{part['digest']}" in out
    assert "1 ranges of" in out
    assert "and parts of 1" in out
    assert made["b"].blobs.size(Digest(part["digest"])) == part["size"]
