"""Microsoft's emulator of its object store, Azurite, keeps the contracts of remotes. Azure itself has not been tried.

``npm install --prefix build/azurite azurite@3.35.0`` puts it where these tests look; on the path it is found too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import urllib.request
import uuid
from email.utils import formatdate
from pathlib import Path

import pytest
from contract.servers import free_port, process, program

from wszoo.distribution.push import push
from wszoo.errors import RemoteError, UsageError
from wszoo.remotes import buckets
from wszoo.remotes.buckets import BucketType
from wszoo.testing.remotes import FIRST, AtomicTagContract, WriteContract
from wszoo.testing.zoo import sample_zoo

ACCOUNT, KEY = "zoo", base64.b64encode(b"the emulator's key").decode()
INSTALLED = Path(__file__).parents[2] / "build" / "azurite" / "node_modules" / ".bin"


def make_container(endpoint):
    """Signed as Azure's "Authorize with Shared Key" describes: obstore makes no containers."""
    sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in sent.items())]
    text = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/zoo", "restype:container"])
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    headers = {**sent, "Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
    request = urllib.request.Request(f"{endpoint}/zoo?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    """The endpoint of an Azurite with one account and one container."""
    binary = shutil.which("azurite-blob", path=str(INSTALLED))
    binary = binary or program("azurite-blob", "npm install --prefix build/azurite azurite@3.35.0")
    port, log = free_port(), tmp_path_factory.mktemp("azurite") / "log"
    words = [binary, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    words += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with process(words, endpoint, log=log, seconds=60, env=environment):
        make_container(endpoint)
        yield endpoint


@pytest.fixture
def place(azurite, monkeypatch):
    """An empty prefix."""
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    return f"az://zoo/{uuid.uuid4().hex}/models"


class TestEmulatedAzure(WriteContract, AtomicTagContract):
    @pytest.fixture
    def connect(self, place):
        return lambda: BucketType().open(place)


def test_a_blob_goes_up_in_parts(place, monkeypatch, tmp_path):
    monkeypatch.setattr(buckets, "PART", 64 << 10)
    remote = BucketType().open(place)
    push(sample_zoo(tmp_path / "zoo"), remote, FIRST)
    assert remote.refs() == [FIRST]


def test_a_wrong_key_is_refused_with_advice(place, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"wrong").decode())
    with pytest.raises(RemoteError) as caught:
        BucketType().open(place).resolve(FIRST)
    assert caught.value.permanent
    assert "AZURE_STORAGE_ACCOUNT_KEY" in caught.value.hint


def test_an_account_that_is_not_named_is_a_usage_error(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="az://zoo") as caught:
        BucketType().open("az://zoo/models")
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.hint
