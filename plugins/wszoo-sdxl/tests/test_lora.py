from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from wszoo_sdxl.layout import read_layout
from wszoo_sdxl.load import load
from wszoo_sdxl.lora import Lora, components_of, parse
from wszoo_sdxl.lora_names import aliases

from wszoo.errors import BuildError, MalformedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

RANK, ALPHA = 2, 4.0
LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.1.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"


def pair(weight: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Down ``(r, in, ...)`` and up ``(out, r, 1, ...)``."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(RANK, *weight.shape[1:], generator=generator)
    return down, torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator)


def merged(base: Path, component: str, *loras: Lora, precision: str = "fp32") -> dict[str, torch.Tensor]:
    return load(read_layout(base, component), component, precision, loras).state_dict()


def expected(weight: torch.Tensor, factor: float, seed: int = 0) -> torch.Tensor:
    down, up = pair(weight, seed)
    return weight + factor * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)


SPELLINGS = {
    "peft": ("unet.{dotted}.lora_A.weight", "unet.{dotted}.lora_B.weight", ""),
    "peft, saved by itself": (
        "base_model.model.{dotted}.lora_A.default.weight",
        "base_model.model.{dotted}.lora_B.default.weight",
        "",
    ),
    "diffusers": ("unet.{dotted}.lora.down.weight", "unet.{dotted}.lora.up.weight", "unet.{dotted}.alpha"),
    "without the unet's name": ("{dotted}.lora_A.weight", "{dotted}.lora_B.weight", "{dotted}.alpha"),
    "kohya": ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight", "lora_unet_{flat}.alpha"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("module", [LINEAR, OUT, CONV])
def test_every_spelling_changes_that_one_weight(base: Path, tmp_path: Path, spelling: str, module: str) -> None:
    plain = merged(base, "unet")
    name = f"{module}.weight"
    down, up = pair(plain[name])
    keys = [text.format(dotted=module, flat=module.replace(".", "_")) for text in SPELLINGS[spelling]]
    tensors = {keys[0]: down, keys[1]: up} | ({keys[2]: torch.tensor(ALPHA)} if keys[2] else {})
    save_file(tensors, tmp_path / "style.safetensors")
    found = merged(base, "unet", Lora(tmp_path / "style.safetensors", 0.5))
    factor = 0.5 * (ALPHA / RANK if keys[2] else 1)
    torch.testing.assert_close(found[name], expected(plain[name], factor))
    assert [key for key in plain if not torch.equal(plain[key], found[key])] == [name]


def test_attention_processors_of_diffusers_first_loras(base: Path, tmp_path: Path) -> None:
    plain = merged(base, "unet")
    head = LINEAR.removesuffix(".to_q")
    for tail, name in (("to_q", LINEAR), ("to_out", OUT)):
        down, up = pair(plain[f"{name}.weight"])
        keys = [f"unet.{head}.processor.{tail}_lora.{half}.weight" for half in ("down", "up")]
        save_file(dict(zip(keys, (down, up), strict=True)), tmp_path / "old.safetensors")
        found = merged(base, "unet", Lora(tmp_path / "old.safetensors"))
        torch.testing.assert_close(found[f"{name}.weight"], expected(plain[f"{name}.weight"], 1.0))


def test_the_tiny_models_lora_fits_it(base: Path, tmp_path: Path) -> None:
    from wszoo_sdxl import tiny

    plain = merged(base, "unet")
    found = merged(base, "unet", Lora(tiny.make_lora(tmp_path / "style.safetensors"), 0.8))
    assert sum(not torch.equal(plain[key], found[key]) for key in plain) == 1


@pytest.mark.parametrize(
    ("component", "key"),
    [
        ("text_encoder", "lora_te1_text_model_encoder_layers_1_self_attn_q_proj"),
        ("text_encoder", "text_encoder.text_model.encoder.layers.1.self_attn.q_proj"),
        ("text_encoder_2", "lora_te2_text_model_encoder_layers_1_self_attn_q_proj"),
        ("text_encoder_2", "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj"),
    ],
)
def test_text_encoders_are_changed_too(base: Path, tmp_path: Path, component: str, key: str) -> None:
    plain = merged(base, component)
    name = next(name for name in plain if name.endswith(f"{TEXT}.weight"))
    halves = ("lora_down", "lora_up") if key.startswith("lora_") else ("lora_A", "lora_B")
    tensors = {f"{key}.{half}.weight": part for half, part in zip(halves, pair(plain[name]), strict=True)}
    save_file(tensors, tmp_path / "words.safetensors")
    lora = Lora(tmp_path / "words.safetensors")
    assert components_of(lora) == {component}
    torch.testing.assert_close(merged(base, component, lora)[name], expected(plain[name], 1.0))
    unchanged = merged(base, "unet", lora)
    assert all(torch.equal(tensor, unchanged[key]) for key, tensor in merged(base, "unet").items())


def test_alpha_in_the_header_counts(base: Path, tmp_path: Path) -> None:
    plain = merged(base, "unet")[f"{LINEAR}.weight"]
    down, up = pair(plain)
    tensors = {f"unet.{LINEAR}.lora_A.weight": down, f"unet.{LINEAR}.lora_B.weight": up}
    for stored, factor in (
        ({"unet.lora_alpha": 6}, 3.0),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {LINEAR: 1}}, 0.5),
    ):
        save_file(tensors, tmp_path / "style.safetensors", {"lora_adapter_metadata": json.dumps(stored)})
        found = merged(base, "unet", Lora(tmp_path / "style.safetensors"))
        torch.testing.assert_close(found[f"{LINEAR}.weight"], expected(plain, factor))
    save_file(tensors, tmp_path / "style.safetensors", {"lora_adapter_metadata": '{"unet.use_rslora": true}'})
    with pytest.raises(BuildError, match="use_rslora"):
        merged(base, "unet", Lora(tmp_path / "style.safetensors"))


