"""Train ``digit-writer``: handwritten digits from a class and a style. About a minute on one core.

    python store/recipes/digit-writer/train.py            write model.onnx and assets/
    python store/recipes/digit-writer/train.py --check    train again and compare the accuracy with the card

The network is the decoder of a conditional variational autoencoder. It paints 16x16 pixels although the data have 8x8:
what is compared with the data is the mean of each 2x2 pixels, and of all paintings with those means a penalty on steep
changes picks a smooth one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from zoo_training import SEED, Digits, Result, finish, load_split, npz, settle, to_onnx  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPOCHS = 200
BATCH = 64
PEAK_RATE = 4e-3
STYLE = 6  # numbers that describe a hand
WIDTH = 192  # of the hidden layers
SIDE = 16  # pixels
CLOSENESS = 0.7  # weight of the divergence from the prior: less gives sharper digits, and more that are none
SMOOTHNESS = 0.04
PROBIT = 1.702  # the logistic curve with this slope is within 0.01 of the normal distribution's
WRITTEN = 1000
SHOWN = (3, 1, 4, 1, 5)

CARD = """\
# digit-writer

Writes digits: each has a class, 0 to 9, and a style.

accuracy: {score:.4f} (digits-cnn reads {correct:,} of {count:,} written digits, as 2x2 means, as what was asked for)

| | |
|---|---|
| input | `digit` int64 [n], 0 to 9 |
| input | `style` float32 [n, {style}], 0 to 1; all 0.5 is the average hand, random numbers are random hands |
| output | `image` float32 [n, 1, 16, 16], 0 (paper) to 1 (ink) |
| size | decoder of a conditional variational autoencoder, {parameters:,} parameters, fp16 |
| data | the 1,797 images of scikit-learn's `load_digits`, of which {trained:,} were trained on (digits-cnn's split) |
| training | {epochs} epochs of Adam, one thread, seed {seed} |
| licence | Apache-2.0 |

`wszoo run digit-writer --input digit=3,1,4,1,5 --show image` draws five of them, in random styles.

**How good it is.** {count:,} digits were written, {each} of each class, in random styles (seed {seed}). The number
above says that they look like what they should be; it would be as high if all threes were one three. So a
nearest-neighbour classifier was tried on the {held} real images that were held back: it gets {neighbour:.3f} of them
right when it knows only the written digits, and {real:.3f} when it knows the {trained:,} real images that the writer
learned from. The closer the two numbers, the less variety the writer has lost. They say nothing about hands other than
the data set's 13.

**Source of the images.** E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49, CC-BY-4.0.
"""


class Writer(nn.Module):
    """The decoder: a class and normally distributed numbers to pixels (as logits).

    Convolutions paint no better at this size. And with dynamic shapes between them, TensorRT-RTX's builder has choices
    that it makes by memory addresses, so that a plan comes out in other bytes now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes = nn.Embedding(10, 32)
        self.layers = nn.Sequential(
            nn.Linear(32 + STYLE, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, SIDE * SIDE)
        )

    def forward(self, digit: torch.Tensor, hand: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, 256]``, row by row, of digits ``[n]`` by hands ``[n, STYLE]``."""
        return self.layers(torch.cat([self.shapes(digit), hand], dim=1))


class Reader(nn.Module):
    """The encoder: mean and logarithm of the variance of the hand that wrote an image."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = nn.Embedding(10, 32)
        self.layers = nn.Sequential(nn.Linear(64 + 32, 256), nn.ReLU(), nn.Linear(256, 2 * STYLE))

    def forward(self, images: torch.Tensor, digit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors ``[n, STYLE]``."""
        mean, spread = self.layers(torch.cat([images.flatten(1), self.shapes(digit)], dim=1)).chunk(2, dim=1)
        return mean, spread


class Published(nn.Module):
    """The writer with an input that people can fill in: styles between 0 and 1 instead of normal numbers."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.writer = writer

    def forward(self, digit: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Images ``[n, 1, SIDE, SIDE]``."""
        share = style.clamp(0.01, 0.99)
        hand = torch.log(share / (1 - share)) / PROBIT
        painted = self.writer(digit, hand.to(self.writer.shapes.weight.dtype)).sigmoid()
        return painted.reshape(-1, 1, SIDE, SIDE).float()


def train(digits: Digits) -> Writer:
    """A trained decoder."""
    writer, reader = Writer(), Reader()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    parameters = [*writer.parameters(), *reader.parameters()]
    optimizer = torch.optim.Adam(parameters)
    steps = EPOCHS * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels))
        losses = []
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = _loss(writer, reader, images[rows], labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 40 == 0 or epoch == EPOCHS - 1:
            print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
    return writer


def _loss(writer: Writer, reader: Reader, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    mean, spread = reader(images, labels)
    hand = mean + torch.randn_like(mean) * (spread / 2).exp()
    painted = writer(labels, hand).sigmoid().reshape(-1, 1, SIDE, SIDE)
    seen = functional.avg_pool2d(painted, 2).clamp(1e-6, 1 - 1e-6)
    differs = functional.binary_cross_entropy(seen, images, reduction="sum")
    strange = -0.5 * (1 + spread - mean.square() - spread.exp()).sum()
    steep = painted.diff(dim=2).square().sum() + painted.diff(dim=3).square().sum()
    return (differs + CLOSENESS * strange + SMOOTHNESS * steep) / len(images)


def written(net: Published) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A thousand digits in random styles, as 8x8 pixels, and what they should be."""
    labels = np.arange(WRITTEN) % 10
    styles = np.random.default_rng(SEED).random((WRITTEN, STYLE), np.float32)
    with torch.inference_mode():
        images = net(torch.from_numpy(labels), torch.from_numpy(styles))
    return functional.avg_pool2d(images, 2).numpy(), labels


def recognised(pixels: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """How many of the written digits the committed digits-cnn reads as what they should be."""
    reader = ort.InferenceSession(HERE.parent / "digits-cnn" / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = reader.run(None, {"images": pixels})
    return int((scores.argmax(1) == labels).sum())


def nearest(known: NDArray[np.float32], labels: NDArray[np.int64], held: Digits) -> float:
    """Accuracy on real images of a nearest-neighbour classifier that knows the given ones."""
    distances = ((held.images.reshape(-1, 1, 64) - known.reshape(1, -1, 64)) ** 2).sum(-1)
    return float((labels[distances.argmin(1)] == held.labels).mean())


def main() -> None:
    """Train, measure, export."""
    settle()
    known, held = load_split()
    net = Published(train(known)).half().eval()
    pixels, asked = written(net)
    correct = recognised(pixels, asked)
    card = CARD.format(
        score=correct / WRITTEN,
        correct=correct,
        count=WRITTEN,
        each=WRITTEN // 10,
        style=STYLE,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        trained=len(known.labels),
        held=len(held.labels),
        neighbour=nearest(pixels, asked, held),
        real=nearest(known.images, known.labels, held),
        epochs=EPOCHS,
        seed=SEED,
    )
    styles = np.random.default_rng(SEED).random((len(SHOWN), STYLE), np.float32)
    shown = {"digit": np.array(SHOWN, np.int64), "style": styles}
    graph = to_onnx(
        net,
        {name: torch.from_numpy(array) for name, array in shown.items()},
        ["image"],
        {"digit": {0: "n"}, "style": {0: "n"}},
        [shown, {name: array[:1] * 0 for name, array in shown.items()}],
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = npz(Path(folder), **shown)
    finish(HERE, Result(graph, correct / WRITTEN, {"card.md": card.encode(), "samples.npz": samples}))


if __name__ == "__main__":
    main()
