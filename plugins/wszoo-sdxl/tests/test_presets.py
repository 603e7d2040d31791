from __future__ import annotations

import pytest
from wszoo_sdxl import components as parts
from wszoo_sdxl import presets

from wszoo.errors import UsageError

SHAPES = {name: parts.Shape() for name in ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")}
INPUTS = {name: parts.inputs_of(name, shape, "fp16") for name, shape in SHAPES.items()}


def made(*specs: str, required: bool = True) -> dict[str, dict[str, dict[str, tuple[tuple[int, ...], ...]]]]:
    found = presets.profiles(INPUTS, SHAPES, specs, scale=8, required=required)
    return {
        component: {
            profile.name: {name: (each.min, each.opt, each.max) for name, each in profile.inputs.items()}
            for profile in profiles
        }
        for component, profiles in found.items()
    }


def test_default_is_one_to_four_guided_pictures_of_1024() -> None:
    found = made()
    assert found["unet"]["1024"] == {
        "sample": ((1, 4, 128, 128), (2, 4, 128, 128), (8, 4, 128, 128)),
        "encoder_hidden_states": ((1, 77, 2048), (2, 77, 2048), (8, 77, 2048)),
        "text_embeds": ((1, 1280), (2, 1280), (8, 1280)),
        "time_ids": ((1, 6), (2, 6), (8, 6)),
    }
    assert found["vae_decoder"]["1024"]["latents"] == ((1, 4, 128, 128), (1, 4, 128, 128), (4, 4, 128, 128))
    assert found["vae_encoder"]["1024"]["pixels"] == ((1, 3, 1024, 1024), (1, 3, 1024, 1024), (4, 3, 1024, 1024))
    assert found["text_encoder"]["1024"]["input_ids"] == ((1, 77), (2, 77), (8, 77))
    assert made("1024") == found


def test_a_number_of_pictures_and_a_range_of_sizes() -> None:
    sample = made("512-b3", "512-1024")["unet"]
    assert sample["512-b3"]["sample"] == ((3, 4, 64, 64), (6, 4, 64, 64), (6, 4, 64, 64))
    assert sample["512-1024"]["sample"] == ((1, 4, 64, 64), (2, 4, 128, 128), (8, 4, 128, 128))


def test_text_encoders_get_one_profile_for_all_sizes() -> None:
    found = made("512", "768", "1024")
    assert list(found["unet"]) == ["512", "768", "1024"]
    assert list(found["text_encoder"]) == ["512"]


def test_free_shapes_for_one_component_leave_the_others_their_default() -> None:
    rest = "unet/encoder_hidden_states=2x77x2048,unet/text_embeds=2x1280,unet/time_ids=2x6"
    found = made(f"unet/sample=2x4x64x96,{rest}")
    assert found["unet"]["p0"]["sample"] == ((2, 4, 64, 96),) * 3
    assert list(found["vae_decoder"]) == ["1024"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("2048", "neither INPUT=SHAPE nor the name of a preset"),
        ("noise=1x2", "no component has an input"),
        ("unet/sample=2x4x64x64", "has no range"),
        ("vae_decoder/latents=1x5x64x64", "fixed to 4"),
        (
            "unet/sample=2x4x66x64,unet/encoder_hidden_states=2x77x2048,unet/text_embeds=2x1280,unet/time_ids=2x6",
            "66x64 cannot be halved",
        ),
    ],
)
def test_profiles_that_cannot_be(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(spec)
