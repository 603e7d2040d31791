"""Writing a site: incremental, atomic, and never over what is somebody else's."""

from __future__ import annotations

import os

import pytest
from builders import publish_model, snapshot

from wszoo.catalog import site as site_module
from wszoo.catalog.site import CARD, write_site
from wszoo.catalog.survey import Survey
from wszoo.errors import StorageError, UsageError
from wszoo.names import Ref
from wszoo.store.documents import read_indexed_model
from wszoo.store.files import replace


def page_of(store, folder, ref):
    (model,) = [model for model in Survey(store).models if model.entry.ref.tagged == ref]
    return folder / "catalog" / "models" / f"{model.summary.page}.html"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site"


def test_writing_again_writes_nothing(origin, folder):
    first = write_site(origin, folder)
    before = snapshot(folder)
    again = write_site(origin, folder)
    assert (first.models, first.broken, again.written, again.removed) == (1, 0, 0, 0)
    assert again.kept == first.written
    assert snapshot(folder) == before


def test_a_new_model_changes_its_page_the_list_and_its_neighbours(origin, folder):
    write_site(origin, folder)
    publish_model(origin, "other:1", seed=5, targets=("rtx-sm75",))
    report = write_site(origin, folder)
    assert page_of(origin, folder, "other:1").is_file()
    # Both networks have the same bias: each is on the other's page. Then the list and its data.
    assert (report.written, report.removed) == (4, 1)
    assert "other:1" in page_of(origin, folder, "net:1").read_text()


def test_pages_of_models_that_are_gone_go(origin, folder):
    publish_model(origin, "other:1", seed=5, targets=())
    write_site(origin, folder)
    gone = page_of(origin, folder, "other:1")
    entry = origin.refs.get(Ref.parse("other:1"))
    assert origin.refs.swap(entry.ref, None, held=None, expected=entry)
    assert write_site(origin, folder).removed == 2  # and the former data file
    assert not gone.exists()


def test_a_page_that_was_cut_off_is_written_again(origin, folder):
    write_site(origin, folder)
    page = page_of(origin, folder, "net:1")
    whole = page.read_bytes()
    page.write_bytes(b"")
    assert write_site(origin, folder).written == 1
    assert page.read_bytes() == whole


def test_it_stands_beside_the_store_whose_files_stay_as_they_are(origin):
    before = snapshot(origin.layout.root)
    write_site(origin, origin.layout.root)
    after = snapshot(origin.layout.root)
    assert {path: data for path, data in after.items() if path in before} == before
    assert write_site(origin, origin.layout.root).written == 0
    assert "data-beside" in page_of(origin, origin.layout.root, "net:1").read_text()


FOREIGN = {
    "a file": lambda folder: folder.write_text("x"),
    "somebody's page": lambda folder: (folder.mkdir(), (folder / "index.html").write_text("mine")),
    "somebody's folder": lambda folder: (folder.mkdir(), (folder / "thesis.tex").write_text("mine")),
    "a catalog of other things": lambda folder: (folder / "catalog").mkdir(parents=True),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_that_is_not_ours_is_refused_and_left_alone(origin, folder, kind):
    FOREIGN[kind](folder)
    before = folder.read_text() if folder.is_file() else snapshot(folder)
    with pytest.raises(UsageError):
        write_site(origin, folder)
    assert (folder.read_text() if folder.is_file() else snapshot(folder)) == before


def test_a_page_of_somebody_else_in_the_stores_folder_is_refused(origin):
    (origin.layout.root / "index.html").write_text("mine")
    with pytest.raises(UsageError, match=r"index\.html"):
        write_site(origin, origin.layout.root)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "catalog/models/../../../x.html", "index.json"])
def test_a_card_that_lists_strange_paths_deletes_nothing(origin, folder, path):
    import json

    write_site(origin, folder)
    card = json.loads((folder / CARD).read_text())
    card["files"][path] = [1, "x"]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(UsageError, match="lists"):
        write_site(origin, folder)


def test_a_card_that_is_damaged_says_what_to_do(origin, folder):
    write_site(origin, folder)
    (folder / CARD).write_text("{")
    with pytest.raises(StorageError) as caught:
        write_site(origin, folder)
    assert "delete" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="makes links")
