"""What the training scripts of the sample zoo share: the data and its split, the export, the card.

Training is seeded and runs on one thread, so on one machine it gives the same bytes each time. On another it need not:
other vector units sum in another order, and over thousands of steps that grows. So what is committed is the trained
graph, the zoo is rebuilt from that, and ``train.py --check`` compares the score and not the bytes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from wszoo.families.torch_export import TOLERANCES, compare, export_module
from wszoo.weights.graph import attach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

SEED = 20
HELD_BACK = 360  # a fifth
TOLERANCE = 0.005  # how far training again may fall below, or rise above, the card: half a point

_SCORE = re.compile(r"^accuracy: (0\.\d+|1\.0)", re.MULTILINE)


class Digits(NamedTuple):
    """Images ``float32 [n, 1, 8, 8]`` in 0..1 and their classes ``int64 [n]``."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


class Result(NamedTuple):
    """What a training gives.

    Attributes:
        graph: a stand-alone ONNX file.
        score: accuracy; what ``--check`` compares.
        assets: the files that travel with the model, by name.
    """

    graph: bytes
    score: float
    assets: Mapping[str, bytes]


def load_split() -> tuple[Digits, Digits]:
    """The digits to train on and those held back, with the classes in equal shares; always the same."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    labels = data.target.astype(np.int64)
    train, held = train_test_split(np.arange(len(labels)), test_size=HELD_BACK, stratify=labels, random_state=SEED)
    return Digits(images[train], labels[train]), Digits(images[held], labels[held])


def settle() -> None:
    """Make torch give the same numbers each time on this machine."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


def to_onnx(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    cases: Sequence[Arrays],
) -> bytes:
    """Export a module as one ONNX file, after checking in ONNX Runtime that it computes what torch computes.

    Args:
        module: in evaluation mode and half precision: TensorRT-RTX has no fp32 matrix products for Turing.
        example: an argument of ``forward`` for each name.
        outputs: names for what it returns.
        dynamic: for each input, the names of its dynamic dimensions by axis.
        cases: inputs to compare on.
    """
    with tempfile.TemporaryDirectory() as folder:
        graph = export_module(module, example, outputs=outputs, folder=Path(folder), dynamic=dynamic)
        result = compare(graph, module, cases, tolerance=TOLERANCES["fp16"])
        print("torch and ONNX Runtime differ by at most", max(result.max_abs_error.values()))
        return attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors})


def npz(folder: Path, **arrays: NDArray[Any]) -> bytes:
    """The bytes of a compressed ``.npz``; NumPy dates its entries 1980, so they depend on the arrays only."""
    path = folder / "arrays.npz"
    np.savez_compressed(path, **arrays)
    data = path.read_bytes()
    path.unlink()
    return data


def score_in_card(card: str) -> float:
    """The accuracy that a card states, in its line ``accuracy: 0.99...``."""
    found = _SCORE.search(card)
    if found is None:
        raise SystemExit("the card has no line 'accuracy: 0.99'")
    return float(found[1])


def finish(folder: Path, result: Result) -> None:
    """Write what a training gave into a recipe's folder; with ``--check`` on the command line, compare instead."""
    if sys.argv[1:] == ["--check"]:
        _check(folder, result)
        return
    if sys.argv[1:]:
        raise SystemExit(f"usage: {sys.argv[0]} [--check]")
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(result.graph)
    for name, data in result.assets.items():
        (folder / "assets" / name).write_bytes(data)
    print(f"wrote {len(result.graph):,} bytes of graph; accuracy {result.score:.4f}")


def _check(folder: Path, result: Result) -> None:
    stated = score_in_card((folder / "assets" / "card.md").read_text(encoding="utf-8"))
    same = "the same bytes as" if result.graph == (folder / "model.onnx").read_bytes() else "other bytes than"
    print(f"accuracy {result.score:.4f}, the card says {stated:.4f}; {same} the committed graph")
    if abs(result.score - stated) > TOLERANCE:
        raise SystemExit(f"training again differs from the card by more than {TOLERANCE:.1%}")
