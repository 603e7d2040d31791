"""``gs://`` keeps the contracts of remotes against a fake of the API. Google's own service has not been tried."""

from __future__ import annotations

import uuid

import pytest
from contract.fake_google import TOKEN, FakeGoogle
from contract.servers import threaded

from wszoo.errors import RemoteError
from wszoo.remotes.buckets import BucketType
from wszoo.testing.remotes import FIRST, AtomicTagContract, WriteContract


@pytest.fixture
def place(monkeypatch):
    """An empty prefix."""
    with threaded(FakeGoogle()) as server:
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
        yield f"gs://zoo/{uuid.uuid4().hex}/models"


class TestFakeGoogle(WriteContract, AtomicTagContract):
    @pytest.fixture
    def connect(self, place):
        return lambda: BucketType().open(place)


def test_a_wrong_token_is_refused_with_advice(place, monkeypatch):
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "wrong")
    with pytest.raises(RemoteError) as caught:
        BucketType().open(place).resolve(FIRST)
    assert caught.value.permanent
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
