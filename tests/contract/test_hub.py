"""The Hub remote keeps the contracts of remotes, with huggingface_hub against a simulator of the Hub."""

from __future__ import annotations

import pytest
from contract.hub_simulator import REPO, TOKEN, HubSimulator
from contract.servers import threaded

from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.push import push
from wszoo.remotes.hub import HubType
from wszoo.testing.remotes import FIRST, AtomicTagContract, WriteContract
from wszoo.testing.zoo import sample_zoo


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    with threaded(HubSimulator()) as server:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        yield server


class TestSimulatedHub(WriteContract, AtomicTagContract):
    @pytest.fixture
    def connect(self, hub):
        return lambda: HubType().open(f"hf://{REPO}")


def test_a_push_is_one_commit_of_everything(hub, tmp_path):
    push(sample_zoo(tmp_path / "zoo"), HubType().open(f"hf://{REPO}"), FIRST)
    assert len(hub.commits) == 2
    paths = [path for path in hub.commits[-1] if path.startswith("blobs/")]
    assert all(path.split("/")[2] == path.split("/")[3][:2] for path in paths)
    assert {"index.json", "oci-layout"} <= set(hub.commits[-1])


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub, tmp_path):
    remote = HubType().open(f"hf://{REPO}")
    zoo = sample_zoo(tmp_path / "zoo")
    push(zoo, remote, FIRST)
    assert TOKEN not in remote.url


@pytest.mark.parametrize("action", ["missing", "resolve"])
def test_a_wrong_token_is_refused(hub, monkeypatch, action):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    remote = HubType().open(f"hf://{REPO}")
    with pytest.raises((RemoteError, NotFoundError)) as caught:
        remote.missing(FIRST, []) if action == "missing" else remote.resolve(FIRST)
        remote.tag(FIRST, None, b"", None)
    assert "hf_wrong" not in str(caught.value)


def test_a_repository_that_does_not_exist_is_told_how_to_make(hub, tmp_path):
    with pytest.raises(NotFoundError, match="acme/nothing") as caught:
        push(sample_zoo(tmp_path / "zoo"), HubType().open("hf://acme/nothing"), FIRST)
    assert "hf repo create" in caught.value.hint


def test_offline_means_no_connection(hub, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RemoteError, match="HF_HUB_OFFLINE"):
        HubType().open(f"hf://{REPO}")
    assert hub.seen == []


@pytest.mark.parametrize("url", ["hf://", "hf://org", "hf://org/repo/x", "hf://../..", "hf://org/repo@"])
def test_what_is_no_repository_is_a_usage_error(url):
    with pytest.raises(UsageError, match="Hub"):
        HubType().open(url)
