"""Documents that are as dear as they may be: read, or refused, for less than 300 MB and in seconds."""

from __future__ import annotations

import subprocess
import sys
from itertools import count, takewhile

import pytest

from wszoo.errors import LimitError
from wszoo.schema.decode import MAX_DOCUMENT, MAX_DOTS, MAX_MARKS, MAX_VALUES, decode
from wszoo.schema.lock import MAX_LOCK, decode_lock
from wszoo.schema.model import ModelConfig

MOST = 300e6  # bytes, with the document's own
SECONDS = 30
# The maximum of getrusage would be inherited from the process that started this one.
CHILD = """
import re, sys
from pathlib import Path
from wszoo.errors import IntegrityError
from wszoo.schema.decode import decode
from wszoo.schema.lock import decode_lock
from wszoo.schema.model import ModelConfig
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
before = peak()
data = Path(sys.argv[2]).read_bytes()
try:
    decode_lock(data, "it") if sys.argv[1] == "lock" else decode(data, ModelConfig, what="it")
    said = "read"
except IntegrityError as error:
    said = error.message[:100]
print(peak() - before, said)
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


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_dearest_document_of_its_kind_costs_less_than_300_mb(kind, name, tmp_path):
    path = tmp_path / "document"
    path.write_text(CASES[kind, name](), encoding="utf-8")
    words = [sys.executable, "-c", CHILD, kind, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS)
    cost, said = done.stdout.split(maxsplit=1)
    assert int(cost) < MOST
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
