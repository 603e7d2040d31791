"""What a user types, run for real against the sample zoo in ``store/``: ``python examples/demo.py``.

Needs ``pip install wszoo[ort]`` only: no torch, no TensorRT, no GPU. Every command is printed before it runs, and what
this page claims about the results is checked; the exit status is 1 if something is not as claimed.
"""
# ruff: noqa: INP001, T201 - a script that prints

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = Path("build", "demo")  # relative to ROOT, so that the commands below can be typed as they are
DIGITS = "3,1,4,1,5"
SNIPPET = f"""\
import numpy as np
import wszoo

zoo = wszoo.Zoo()
writer = zoo.pull("digit-writer")["model"].load()
reader = zoo.pull("digits-cnn")["model"].load()
styles = np.random.default_rng(7).random(({len(DIGITS.split(","))}, 6), np.float32)
image = writer(digit=np.array([{DIGITS}]), style=styles)["image"]
small = image.reshape(-1, 1, 8, 2, 8, 2).mean((3, 5))
print(*reader(images=small)["scores"].argmax(1))
"""

_ACCURACY = re.compile(r"accuracy:? (0\.\d+|1\.0+) \(.*?([\d,]+) of ([\d,]+)\b")


def main() -> None:
    """Pull, run, assemble, look, write: one step after the other."""
    start_afresh()
    classify_digits()
    assemble_for_another_gpu()
    look_inside()
    write_digits()
    print("\nAll of it is as claimed.")


def start_afresh() -> None:
    """An empty local store, so that everything below is really fetched."""
    shutil.rmtree(ROOT / SCRATCH, ignore_errors=True)
    (ROOT / SCRATCH).mkdir(parents=True)
    os.environ["WSZOO_STORE"] = str(SCRATCH / "store")
    print(f"$ export WSZOO_STORE={SCRATCH / 'store'}")


def classify_digits() -> None:
    """Pull the plan for this machine, and count what the network gets right on images it was not trained on."""
    say("Pull a model, with the plan for the GPU of this machine, or the portable one if there is none.")
    wszoo("pull", "digits-cnn", "--gpu", "auto", "--from", "store/")
    say("Run it on the handwritten digits that were held back from its training.")
    counted = correct_of(wszoo("run", "digits-cnn"))
    stated = correct_of((ROOT / "store" / "recipes" / "digits-cnn" / "assets" / "card.md").read_text(encoding="utf-8"))
    if counted < stated:
        fail(f"{counted} correct, and its card says {stated}")
    print(f"-> {counted} correct; its card says {stated}")


def assemble_for_another_gpu() -> None:
    """Assemble the plan of a GPU that need not be here, and hash the file."""
    say("Assemble the plan for an RTX 40 GPU from the same weights. No GPU is needed for that.")
    pull = ("pull", "digits-cnn", "--gpu", "sm89", "--from", "store/")
    wszoo(*pull)
    engine = Path(answer(*pull)["engines"]["model"])
    hashed = "sha256:" + hashlib.sha256((ROOT / engine).read_bytes()).hexdigest()
    built = answer("resolve", "digits-cnn", "--gpu", "sm89", "--from", "store/")["components"]["model"]["engine_digest"]
    print(f"-> the assembled file:          {hashed}\n-> what NVIDIA's builder wrote: {built}")
    if hashed != built:
        fail("the assembled plan is not what the builder wrote")


def look_inside() -> None:
    """Sizes of everything."""
    say("See what is stored: the weights once, and for every target a plan without them.")
    wszoo("show", "digits-cnn")
    view = answer("show", "digits-cnn")
    full = sum(plan["engine_bytes"] for plan in view["plans"])
    shared = max(plan["shared_bytes"] for plan in view["plans"])
    plans = shared + sum(plan["plan_bytes"] - plan["shared_bytes"] for plan in view["plans"])
    if view["weight_stored_bytes"] + plans >= full / 2:
        fail(f"weights and plans take more than half of the {full:,} bytes of full plans")


def write_digits() -> None:
    """Let the second model write digits, and the first read them."""
    say("A second model writes digits.")
    wszoo("run", "--from", "store/", "digit-writer", "--input", f"digit={DIGITS}", "--show", "image", captured=False)
    say("The same in Python: one model writes, the other reads.")
    print(SNIPPET)
    read = _run([sys.executable, "-c", SNIPPET], captured=True)
    print(f"-> {read}", end="")
    if read.split() != DIGITS.split(","):
        fail(f"{DIGITS} was written, and read as {read}")


def say(text: str) -> None:
    """A line above a command."""
    print(f"\n# {text}")


def wszoo(*arguments: str, captured: bool = True) -> str:
    """Print a command, run it and print what it prints.

    Args:
        arguments: of ``wszoo``.
        captured: return the output; False leaves the terminal to the command, which may then use colours.
    """
    print(f"$ wszoo {' '.join(arguments)}", flush=True)
    output = _run([_program(), *arguments], captured=captured)
    print(output, end="", flush=True)
    return output


def answer(*arguments: str) -> Any:  # noqa: ANN401 - JSON
    """What the same command says with ``--json``."""
    verb, *rest = arguments
    return json.loads(_run([_program(), verb, "--json", *rest], captured=True))


def _program() -> str:
    program = shutil.which("wszoo", path=sysconfig.get_path("scripts"))
    if program is None:
        fail(f"wszoo is not installed for {sys.executable}: pip install --editable .[ort]")
    return program


def _run(command: list[str], *, captured: bool) -> str:
    pipe = subprocess.PIPE if captured else None
    done = subprocess.run(command, cwd=ROOT, stdout=pipe, encoding="utf-8", check=False)  # noqa: S603 - our own
    if done.returncode:
        fail(f"{' '.join(command)} ended with exit status {done.returncode}")
    return done.stdout or ""


def correct_of(text: str) -> int:
    """How many images are right, from the line ``accuracy 0.99 (... 356 of 360 ...)``."""
    found = _ACCURACY.search(text)
    if found is None:
        fail("no accuracy was printed")
    return int(found[2].replace(",", ""))


def fail(reason: str) -> NoReturn:
    """Leave with exit status 1."""
    sys.stdout.flush()
    raise SystemExit(f"\nNOT AS CLAIMED: {reason}")


if __name__ == "__main__":
    main()
