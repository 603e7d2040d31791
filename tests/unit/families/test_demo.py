from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wszoo.errors import LimitError, MalformedError, NotFoundError, StorageError, UsageError
from wszoo.families.demo import run_in_batches
from wszoo.families.local import LocalModel
from wszoo.families.onnx import OnnxFamily
from wszoo.families.reports import accuracy, best_classes, labels_from_asset
from wszoo.progress import Silent
from wszoo.weights.graph import graph_from_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from wszoo.families.protocol import DemoResult

    Make = Callable[..., onnx.ModelProto]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def model(make_classifier: Make) -> LocalModel:
    return LocalModel({"model": graph_from_model(make_classifier())}, {})


def demo(model: LocalModel, *arguments: str, **assets: bytes) -> DemoResult:
    files = {name.replace("_", "."): data for name, data in assets.items()}
    return OnnxFamily().demo(LocalModel(model.graphs, files), arguments, Silent())


def lit(*pixels: int) -> np.ndarray:
    """A batch of 4x4 images, each with one white pixel; its class is the pixel's number modulo 3."""
    images = np.zeros((len(pixels), 1, 4, 4), np.float32)
    for row, pixel in enumerate(pixels):
        images[row, 0, pixel // 4, pixel % 4] = 1
    return images


def test_without_arguments_it_runs_seeded_noise_and_describes_outputs(model: LocalModel) -> None:
    result = demo(model)
    assert result == demo(model)
    (output,) = result.values["outputs"]
    assert (output["name"], output["dtype"], output["shape"]) == ("scores", "float32", [1, 3])
    assert "seeded noise" in result.text
    assert "scores  float32 1x3  min" in result.text
    json.dumps(result.values)


def test_samples_with_labels_give_the_accuracy(model: LocalModel) -> None:
    samples = npz(pixels=lit(*range(10)), labels=np.array([at % 3 for at in range(9)] + [1]))
    result = demo(model, samples_npz=samples)
    assert result.values["correct"] == 9
    assert result.values["count"] == 10
    assert result.values["accuracy"] == 0.9
    assert "accuracy 0.900 (9 of 10)" in result.text


def test_samples_fill_a_fixed_batch_and_nothing_is_counted_twice(make_classifier: Make) -> None:
    model = LocalModel({"model": graph_from_model(make_classifier(batch=4))}, {})
    labels = np.arange(10) % 3
    result = demo(model, samples_npz=npz(pixels=lit(*range(10)), labels=labels))
    assert (result.values["correct"], result.values["count"]) == (10, 10)
    assert result.values["outputs"][0]["shape"] == [10, 3]


def test_batch_is_what_the_user_says_or_one(model: LocalModel) -> None:
    seen: list[int] = []

    class Counting:
        inputs = model.graphs["model"].inputs
        outputs = model.graphs["model"].outputs

        def __call__(self, **arrays: Any) -> dict[str, Any]:
            seen.append(len(arrays["pixels"]))
            return {"scores": arrays["pixels"].reshape(-1, 16)[:, :3]}

    for batch in (0, 4):
        out = run_in_batches(Counting(), {"pixels": lit(*range(6))}, batch)
        np.testing.assert_array_equal(out["scores"], lit(*range(6)).reshape(-1, 16)[:, :3])
    assert seen == [1] * 6 + [4, 2]


def test_labels_give_the_best_classes(model: LocalModel) -> None:
    result = demo(model, samples_npz=npz(pixels=lit(4, 2)), labels_txt=b"cat\ndog\nfox\n")
    assert [row[0]["label"] for row in result.values["top"]] == ["dog", "fox"]
    assert "dog" in result.text


def test_labels_cannot_steer_the_terminal(model: LocalModel) -> None:
    assert "\x1b" not in demo(model, labels_txt=b"\x1b]0;owned\x07\ndog\nfox\n").text


def test_given_inputs_replace_the_samples(model: LocalModel, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", lit(5))
    result = demo(model, "--input", f"pixels=@{tmp_path / 'x.npy'}", samples_npz=npz(pixels=lit(1, 2, 3)))
    assert result.values["outputs"][0]["shape"] == [1, 3]
    assert result.values["inputs"] == "the given inputs"


def test_show_draws_images_as_ascii(model: LocalModel) -> None:
    text = demo(model, "--show", "pixels", samples_npz=npz(pixels=lit(0, 3))).text
    assert text.split("\n")[-2] == "+" + " " * 8 + "+"


def test_save_writes_the_outputs(model: LocalModel, tmp_path: Path) -> None:
    demo(model, "--save", str(tmp_path / "out.npz"), "--input", "pixels=1")
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["scores"], [[6, 5, 5]])
    with pytest.raises(StorageError, match="cannot write"):
        demo(model, "--save", str(tmp_path / "no" / "folder.npz"))


def test_help_is_a_result(model: LocalModel) -> None:
    text = demo(model, "--help").text
    assert text.startswith("usage: wszoo run REF")
    assert "--component" in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--nonsense"], UsageError, "unrecognized arguments: --nonsense"),
        (["stray"], UsageError, "stray"),
        (["--input"], UsageError, "expected one argument"),
        (["--batch", "0"], UsageError, "'0' is not a number from 1"),
        (["--inp", "pixels=1"], UsageError, "unrecognized"),
        (["--input", "image=1"], UsageError, r"no input 'image'[\s\S]*pixels=float32"),
        (["--input", "pixels=1", "--input", "pixels=2"], UsageError, "given twice"),
        (["--input", "pixels=1,2"], UsageError, "takes the shape batchx1x4x4"),
        (["--component", "unet"], NotFoundError, r"no component 'unet'[\s\S]*model"),
        (["--show", "image"], NotFoundError, r"no input or output 'image'[\s\S]*pixels, scores"),
    ],
)
def test_wrong_arguments(model: LocalModel, arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        demo(model, *arguments)


def test_hostile_samples_are_refused(model: LocalModel) -> None:
    with pytest.raises(MalformedError, match=r"samples\.npz"):
        demo(model, samples_npz=b"PK\x03\x04" + bytes(50))
    with pytest.raises(MalformedError, match=r"labels of shape \[2\] do not fit scores of shape \[1, 3\]"):
        demo(model, samples_npz=npz(pixels=lit(1), labels=np.zeros(2)))
    with pytest.raises(UsageError, match="takes the shape"):
        demo(model, samples_npz=npz(pixels=np.zeros((1, 2), np.float32)))


def test_hostile_labels_are_refused(model: LocalModel) -> None:
    with pytest.raises(MalformedError, match="not UTF-8"):
        demo(model, labels_txt=b"\xff\xfe")
    with pytest.raises(LimitError, match="200000"):
        labels_from_asset(b"\n" * 200_001)


def test_labels_of_another_number_are_ignored(model: LocalModel) -> None:
    assert "top" not in demo(model, labels_txt=b"only one\n").values


def test_scores_that_are_not_finite_are_reported_as_json(model: LocalModel) -> None:
    result = demo(model, samples_npz=npz(pixels=np.full((1, 1, 4, 4), np.inf, np.float32)))
    assert result.values["outputs"][0]["max"] is None
    json.dumps(result.values, allow_nan=False)


def test_probabilities_stay_as_they_are_and_logits_go_through_softmax() -> None:
    (row,), _ = best_classes(np.array([[0.2, 0.7, 0.1]]), ["a", "b", "c"], rows=1)
    assert row[0] == {"label": "b", "class": 1, "probability": 0.7}
    (row,), _ = best_classes(np.array([[0.0, 2.0]]), ["a", "b"], rows=1)
    assert row[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_accuracy_counts_over_all_leading_axes() -> None:
    scores = np.eye(4)[None].repeat(2, axis=0)
    values, text = accuracy(scores, np.array([[0, 1, 2, 3], [0, 0, 0, 0]]))
    assert values == {"accuracy": 5 / 8, "correct": 5, "count": 8}
    assert text == "accuracy 0.625 (5 of 8)"
