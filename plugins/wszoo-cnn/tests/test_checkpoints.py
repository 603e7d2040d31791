"""Checkpoints that cannot be exported, and what the error says."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from wszoo_cnn.family import CnnFamily, presets

from wszoo.errors import BuildError, LimitError, MalformedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

    Make = Callable[..., ExportRequest]


@pytest.fixture
def broken(resnet: Path, tmp_path: Path) -> Path:
    return shutil.copytree(resnet, tmp_path / "broken")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_folder_config_and_weights_are_named(broken: Path, request_for: Make, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        CnnFamily().export(request_for(tmp_path / "nothing"))
    (broken / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"no model\.safetensors in"):
        CnnFamily().export(request_for(broken))
    (broken / "config.json").unlink()
    with pytest.raises(NotFoundError, match=r"config\.json"):
        CnnFamily().export(request_for(broken))


def test_pickle_checkpoint_is_refused_and_never_loaded(broken: Path, request_for: Make) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin.*runs its code"):
        CnnFamily().export(request_for(broken))


def test_shard_that_the_index_lists_must_exist(broken: Path, request_for: Make) -> None:
    weight_map = {"classifier.1.weight": "model-00001-of-00002.safetensors"}
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(NotFoundError, match="model-00001-of-00002"):
        CnnFamily().export(request_for(broken))


def test_shard_outside_of_the_folder_is_refused(broken: Path, request_for: Make) -> None:
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(MalformedError, match="not a file's name"):
        CnnFamily().export(request_for(broken))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 5000, "\xff"])
def test_config_that_is_no_json_object_is_malformed(broken: Path, request_for: Make, text: str) -> None:
    (broken / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(MalformedError, match=r"config\.json"):
        CnnFamily().export(request_for(broken))


def test_huge_config_is_not_read(broken: Path, request_for: Make) -> None:
    (broken / "config.json").write_bytes(b" " * (17 << 20))
    with pytest.raises(LimitError, match="more than"):
        CnnFamily().export(request_for(broken))


def test_unsupported_architecture_names_those_tried(broken: Path, request_for: Make) -> None:
    edit_config(broken, model_type="llama")
    with pytest.raises(BuildError, match=r"'llama'[\s\S]*ConvNeXt"):
        CnnFamily().export(request_for(broken))


def test_config_of_no_known_library_is_refused(broken: Path, request_for: Make) -> None:
    (broken / "config.json").write_text("{}")
    with pytest.raises(BuildError, match="neither a 'model_type'"):
        CnnFamily().export(request_for(broken))


def test_missing_and_unexpected_tensors_are_named(broken: Path, request_for: Make) -> None:
    edit_weights(broken, lambda tensors: tensors.update(stray=tensors.pop("classifier.1.bias")))
    with pytest.raises(BuildError, match=r"misses classifier\.1\.bias.*does not expect stray"):
        CnnFamily().export(request_for(broken))


def test_tensor_of_another_shape_is_named(broken: Path, request_for: Make) -> None:
    edit_weights(broken, lambda tensors: tensors.update({"classifier.1.weight": torch.zeros(6, 16)}))
    with pytest.raises(BuildError, match=r"another shape for classifier\.1\.weight"):
        CnnFamily().export(request_for(broken))


def test_nan_weights_are_named(broken: Path, request_for: Make) -> None:
    edit_weights(broken, lambda tensors: tensors["classifier.1.weight"].view(-1)[3:4].fill_(torch.nan))
    with pytest.raises(BuildError, match=r"NaN or infinity: classifier\.1\.weight"):
        CnnFamily().export(request_for(broken))


def test_weights_too_large_for_fp16_are_named(broken: Path, request_for: Make) -> None:
    edit_weights(broken, lambda tensors: tensors["classifier.1.weight"].fill_(1e6))
    with pytest.raises(BuildError, match=r"infinity: classifier\.1\.weight"):
        CnnFamily().export(request_for(broken, precision="fp16"))


def test_mixed_element_types_need_a_precision(broken: Path, request_for: Make) -> None:
    def half(tensors: dict[str, torch.Tensor]) -> None:
        tensors["classifier.1.weight"] = tensors["classifier.1.weight"].half()

    edit_weights(broken, half)
    with pytest.raises(BuildError, match=r"mixes element types.*1 tensors in fp16"):
        CnnFamily().export(request_for(broken))
    export = CnnFamily().export(request_for(broken, precision="fp32", image_size="32"))
    (component,) = export.components
    assert {tensor.dtype.name for tensor in component.graph.tensors} == {"float32"}


def test_bfloat16_checkpoint_asks_for_a_precision(broken: Path, request_for: Make) -> None:
    def brain(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({key: value.bfloat16() for key, value in tensors.items() if value.is_floating_point()})

    edit_weights(broken, brain)
    with pytest.raises(UsageError, match=r"in bf16[\s\S]*--precision"):
        CnnFamily().export(request_for(broken))


def test_damaged_safetensors_is_refused(broken: Path, request_for: Make) -> None:
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BuildError, match="damaged"):
        CnnFamily().export(request_for(broken))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, r"no precision 'int8'"),
        ({"colour": "red"}, r"no option named 'colour'[\s\S]*image-size"),
        ({"image_size": "0"}, "not an image size: '0'"),
        ({"image_size": "99999"}, "not an image size"),
        ({"image_size": "32x"}, "not an image size"),
    ],
)
def test_wrong_options_are_usage_errors(
    resnet: Path, request_for: Make, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        CnnFamily().export(request_for(resnet, **arguments))


def test_wrong_profile_is_refused_before_the_export(resnet: Path, request_for: Make) -> None:
    with pytest.raises(UsageError, match=r"neither INPUT=SHAPE nor the name of a preset[\s\S]*b1-8"):
        CnnFamily().export(request_for(resnet, "huge"))


def test_presets_cover_one_batch_or_a_range() -> None:
    shapes = presets(32, 48)["b1-8"].inputs["pixel_values"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 3, 32, 48), (8, 3, 32, 48), (8, 3, 32, 48))
    assert presets(32, 48)["b1"].inputs["pixel_values"].max == (1, 3, 32, 48)
