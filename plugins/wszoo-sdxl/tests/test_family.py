from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from wszoo_sdxl.family import SdxlFamily

from wszoo.errors import BuildError, IncompatibleError, NotFoundError, StorageError, UsageError
from wszoo.families import resources
from wszoo.names import TargetSpec

if TYPE_CHECKING:
    from pathlib import Path


Requests = "Callable[..., ExportRequest]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "no option named 'colour'"),
        ({"components": "vae"}, "no component 'vae'"),
        ({"vae_precision": "int8"}, "vae-precision"),
        ({"compare": "maybe"}, "neither yes nor no"),
        ({"precision": "int4"}, "--precision"),
    ],
)
def test_wrong_options_are_usage_errors(
    base: Path, request_for: Requests, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SdxlFamily().export(request_for(base, **options))


@pytest.mark.parametrize(
    ("targets", "precision"),
    [
        ((), "fp32"),
        (("portable", "rtx-sm86", "rtx-sm120"), "fp32"),
        (("rtx-sm75", "rtx-sm86", "portable"), "mixed"),
        (("rtx-sm75-sm86",), "mixed"),
    ],
)
def test_the_vae_is_fp32_unless_turing_is_among_the_targets(
    base: Path, request_for: Requests, targets: tuple[str, ...], precision: str
) -> None:
    specs = tuple(map(TargetSpec.parse, targets))
    for options in ({}, {"vae_precision": "auto"}):
        request = replace(request_for(base, **options), targets=specs)
        assert SdxlFamily().export(request).options["vae_precision"] == precision
    request = replace(request_for(base, vae_precision="fp32"), targets=specs)
    assert SdxlFamily().export(request).options["vae_precision"] == "fp32"


def test_unknown_profile_is_known_before_anything_is_loaded(base: Path, request_for: Requests) -> None:
    with pytest.raises(UsageError, match="preset"):
        SdxlFamily().export(request_for(base, "4096"))


def test_publishing_without_a_comparison_is_said_in_the_model(base: Path, request_for: Requests) -> None:
    export = SdxlFamily().export(request_for(base, components="text_encoder", compare="no", licence="MIT"))
    assert [component.name for component in export.components] == ["text_encoder"]
    assert export.options["compared_with"].startswith("nothing")
    assert not any(name.startswith("error.") for name in export.options)
    assert export.licence == "MIT"


def test_too_little_memory_is_known_before_loading(
    base: Path, request_for: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = SdxlFamily().export(request_for(base, components="unet"))
    monkeypatch.setattr(resources, "available_memory", lambda: 1 << 29)
    with pytest.raises(IncompatibleError, match=r"\d\.\d GB of memory are needed to export unet, and 0\.5 GB"):
        list(export.components)


def test_too_little_disk_is_known_before_anything(
    base: Path, request_for: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(StorageError, match="bytes are needed to export"):
        SdxlFamily().export(request_for(base, components="unet"))


def test_lora_for_a_network_that_is_not_there_or_not_built(
    base: Path, refiner: Path, request_for: Requests, tmp_path: Path
) -> None:
    lora = tmp_path / "words.safetensors"
    key = "lora_te1_text_model_encoder_layers_1_self_attn_q_proj"
    save_file({f"{key}.lora_down.weight": torch.ones(1, 32), f"{key}.lora_up.weight": torch.ones(32, 1)}, lora)
    with pytest.raises(UsageError, match="changes only text_encoder"):
        SdxlFamily().export(request_for(base, components="unet", lora=str(lora)))
    with pytest.raises(BuildError, match="changes the text_encoder, which this model does not have"):
        SdxlFamily().export(request_for(refiner, lora=str(lora)))
    with pytest.raises(NotFoundError, match="nowhere"):
        SdxlFamily().export(request_for(base, lora="nowhere.safetensors"))


def test_pickled_weights_are_known_before_anything_is_loaded(copy: Path, request_for: Requests) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UsageError, match="loading a pickle runs its code"):
        SdxlFamily().export(request_for(copy))
