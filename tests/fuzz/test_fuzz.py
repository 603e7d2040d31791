"""Every fuzz target over its corpus, over all that was ever found, over quick mutations, and a second under atheris."""

from __future__ import annotations

import os
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from faults.tally import LONG, tally
from fuzz.campaign import fuzz
from fuzz.targets import TARGETS, run

HERE = Path(__file__).parent
MUTATIONS = 200


def inputs(folder, target):
    """The inputs of a target that are kept in a folder."""
    return sorted((HERE / folder / target).iterdir()) if (HERE / folder / target).is_dir() else []


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds_documents_that_are_accepted(target):
    seeds = inputs("corpus", target)
    assert seeds
    assert [seed.name for seed in seeds if run(target, seed.read_bytes())]


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_is_refused_now(target):
    for found in inputs("regressions", target):
        run(target, found.read_bytes())


def mutated(data, rng):
    """Something like the input: bytes changed, cut, doubled, or replaced by telling ones."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.randint(1, 200)]
        elif kind == 3:
            data[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\xff", bytes(4), b'"', b"-1", b"1e99", b"[[", b"null", b"\\ud8"]
            )
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_end_with_an_error_of_ours_or_well(target):
    rng = random.Random(target)
    seeds = [seed.read_bytes() for seed in inputs("corpus", target)]
    for _ in range(MUTATIONS):
        run(target, mutated(rng.choice(seeds), rng))
    tally("fuzz executions by plain mutation", MUTATIONS)


@pytest.mark.skipif(LONG, reason="make torture fuzzes for minutes instead")
@pytest.mark.skipif(
    find_spec("atheris") is None and not os.environ.get("CI"),
    reason="atheris is not installed; it has wheels for Linux on x86_64 and Python up to 3.13",
)
def test_some_seconds_of_coverage_guided_fuzzing_find_nothing():
    count, said = fuzz("all", seconds=5, seed=1, keep=False)
    assert said == ""
    assert count > 1000
