"""``wszoo run REF --image FILE``: classify images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wszoo.errors import NotFoundError, UsageError
from wszoo.families.arrays import numpy_dtype
from wszoo.families.demo import LABELS, DemoParser, run_in_batches
from wszoo.families.protocol import DemoResult
from wszoo.families.reports import best_classes, labels_from_asset
from wszoo.schema.decode import decode
from wszoo.text import printable
from wszoo_cnn.checkpoint import missing_library
from wszoo_cnn.preprocess import ASSET, Preprocess, load_image, noise_image, to_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from wszoo.families.protocol import PulledModel
    from wszoo.progress import Progress

_NOISE_EDGE = 224


def classify(model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
    """Classify the given images, or a noise image when there are none.

    Raises:
        UsageError: the arguments make no sense, or a file is not an image.
        NotFoundError: no such file, or the model lacks an asset.
        MalformedError: an asset that is not what it should be.
    """
    options = _parser().parse_args(arguments)
    if options.help:
        return _parser().help_result()
    how = decode(model.asset(ASSET), Preprocess, what=ASSET)
    labels = labels_from_asset(model.asset(LABELS))
    images = _images(options.image, how)
    with progress.stage("load the model"):
        network = model[model.components[0]].load()
    entry = network.inputs[0]
    pixels = np.stack([to_array(image, how) for image in images.values()]).astype(numpy_dtype(entry))
    with progress.stage("classify", len(images), "images"):
        outputs = run_in_batches(network, {entry.name: pixels})
    logits = outputs[network.outputs[0].name]
    results, tables = [], []
    for name, scores in zip(images, logits, strict=True):
        top, table = best_classes(scores[None], labels, rows=1, count=options.top)
        if not top:
            raise UsageError(f"the model gives no usable scores for its {len(labels)} classes on {name!r}")
        results.append({"image": name, "top": top[0]})
        tables += [printable(name), *table]
    if not options.image:
        tables.append("seeded noise, so these classes mean nothing; give a picture with --image FILE")
    if how.assumed:
        tables.append("the checkpoint does not say how to normalise images: ImageNet's numbers were assumed")
    return DemoResult(values={"images": results, "assumed_preprocessing": how.assumed}, text="\n".join(tables))


def _images(files: Sequence[str], how: Preprocess) -> dict[str, Image]:
    try:
        if not files:
            return {"noise": noise_image(*(how.size or (_NOISE_EDGE, _NOISE_EDGE)))}
        images = {file: load_image(Path(file)) for file in files}
    except ImportError as error:
        raise missing_library("PIL", purpose="reading images") from error
    if how.size is None and len({image.size for image in images.values()}) > 1:
        raise NotFoundError("the model stores no image size, and the images differ in size", hint="give one at a time")
    return images


def _parser() -> DemoParser:
    parser = DemoParser("Classify images.")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="may be given several times")
    parser.add_argument("--top", type=int, default=5, choices=range(1, 101), metavar="N", help="classes to list (5)")
    return parser
