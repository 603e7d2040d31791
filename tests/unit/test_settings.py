"""The settings file: what is written can be read, what others wrote in it stays, and nonsense is named."""

from __future__ import annotations

import pytest

from wszoo.errors import LimitError, MalformedError, NotFoundError, StorageError, UsageError
from wszoo.settings import (
    MAX_SETTINGS,
    RemoteSetting,
    add_remote,
    cache_limit,
    remotes,
    remove_remote,
    settings_path,
    trust,
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "wszoo.toml"
    monkeypatch.setenv("WSZOO_CONFIG", str(path))
    return path


def test_without_a_file_there_are_no_remotes(config):
    assert remotes() == {}
    assert not config.exists()


def test_the_default_is_in_the_users_configuration_folder(monkeypatch):
    monkeypatch.delenv("WSZOO_CONFIG", raising=False)
    assert settings_path().name == "config.toml"
    assert "wszoo" in str(settings_path())


def test_what_was_added_is_read_in_order(config):
    add_remote("b", "oci://host/path")
    add_remote("a.1", "https://host/x", ["http://mirror/ü", 'file:///a"b'])
    assert list(remotes().items()) == [
        ("b", RemoteSetting(url="oci://host/path")),
        ("a.1", RemoteSetting(url="https://host/x", mirrors=("http://mirror/ü", 'file:///a"b'))),
    ]


def test_adding_again_changes_and_removing_forgets(config):
    add_remote("a", "https://one", ["https://two"])
    add_remote("a", "https://three")
    assert remotes() == {"a": RemoteSetting(url="https://three")}
    remove_remote("a")
    assert remotes() == {}
    with pytest.raises(NotFoundError, match="'a'"):
        remove_remote("a")


def test_comments_and_what_a_later_version_wrote_stay(config):
    config.parent.mkdir()
    text = '# mine\n[future]\nkey = 1\n\n[remotes.a]  # the good one\nurl = "https://one"\nextra = true\n'
    config.write_text(text)
    add_remote("b", "https://two")
    remove_remote("b")
    assert config.read_text().strip() == text.strip()


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a" * 65, "https://x"])
def test_a_name_that_could_be_something_else_is_refused(config, name):
    with pytest.raises(UsageError, match="name for a remote"):
        add_remote(name, "https://host")


@pytest.mark.parametrize("url", ["", "host/path", "https://a b", "https://", "HTTPS://x", "oci://a\nb"])
def test_what_is_no_url_is_refused(config, url):
    with pytest.raises(UsageError, match="URL"):
        add_remote("a", url)
    with pytest.raises(UsageError, match="URL"):
        add_remote("a", "https://host", [url])
    assert not config.exists()


@pytest.mark.parametrize("text", ["[remotes", "remotes = 1", "[remotes.a]\nmirrors = []", "[remotes.a]\nurl = 1"])
def test_a_malformed_file_is_named_and_never_rewritten(config, text):
    config.parent.mkdir()
    config.write_text(text)
    for action in (remotes, lambda: add_remote("b", "https://x"), lambda: remove_remote("a")):
        with pytest.raises(MalformedError, match=r"wszoo\.toml"):
            action()
    assert config.read_text() == text


def test_a_file_that_cannot_be_read_is_an_error(config):
    config.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"wszoo\.toml"):
        remotes()


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "#" * (MAX_SETTINGS + 1)], ids=["deep", "large"])
def test_settings_that_no_decoder_should_be_given_are_refused_by_name(config, text):
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)
    for ask in (remotes, trust, cache_limit, lambda: add_remote("a", "https://one")):
        with pytest.raises(LimitError, match=config.name) as caught:
            ask()
        assert "correct the file" in caught.value.hint
    assert config.read_text() == text
