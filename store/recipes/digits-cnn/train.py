"""Train ``digits-cnn``: which digit is on an 8x8 grey image. About a minute on one core.

python store/recipes/digits-cnn/train.py            write model.onnx and assets/
python store/recipes/digits-cnn/train.py --check    train again and compare the accuracy with the card
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from zoo_training import HELD_BACK, SEED, Digits, Result, finish, load_split, npz, settle, to_onnx  # noqa: E402

EPOCHS = 60
BATCH = 64
PEAK_RATE = 4e-3
ROTATION = 0.2  # radians
SCALING = 0.12
SHIFT = 0.15  # of half the image: 0.6 pixels

CARD = """\
# digits-cnn

Tells which digit, 0 to 9, is on an 8x8 grey image.

accuracy: {score:.4f} ({correct} of {count} held-back images)

| | |
|---|---|
| input | `images` float32 [batch, 1, 8, 8], 0 (paper) to 1 (ink) |
| output | `scores` float32 [batch, 10], logits of the classes in `labels.txt` |
| size | four convolutions, {parameters:,} parameters, fp16 |
| data | the 1,797 images of scikit-learn's `load_digits` |
| split | stratified, seed {seed}: {trained:,} to train on, {count} held back and used for the number above only |
| training | {epochs} epochs of AdamW on randomly turned, scaled and shifted images, one thread, seed {seed} |
| licence | network Apache-2.0; the images in `samples.npz` CC-BY-4.0, as their data set |

`samples.npz` holds the held-back images and their classes: `wszoo run digits-cnn` counts the accuracy again.

**How far to trust it.** The data set is a sample project's: 13 people wrote these images, and each of them is on both
sides of the split. Expect less on other people's handwriting, and nothing useful on photographs.

**Source of the images.** E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49.
"""


class DigitsNet(nn.Module):
    """Convolutions on 8x8, 8x8 and 4x4, then one that looks at the remaining 2x2 at once.

    A linear layer would do the same. But flattening with a dynamic batch size leaves TensorRT-RTX's builder a choice
    that it makes by memory addresses: one plan in thirty came out in other bytes. Of these, a hundred were equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 48),
            *_convolution(48, 96),
            nn.MaxPool2d(2),
            *_convolution(96, 128),
            nn.MaxPool2d(2),
        )
        self.drop = nn.Dropout(0.3)
        self.classify = nn.Conv2d(128, 10, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[batch, 10]`` of images ``[batch, 1, 8, 8]`` in 0..1."""
        centred = (images * 2 - 1).to(self.classify.weight.dtype)
        return self.classify(self.drop(self.features(centred))).squeeze(3).squeeze(2).float()


def _convolution(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def train(digits: Digits) -> DigitsNet:
    """A trained network, in evaluation mode."""
    net = DigitsNet().train()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = EPOCHS * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels))
        losses = []
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = functional.cross_entropy(net(_moved(images[rows])), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 0 or epoch == EPOCHS - 1:
            print(f"epoch {epoch}: loss {np.mean(losses):.4f}")
    return net.eval()


def _moved(images: torch.Tensor) -> torch.Tensor:
    """Each image turned, scaled and shifted a little, at random."""
    count = len(images)
    angle = (torch.rand(count) * 2 - 1) * ROTATION
    scale = 1 + (torch.rand(count, 2) * 2 - 1) * SCALING
    shift = (torch.rand(count, 2) * 2 - 1) * SHIFT
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale[:, 0], -angle.sin(), shift[:, 0]], dim=1),
            torch.stack([angle.sin(), angle.cos() * scale[:, 1], shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def main() -> None:
    """Train, measure, export."""
    settle()
    known, held = load_split()
    net = train(known).half()
    with torch.inference_mode():
        correct = int((net(torch.from_numpy(held.images)).argmax(1).numpy() == held.labels).sum())
    card = CARD.format(
        score=correct / HELD_BACK,
        correct=correct,
        count=HELD_BACK,
        trained=len(known.labels),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        epochs=EPOCHS,
        seed=SEED,
    )
    graph = to_onnx(
        net,
        {"images": torch.from_numpy(held.images[:2])},
        ["scores"],
        {"images": {0: "batch"}},
        [{"images": held.images[:1]}, {"images": held.images[1:]}],
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = npz(Path(folder), images=held.images, labels=held.labels)
    labels = "".join(f"{digit}\n" for digit in range(10))
    finish(
        HERE,
        Result(
            graph,
            correct / HELD_BACK,
            {"card.md": card.encode(), "labels.txt": labels.encode(), "samples.npz": samples},
        ),
    )


if __name__ == "__main__":
    main()
