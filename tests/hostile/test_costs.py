"""What is as dear as it may be: documents that are read for less than 300 MB, and splice layers, in seconds."""

from __future__ import annotations

import lzma
import subprocess
import sys
from itertools import count, takewhile

import numpy as np
import pytest

from wszoo.codecs import zstd
from wszoo.errors import LimitError
from wszoo.plans.splice import columns
from wszoo.plans.splice.lines import MAX_DIGITS, MAX_DISTINCT, MAX_LINES, MAX_TEXT, Lines
from wszoo.plans.splice.renaming import Renaming
from wszoo.schema.decode import MAX_DOCUMENT, MAX_DOTS, MAX_MARKS, MAX_VALUES, decode
from wszoo.schema.lock import MAX_LOCK, decode_lock
from wszoo.schema.model import ModelConfig

MOST = 300e6  # bytes, with the document's own
SECONDS = 30
# The maximum of getrusage would be inherited from the process that started this one.
PEAK = """
import re, sys
from pathlib import Path
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
"""
CHILD = f"""{PEAK}
from wszoo.errors import IntegrityError
from wszoo.schema.decode import decode
from wszoo.schema.lock import decode_lock
from wszoo.schema.model import ModelConfig
before = peak()
data = Path(sys.argv[2]).read_bytes()
try:
    decode_lock(data, "it") if sys.argv[1] == "lock" else decode(data, ModelConfig, what="it")
    said = "read"
except IntegrityError as error:
    said = error.message[:100]
print(peak() - before, said)
"""
LAYER_CHILD = f"""{PEAK}
from wszoo.plans.splice import unpack, unpack_base
layer, base = (Path(name) for name in sys.argv[1:])
before = peak()
if base.exists():
    made = unpack(layer.read_bytes(), max_size=1 << 30, base=base.read_bytes())
else:
    made = unpack_base(layer.read_bytes(), max_size=256 << 20)
print(peak() - before, len(made))
"""


def digest(number):
    return f"sha256:{number:064x}"


def joined(entries, size, commas):
    """As many entries as fit into a size, and into the number of values: each has so many commas."""
    made, left = [], size
    for entry in takewhile(lambda _: len(made) * commas < MAX_VALUES - 10, entries):
        left -= len(entry) + 1
        if left < 1000:
            break
        made.append(entry)
    return ",".join(made)


def config(*, frames="", options="", tensors="", licence=""):
    graph = f'"graph":{{"digest":"{digest(0)}","size":0,"layer":"{digest(0)}"}},"inputs":[],"outputs":[]'
    components = f'{{"c":{{{graph},"tensors":[{tensors}]}}}}'
    return (
        f'{{"family":"f","components":{components},"packs":[],"frames":{{{frames}}},"options":{{{options}}},'
        f'"licence":"{licence}"}}'
    )


def tensor(number):
    return f'{{"name":"{number:x}","dtype":"ab","shape":[999],"digest":"{digest(number)}"}}'