def test_a_link_in_place_of_a_folder_is_not_followed(origin, folder, tmp_path):
    write_site(origin, folder)
    outside = tmp_path / "outside"
    (folder / "catalog" / "models").rename(outside)
    (folder / "catalog" / "models").symlink_to(outside)
    before = snapshot(outside)
    with pytest.raises(UsageError, match="link"):
        write_site(origin, folder)
    assert snapshot(outside) == before


@pytest.mark.parametrize("allowed", range(9))
def test_a_crash_leaves_the_old_list_or_the_new_one_and_the_next_run_goes_on(origin, folder, monkeypatch, allowed):
    write_site(origin, folder)
    old = (folder / "index.html").read_bytes()
    publish_model(origin, "other:1", seed=5, targets=())
    done = []

    def until(source, target):
        if len(done) == allowed:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(site_module, "replace", until)
        try:
            write_site(origin, folder)
        except StorageError:
            assert len(done) == allowed
    listed = (folder / "index.html").read_bytes()
    data = [word for word in listed.decode().split('"') if word.startswith("data/")]
    assert listed == old or b"other:1" in listed
    assert all((folder / "catalog" / path).is_file() for path in data[0].split())
    write_site(origin, folder)
    assert b"other:1" in (folder / "index.html").read_bytes()
    assert not list(folder.rglob(".*"))
    assert write_site(origin, folder).written == 0


def test_an_empty_store_has_a_page(store, folder):
    report = write_site(store, folder)
    assert report.models == 0
    assert "No models yet" in (folder / "index.html").read_text()


def test_a_broken_model_is_listed_as_broken(origin, folder):
    publish_model(origin, "other:1", seed=5, targets=())
    model = read_indexed_model(origin, origin.refs.get(Ref.parse("other:1")).descriptor)
    origin.blobs.path(model.manifest.config.digest).write_bytes(b"{}")
    report = write_site(origin, folder)
    assert (report.models, report.broken) == (2, 1)
    assert "broken: cannot be read" in (folder / "index.html").read_text()
    page = page_of(origin, folder, "other:1").read_text()
    assert f"{model.manifest.config.digest.hex} is damaged" in page
    everything = b"".join(snapshot(folder).values())
    assert str(origin.layout.root).encode() not in everything  # where the store is is nobody's business


def test_a_ref_that_cannot_be_read_is_told_about(origin, folder):
    publish_model(origin, "other:1", seed=5, targets=())
    for record in origin.layout.refs.glob("*/*/record.json"):
        if b"other" in record.read_bytes():
            record.write_bytes(b"{")
    report = write_site(origin, folder)
    assert (report.models, report.broken) == (1, 1)
    assert "1 of the models here cannot be read" in (folder / "index.html").read_text()


def test_plans_that_are_not_here_are_shown_as_such(origin, store, folder):
    from builders import around

    from wszoo.distribution.pull import pull
    from wszoo.remotes.directory import DirectoryRemote

    pull(store, DirectoryRemote(origin.layout.root), Ref.parse("net:1"), around("sm89"))
    write_site(store, folder)
    text = page_of(store, folder, "net:1").read_text()
    assert "not here" in text
    assert "--gpu sm89 " in text


def test_the_command_tells_what_it_wrote(origin, folder, capfd):
    import json

    from wszoo.cli import main

    words = ["site", "-o", str(folder), "--store", str(origin.layout.root)]
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as exit_:
            main([*words, *extra])
        assert not exit_.value.code
        out, err = capfd.readouterr()
        if extra:
            told = json.loads(out)
            assert (told["models"], told["broken"], told["written"]) == (1, 0, 0)
        else:
            assert out == f"{folder / 'index.html'}\n"
            assert err.startswith("1 model: wrote 8 files, ")


def test_a_store_that_is_not_there_is_an_error_and_nothing_is_written(folder, tmp_path, capfd):
    from wszoo.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(["site", "-o", str(folder), "--store", str(tmp_path / "nowhere")])
    assert exit_.value.code == 3
    assert not folder.exists()
