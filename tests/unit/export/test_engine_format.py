"""Engines: the builder's bytes, and a card that says what they are."""

from __future__ import annotations

import json

import msgspec
import pytest
from builders import network, publish_model, replace_in_index, synthetic_plan

from wszoo.api import Zoo
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, IntegrityError, MalformedError
from wszoo.export.job import Job
from wszoo.weights.graph import graph_from_model


def test_engines_have_the_bytes_that_the_builder_wrote(export):
    out = export("engine", targets=["rtx-sm86", "rtx-sm89"])
    for target in ("rtx-sm86", "rtx-sm89"):
        expected = synthetic_plan(graph_from_model(network()), target)
        assert (out / f"net.{target}.plan").read_bytes() == expected
        card = json.loads((out / f"net.{target}.json").read_bytes())
        assert card["digest"] == Digest.of(expected)
        assert card["target"]["version"] == "1.7.1.116"
        assert card["inputs"] == [{"dtype": "float32", "name": "x", "shape": ["n", 64]}]


def test_a_portable_plan_has_no_engine(export):
    with pytest.raises(IncompatibleError, match="no engine") as error:
        export("engine", targets=["portable"])
    assert "--format onnx" in error.value.hint


def test_a_portable_plan_among_others_is_left_out_and_noted(origin, tmp_path):
    done = Zoo(origin.layout.root).export("net:1", tmp_path / "out", to="engine", targets=["portable", "rtx-sm89"])
    assert "net portable was left out" in done.card.notes[0]


def test_a_kept_plan_that_was_changed_is_assembled_anew_before_it_is_copied(export, origin, tmp_path):
    before = export("engine", targets=["rtx-sm89"], out=tmp_path / "one")
    (kept,) = origin.layout.engines.iterdir()
    kept.write_bytes(kept.read_bytes()[::-1])
    after = export("engine", targets=["rtx-sm89"], out=tmp_path / "two")
    assert (before / "net.rtx-sm89.plan").read_bytes() == (after / "net.rtx-sm89.plan").read_bytes()


def test_a_kept_plan_that_changes_while_it_is_copied_is_noticed(export, origin, tmp_path, monkeypatch):
    true = Job.engine

    def tampered(job, plan):
        path = true(job, plan)
        path.write_bytes(path.read_bytes()[::-1])
        return path

    monkeypatch.setattr(Job, "engine", tampered)
    with pytest.raises(IntegrityError, match="is damaged"):
        export("engine", targets=["rtx-sm89"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["engine", "ort-epcontext", "ortpackage"])
def test_a_target_whose_name_leaves_the_folder_is_refused(to, store, export, tmp_path):
    publish_model(store, "net:1", targets=("rtx-sm89",), portable=False)

    def rename(config):
        return msgspec.structs.replace(config, target=msgspec.structs.replace(config.target, name="../../x"))

    replace_in_index(store, "net:1", plan_config=rename)
    with pytest.raises(MalformedError, match="cannot be a file name"):
        export(to, store=store, targets=["../../x"])
    assert {path.name for path in tmp_path.iterdir()} == {"store", "origin"}
