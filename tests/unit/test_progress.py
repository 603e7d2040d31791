"""Silent takes everything and says nothing."""

from __future__ import annotations

from wszoo.progress import Silent


def test_silent_accepts_every_stage_and_prints_nothing(capsys):
    with Silent().stage("a") as advance, Silent().stage("b", 10, "graphs") as inner:
        advance(5)
        inner(1)
    assert capsys.readouterr() == ("", "")
