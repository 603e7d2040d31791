"""Tree digests: one value, however the bytes come."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.digest import Digest
from wszoo.tree import CHUNK, Tree, leaf, tree_digest, tree_of_file

DATA = np.random.default_rng(0).bytes(2 * CHUNK + 1000)
FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def by_hand(data):
    leaves = b"".join(sha256(data[start : start + CHUNK]).digest() for start in range(0, len(data), CHUNK))
    return Digest("sha256:" + sha256(leaves).hexdigest())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(DATA)])
def test_files_pieces_and_chunks_give_the_same(tmp_path, size):
    data = DATA[:size]
    (tmp_path / "plan").write_bytes(data)
    running = Tree()
    running.update(data)
    chunks = (data[start : start + CHUNK] for start in range(0, size, CHUNK))
    assert (
        tree_of_file(tmp_path / "plan") == Digest.from_hash(running) == tree_digest(map(leaf, chunks)) == by_hand(data)
    )


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=6))
def test_pieces_may_be_cut_anywhere(cuts):
    running, ends = Tree(), [0, *sorted(cuts), len(DATA)]
    for start, stop in pairwise(ends):
        running.update(memoryview(DATA)[start:stop])
    assert Digest.from_hash(running) == by_hand(DATA)


def test_the_lines_in_the_format_page_compute_it(tmp_path):
    (tmp_path / "plan").write_bytes(DATA)
    code = next(
        code for code in re.findall(r"```python\n(.*?)```", FORMAT.read_text(), re.DOTALL) if "engine_tree" in code
    )
    names = {}
    exec(code, names)
    assert names["engine_tree"](tmp_path / "plan") == tree_of_file(tmp_path / "plan")


def test_a_list_of_digests_is_not_taken_for_the_chunks_it_names():
    running = Tree()
    running.update(leaf(DATA[:CHUNK]) + leaf(DATA[CHUNK : 2 * CHUNK]))
    assert Digest.from_hash(running) != by_hand(DATA[: 2 * CHUNK])