WHOLE, HALF = MAX_DOCUMENT, MAX_DOCUMENT // 2
CONFIGS = {
    "short texts": lambda: config(options=joined((f'"{n:x}":"{n:x}"' for n in count()), WHOLE, 1)),
    "empty frames": lambda: config(frames=joined((f'"{digest(n)}":[]' for n in count()), WHOLE, 1)),
    "frames": lambda: config(frames=joined((f'"{digest(n)}":[[999,9999,9999,9999,"ab"]]' for n in count()), WHOLE, 5)),
    "tensors": lambda: config(tensors=joined(map(tensor, count()), WHOLE, 4)),
    "a wide text": lambda: config(licence="a" * (WHOLE - 1000) + "\N{GRINNING FACE}"),
    "a wide text and short ones": lambda: config(
        licence="a" * (HALF - 1000) + "\N{GRINNING FACE}",
        options=joined((f'"{n:x}":"{n:x}"' for n in count()), HALF, 1),
    ),
}
LOCKS = {
    "tables": lambda: "".join(f"[t{n:x}]\n" for n in range(MAX_MARKS - 10)),
    "keys": lambda: "".join(f"a{n:x}=1\n" for n in range(MAX_MARKS - 10)),
    "dotted keys": lambda: "".join(
        f"a{n:x}{'.a' * (MAX_DOTS - 1)}=1\n" for n in range((MAX_MARKS - 10) // (MAX_DOTS + 1))
    ),
    "dotted tables": lambda: "".join(f"[a{n:x}{'.a' * (MAX_DOTS - 1)}]\n" for n in range(MAX_MARKS // (MAX_DOTS + 2))),
    "inline tables": lambda: "x=[" + "{a=1}," * (MAX_MARKS // 3 - 10) + "]\n",
}
CASES = {**{("config", name): make for name, make in CONFIGS.items()}, **{("lock", n): m for n, m in LOCKS.items()}}


def measured(child, *words):
    """The most memory that a child took besides its start, in bytes, and what it said."""
    whole = [sys.executable, "-c", child, *words]
    done = subprocess.run(whole, capture_output=True, text=True, check=True, timeout=SECONDS)
    cost, said = done.stdout.split(maxsplit=1)
    return int(cost), said


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_dearest_document_of_its_kind_costs_less_than_300_mb(kind, name, tmp_path):
    path = tmp_path / "document"
    path.write_text(CASES[kind, name](), encoding="utf-8")
    cost, said = measured(CHILD, kind, str(path))
    assert cost < MOST
    assert "more than" not in said, "else it is not the dearest"


@pytest.mark.parametrize(
    "text",
    [
        config(options=",".join(f'"{n:x}":"a"' for n in range(MAX_VALUES + 2))),
        config(frames=f'"{digest(0)}":[' + ",".join(['[0,0,1,1,"raw"]'] * 1_000_000) + "]"),
        "{" + ",".join(f'"{n}":[[],{{}}]' for n in range(1_000_000)) + "}",
    ],
    ids=["texts", "a million frames of a tensor", "a million keys that nobody reads"],
)
def test_a_document_of_more_values_than_any_has_is_refused_before_it_is_parsed(text):
    with pytest.raises(LimitError, match=f"the config has .* values, more than the {MAX_VALUES}"):
        decode(text.encode(), ModelConfig, what="the config")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\n" * (MAX_MARKS + 1), f"more than the {MAX_MARKS}"),
        ("a=1\n" * (MAX_MARKS + 1), f"more than the {MAX_MARKS}"),
        (".".join("a" * 50_000) + "=1", "dots: its keys are nested too deep"),
        ("x = {" + ".".join("a" * (MAX_DOTS + 2)) + "=1}", "dots: its keys are nested too deep"),
        ("#" * (MAX_LOCK + 1), f"more than the {MAX_LOCK}"),
    ],
    ids=["tables", "keys", "a key of 50,000 parts", "an inline key of 102 parts", "bytes"],
)
def test_a_lock_that_would_cost_more_than_any_is_refused_before_it_is_parsed(text, says):
    with pytest.raises(LimitError, match=says):
        decode_lock(text.encode(), "the lock")


def test_a_config_of_a_hundred_thousand_tensors_is_within_the_bounds():
    count_ = 100_000
    tensors = (
        f'{{"name":"model.layers.{n // 1700}.mlp.experts.{n % 256}.down_proj.weight","dtype":"bfloat16",'
        f'"shape":[2048,7168],"digest":"{digest(n)}"}}'
        for n in range(count_)
    )
    frames = (f'"{digest(n)}":[[{n // 2000},{n * 300},1234567,16777216,"zstd+bytes2"]]' for n in range(count_))
    data = config(tensors=",".join(tensors), frames=",".join(frames)).encode()
    assert len(decode(data, ModelConfig, what="the config").frames) == count_


# ---- splice layers ------------------------------------------------------------------------------------------------

FREE = 500e6  # bytes, and twice what a layer decodes to


def wide(values):
    """A column in which each number takes six bytes."""
    rows = [np.asarray(values, np.int64) >> 7 * place & 127 | (128 if place < 5 else 0) for place in range(6)]
    payload = np.stack(rows, 1).astype(np.uint8).tobytes()
    return columns.number(len(payload)) + payload


def zigzag(values):
    values = np.asarray(values, np.int64)
    return values << 1 ^ values >> 63


def as_lines(n_lines, which, text, numbers, *, jumps=(), steps=()):
    counts = (n_lines, len(which), len(jumps), len(text))
    templates = columns.encode_signed(np.diff(np.array(which, np.int64), prepend=-1) - 1)
    return b"".join(
        [*map(columns.number, counts), wide(jumps), wide(zigzag(steps)), templates, text, wide(zigzag(numbers))]
    )


def base_of(lines):
    return b"\2" + lzma.compress(lines, preset=0), None


def program_of(order, new, base, renaming):
    """A program against a base; with no matches into it, so that the dictionary does not matter."""
    rows = np.asarray(order).astype(">i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    frame = zstd.compress(rows + new, level=1)
    return b"\3" + renaming.to_bytes() + columns.number(len(order)) + frame, base


def renamed_digits():
    """As many numbers of one digit as are taken, in as many distinct lines, which become numbers of twelve."""
    lines = MAX_DIGITS // 8
    rows = np.frombuffer(b"aaaaaa1b2c3d4e1f2g3h4" * lines, np.uint8).reshape(lines, -1).copy()
    rows[:, :6] += (np.arange(lines)[:, None] >> 4 * np.arange(6) & 15).astype(np.uint8)
    old = np.arange(1, 5)
    renaming = Renaming(old=old, new=old + 4 * 10**11)
    return program_of(np.arange(lines), Lines.none().to_bytes(), b"\n".join(map(bytes, rows)), renaming)


LAYERS = {
    "numbers": lambda: base_of(as_lines(1, [0], b"0" * MAX_DIGITS, [0] * MAX_DIGITS)),
    "lines with numbers": lambda: base_of(
        as_lines(MAX_LINES, [0] * MAX_DISTINCT, b"0000", [0] * MAX_DIGITS, jumps=[MAX_DISTINCT], steps=[-MAX_DISTINCT])
    ),
    "jumps": lambda: base_of(
        as_lines(MAX_LINES, [0], b"a", [], jumps=[1] * (MAX_LINES - 1), steps=[-1] * (MAX_LINES - 1))
    ),
    "text that is escaped": lambda: program_of(
        [1], as_lines(1, [0], b"%" * (MAX_TEXT - 100), []), b"base", Renaming.none()
    ),
    "text that no line has": lambda: program_of(
        [0], as_lines(0, [], b"0" * (MAX_TEXT - 100), []), b"base", Renaming.none()
    ),
    "a base of renamed digits": renamed_digits,
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_dearest_splice_layer_of_its_kind_costs_500_mb_and_twice_what_it_decodes_to(name, tmp_path):
    layer, base = LAYERS[name]()
    (tmp_path / "layer").write_bytes(layer)
    if base is not None:
        (tmp_path / "base").write_bytes(base)
    cost, size = measured(LAYER_CHILD, str(tmp_path / "layer"), str(tmp_path / "base"))
    assert cost < FREE + 2 * int(size)