def test_several_are_added_in_fp32_and_rounded_once(base: Path, tmp_path: Path) -> None:
    plain = merged(base, "unet")[f"{LINEAR}.weight"]
    loras, exact = [], plain
    for seed in (1, 2):
        down, up = pair(plain, seed)
        path = tmp_path / f"{seed}.safetensors"
        save_file({f"unet.{LINEAR}.lora_A.weight": down, f"unet.{LINEAR}.lora_B.weight": up}, path)
        loras.append(Lora(path, 0.001))
        exact = expected(exact, 0.001, seed)
    found = merged(base, "unet", *loras, precision="fp16")[f"{LINEAR}.weight"]
    assert torch.equal(found, exact.half())


def test_names_of_stabilitys_code() -> None:
    pairs = {
        "conv_in": "input_blocks_0_0",
        "down_blocks.0.resnets.1.conv2": "input_blocks_2_0_out_layers_3",
        "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
        "down_blocks.1.attentions.0.proj_in": "input_blocks_4_1_proj_in",
        "down_blocks.2.attentions.1.transformer_blocks.9.norm1": "input_blocks_8_1_transformer_blocks_9_norm1",
        "mid_block.resnets.1.time_emb_proj": "middle_block_2_emb_layers_1",
        "mid_block.attentions.0.transformer_blocks.3.attn2.to_k": "middle_block_1_transformer_blocks_3_attn2_to_k",
        "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.2": "output_blocks_2_1_transformer_blocks_0_ff_net_2",
        "up_blocks.1.upsamplers.0.conv": "output_blocks_5_2_conv",
        "up_blocks.2.resnets.0.conv_shortcut": "output_blocks_6_0_skip_connection",
    }
    found = aliases("unet", pairs)
    assert {alias: found[alias] for alias in pairs.values()} == {alias: name for name, alias in pairs.items()}


def test_names_agree_with_diffusers_own_translation(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            block_out_channels=[32, 64, 64],
            layers_per_block=2,
            transformer_layers_per_block=[1, 1, 2],
            attention_head_dim=4,
        )
    names = [name.removesuffix(".weight") for name in unet.state_dict() if ".attn" in name and name.endswith("weight")]
    stabilitys = {
        name: alias for alias, name in aliases("unet", names).items() if alias.startswith(("input", "middle", "output"))
    }
    assert stabilitys.keys() == set(names)
    tensors = {}
    for number, alias in enumerate(stabilitys.values()):
        key = f"lora_unet_{alias}"
        tensors |= {f"{key}.lora_down.weight": torch.full((1, 1), number), f"{key}.alpha": torch.tensor(1.0)}
        tensors[f"{key}.lora_up.weight"] = torch.ones(1, 1)
    save_file(tensors, tmp_path / "kohya.safetensors")
    read = StableDiffusionXLPipeline.lora_state_dict(tmp_path / "kohya.safetensors", unet_config=unet.config)[0]
    downs = {key: int(tensor) for key, tensor in read.items() if key.endswith("lora.down.weight")}
    assert len(downs) == len(names)
    for key, number in downs.items():
        name = key.removeprefix("unet.").removesuffix("_lora.down.weight").replace(".processor.", ".")
        assert name == list(stabilitys)[number].removesuffix(".0")


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (
            {f"unet.{LINEAR}.lora_A.weight": (2, 9), f"unet.{LINEAR}.lora_B.weight": (64, 2)},
            BuildError,
            r"\[2, 9\].*\[64, 64\]",
        ),
        ({f"unet.{LINEAR}.lora_A.weight": (3, 64), f"unet.{LINEAR}.lora_B.weight": (64, 2)}, BuildError, r"\[3, 64\]"),
        ({"unet.other.lora_A.weight": (2, 9), "unet.other.lora_B.weight": (9, 2)}, BuildError, "unet.other.lora_A"),
        ({f"unet.{LINEAR}.lora_A.weight": (2, 64)}, MalformedError, "a pair is needed"),
        ({f"unet.{LINEAR}.hada_w1_a": (2, 64)}, BuildError, "hada_w1_a.*not of a LoRA"),
        ({f"unet.{LINEAR}.dora_scale": (2, 64)}, BuildError, "dora_scale"),
        ({"transformer.x.lora_A.weight": (2, 9)}, BuildError, "names none of unet"),
    ],
)
def test_loras_that_do_not_fit_name_the_key_and_the_shapes(
    base: Path, tmp_path: Path, tensors: dict[str, tuple[int, ...]], error: type[Exception], message: str
) -> None:
    save_file({key: torch.ones(shape) for key, shape in tensors.items()}, tmp_path / "bad.safetensors")
    with pytest.raises(error, match=message):
        merged(base, "unet", Lora(tmp_path / "bad.safetensors"))


def test_what_users_write(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (first, second):
        path.write_bytes(b"")
    assert parse(f"{first}:0.5, {second}") == (Lora(first, 0.5), Lora(second))
    assert parse(f"{first}:-1")[0].scale == -1
    assert parse("") == ()
    assert str(Lora(first, 0.5)) == "a.safetensors:0.5"


def test_what_users_should_not_write(tmp_path: Path) -> None:
    good, pickle = tmp_path / "a.safetensors", tmp_path / "a.pt"
    for path in (good, pickle):
        path.write_bytes(b"")
    for text in (f"{good}:much", f"{good}:inf", f"{good}:"):
        with pytest.raises(UsageError, match="scale"):
            parse(text)
    with pytest.raises(NotFoundError, match="nowhere"):
        parse("nowhere.safetensors")
    with pytest.raises(UsageError, match="pickle"):
        parse(str(pickle))
