"""Sources of models: local paths, and the Hub when it cannot be reached. Nothing here goes to the network."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from wszoo.building.sources import fetch_source
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.progress import Silent


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_a_file_and_a_folder_are_taken_as_they_are(tmp_path):
    (tmp_path / "model.onnx").touch()
    assert fetch_source(str(tmp_path / "model.onnx"), Silent()) == tmp_path / "model.onnx"
    assert fetch_source(str(tmp_path), Silent()) == tmp_path


@pytest.mark.parametrize("text", ["absent.onnx", "no/such/folder", "HF:org/repo", "org/repo"])
def test_a_path_that_does_not_exist_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        fetch_source(text, Silent())
    assert text in caught.value.message
    assert "hf:" in caught.value.hint


@pytest.mark.parametrize("text", ["hf:", "hf:../x", "hf:a/b/c", "hf:org/", "hf:org/re po", "hf:--", "hf:@main"])
@pytest.mark.usefixtures("offline")
def test_a_repository_name_that_breaks_the_grammar_is_refused(text):
    with pytest.raises(UsageError) as caught:
        fetch_source(text, Silent())
    assert repr(text) in caught.value.message
    assert "hf:ORG/REPO" in caught.value.hint


@pytest.mark.parametrize("text", ["hf:org/repo", "hf:org/repo@main", "hf:org/repo@" + "0" * 40])
@pytest.mark.usefixtures("offline")
def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(text):
    with pytest.raises(RemoteError, match="cannot download org/repo") as caught:
        fetch_source(text, Silent())
    assert "local folder" in caught.value.hint
