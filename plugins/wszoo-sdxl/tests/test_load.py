"""What may be wrong with a folder, and that its weights come through exactly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from wszoo_sdxl import layout as layouts
from wszoo_sdxl.load import files_of, load

from wszoo.errors import BuildError, MalformedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors"}


def loaded(folder: Path, component: str, precision: str = "fp32", **options: bool) -> dict[str, torch.Tensor]:
    return load(layouts.read_layout(folder, component), component, precision, (), **options).state_dict()


def changed(folder: Path, component: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / WEIGHTS[component]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_every_tensor_is_the_files_own(base: Path) -> None:
    stored = load_file(base / WEIGHTS["unet"])
    found = loaded(base, "unet")
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_tensors_of_the_wanted_type_stay_mapped(base: Path) -> None:
    raw = (base / WEIGHTS["unet"]).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    module = load(layouts.read_layout(base, "unet"), "unet", "fp32", ())
    apart = module.conv_out.weight.data_ptr() - module.conv_in.weight.data_ptr()
    # As far from each other as in the file: both lie in one mapping of it, and neither was copied.
    assert apart == header["conv_out.weight"]["data_offsets"][0] - header["conv_in.weight"]["data_offsets"][0]


def test_shards_are_read(base: Path, copy: Path) -> None:
    stored = load_file(copy / WEIGHTS["unet"])
    names = sorted(stored)
    halves = {f"diffusion_pytorch_model-0000{number}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    for file, keys in halves.items():
        save_file({key: stored[key] for key in keys}, copy / "unet" / file)
    (copy / WEIGHTS["unet"]).unlink()
    index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded(copy, "unet").items())
    (copy / "unet" / next(iter(halves))).unlink()
    with pytest.raises(NotFoundError, match="00001-of-00002"):
        loaded(copy, "unet")


def test_index_that_lists_files_elsewhere_is_refused(copy: Path) -> None:
    (copy / WEIGHTS["unet"]).unlink()
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MalformedError, match="secret"):
        loaded(copy, "unet")


def test_fp16_variant_is_taken_for_fp16_and_the_full_one_for_fp32(copy: Path) -> None:
    half = copy / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(copy / WEIGHTS["unet"]).items()}, half)
    layout = layouts.read_layout(copy, "unet")
    assert files_of(layout, "unet", "fp16") == [half]
    assert files_of(layout, "unet", "fp32") == [copy / WEIGHTS["unet"]]
    (copy / WEIGHTS["unet"]).unlink()
    assert files_of(layout, "unet", "fp32") == [half]
    assert loaded(copy, "unet")["conv_in.weight"].dtype == torch.float32


def test_names_of_older_libraries_are_understood(base: Path, copy: Path) -> None:
    vae = copy / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    tensors = load_file(vae)
    for name in [name for name in tensors if ".attentions." in name]:
        for new, before in old.items():
            if new in name:
                tensor = tensors.pop(name)
                tensors[name.replace(new, before)] = tensor[..., None, None] if tensor.ndim == 2 else tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, vae)

    def rename(stored: dict[str, torch.Tensor]) -> None:
        for name in list(stored):
            stored["text_model." + name.removeprefix("text_model.")] = stored.pop(name)
        stored["text_model.embeddings.position_ids"] = torch.arange(77)[None]

    changed(copy, "text_encoder", rename)
    for component in ("vae_decoder", "text_encoder"):
        ours, expected = loaded(copy, component), loaded(base, component)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


DEFECTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda tensors: tensors.pop("conv_in.weight"), "misses conv_in.weight"),
    "unexpected": (lambda tensors: tensors.update(other=torch.ones(2)), "does not expect other"),
    "shape": (
        lambda tensors: tensors.update({"conv_out.bias": torch.ones(5)}),
        r"conv_out\.bias \[5\] instead of \[4\]",
    ),
    "nan": (lambda tensors: tensors["conv_out.bias"].fill_(torch.nan), "NaN or infinity: conv_out.bias"),
    "mixed": (lambda tensors: tensors.update({"conv_out.bias": torch.ones(4).half()}), "1 tensors in fp16"),
    "fp8": (lambda tensors: tensors.update({"conv_out.bias": torch.ones(4).to(torch.float8_e4m3fn)}), "quantized"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_weights_that_do_not_fit_are_refused(copy: Path, defect: str) -> None:
    change, message = DEFECTS[defect]
    changed(copy, "unet", change)
    with pytest.raises(BuildError, match=message):
        loaded(copy, "unet")


def test_mixed_types_are_accepted_when_the_precision_was_asked_for(copy: Path) -> None:
    changed(copy, "unet", DEFECTS["mixed"][0])
    assert loaded(copy, "unet", any_type=True)["conv_out.bias"].dtype == torch.float32


def test_weights_too_large_for_fp16_are_refused(copy: Path) -> None:
    changed(copy, "unet", lambda tensors: tensors["conv_out.bias"].fill_(1e6))
    with pytest.raises(BuildError, match="too large for fp16"):
        loaded(copy, "unet", "fp16")


def test_file_that_is_no_safetensors_is_refused(copy: Path) -> None:
    (copy / WEIGHTS["unet"]).write_bytes(b"nonsense")
    with pytest.raises(MalformedError, match="damaged"):
        loaded(copy, "unet")


def test_pickles_are_refused_with_the_reason(copy: Path) -> None:
    (copy / WEIGHTS["unet"]).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UsageError, match="loading a pickle runs its code"):
        loaded(copy, "unet")


@pytest.mark.parametrize(
    ("name", "error"), [("model.ckpt", UsageError), ("model.safetensors", UsageError), ("nowhere", NotFoundError)]
)
def test_sources_that_are_no_folder_are_refused(tmp_path: Path, name: str, error: type[Exception]) -> None:
    if error is UsageError:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(error, match=name):
        layouts.read_layout(tmp_path / name)


def test_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"model_index\.json"):
        layouts.read_layout(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="pickle"):
        layouts.read_layout(tmp_path)


def edit(path: Path, **changes: object) -> None:
    stored = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not ...}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "not of Stable Diffusion XL"),
        ({"unet": [None, None]}, "names no unet"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "AutoencoderTiny"),
    ],
)
def test_index_of_another_model_is_refused(copy: Path, change: dict[str, object], message: str) -> None:
    edit(copy / "model_index.json", **change)
    with pytest.raises(BuildError, match=message):
        layouts.read_layout(copy)


def test_folder_without_a_component_that_its_index_names_is_refused(copy: Path) -> None:
    (copy / "text_encoder").rename(copy / "elsewhere")
    with pytest.raises(NotFoundError, match="text_encoder"):
        layouts.read_layout(copy)


def test_config_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(MalformedError, match=r"config\.json"):
        layouts.read_layout(copy)


@pytest.mark.parametrize("change", [{"block_out_channels": [7, 9]}, {"down_block_types": ["Magic"]}])
def test_config_that_makes_no_network_is_refused(copy: Path, change: dict[str, object]) -> None:
    edit(copy / "unet" / "config.json", **change)
    with pytest.raises(BuildError, match="config of unet is not understood"):
        loaded(copy, "unet")


def test_unknown_and_absent_components_are_told_apart(base: Path, refiner: Path) -> None:
    with pytest.raises(UsageError, match="no component 'vae'"):
        layouts.read_layout(base, "vae")
    with pytest.raises(NotFoundError, match="no text_encoder"):
        layouts.read_layout(refiner, "text_encoder,unet")
    assert layouts.read_layout(base, "unet, vae_decoder").components == ("unet", "vae_decoder")
