"""The Hub remote keeps the contracts of remotes, with huggingface_hub against a simulator of the Hub."""

from __future__ import annotations

import pytest
from contract.hub_simulator import REPO, TOKEN, HubSimulator
from contract.servers import threaded

from wszoo.digest import Digest
from wszoo.distribution.push import push
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.remotes.hub import HubType
from wszoo.schema.oci import Descriptor
from wszoo.testing.remotes import FIRST, AtomicTagContract, WriteContract, content
from wszoo.testing.zoo import sample_zoo


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    with threaded(HubSimulator()) as server:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
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
    list(remote.open(max(content(zoo, FIRST), key=lambda each: each.size)))
    with_token = {
        path.startswith("/cdn/"): "Authorization" in headers for method, path, headers in hub.seen if method == "GET"
    }
    assert with_token == {False: True, True: False}


@pytest.mark.parametrize("action", ["missing", "resolve", "tag", "open"])
def test_a_wrong_token_is_refused(hub, monkeypatch, action):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    remote = HubType().open(f"hf://{REPO}")
    absent = Descriptor(media_type="a", digest=Digest.of(b"absent"), size=6)
    act = {
        "missing": lambda: remote.missing(FIRST, [absent]),
        "resolve": lambda: remote.resolve(FIRST),
        "tag": lambda: remote.tag(FIRST, absent, b"absent", None),
        "open": lambda: list(remote.open(absent)),
    }[action]
    with pytest.raises(RemoteError) as caught:
        act()
    assert caught.value.permanent
    assert "hf_wrong" not in str(caught.value)


def test_a_repository_that_does_not_exist_is_told_how_to_make(hub, tmp_path):
    with pytest.raises(NotFoundError, match="acme/nothing") as caught:
        push(sample_zoo(tmp_path / "zoo"), HubType().open("hf://acme/nothing"), FIRST)
    assert "hf repo create" in caught.value.hint


def test_offline_means_no_connection(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RemoteError, match="HF_HUB_OFFLINE"):
        HubType().open(f"hf://{REPO}")
    assert hub.seen == []


@pytest.mark.parametrize("url", ["hf://", "hf://org", "hf://org/repo/x", "hf://../..", "hf://org/repo@"])
def test_what_is_no_repository_is_a_usage_error(url):
    with pytest.raises(UsageError, match="Hub"):
        HubType().open(url)
