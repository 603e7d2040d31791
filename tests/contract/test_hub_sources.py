"""Models to build from the Hub: only what a family needs is downloaded, with huggingface_hub against a simulator."""

from __future__ import annotations

import pytest
from contract.hub_simulator import REPO, TOKEN, HubSimulator
from contract.servers import threaded

from wszoo.building.sources import chooser, fetch_source
from wszoo.errors import NotFoundError, RemoteError
from wszoo.families.protocol import SourceRequest
from wszoo.names import TargetSpec
from wszoo.progress import Silent

SOURCE = f"hf:{REPO}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with threaded(HubSimulator()) as server:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        yield server


def upload(hub, *names):
    hub.commits.append({name: name.encode() for name in names})


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Anything:
    """A family that does not choose."""


def fetched(hub, family=None, **request):
    return files(fetch_source(SOURCE, Silent(), chooser(family or Anything(), SourceRequest(**request))))


def test_pickles_and_pictures_stay_where_they_are(hub):
    upload(hub, "config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "art.png", "a/net.onnx")
    assert fetched(hub) == {"config.json", "model.safetensors", "a/net.onnx"}


def test_a_family_may_choose(hub):
    class Picky:
        def choose_files(self, names, request):
            return [name for name in names if request.precision in name]

    upload(hub, "config.json", "fp16.safetensors", "fp32.safetensors", "odd[1].fp16")
    assert fetched(hub, Picky(), precision="fp16") == {"fp16.safetensors", "odd[1].fp16"}


def test_a_repository_without_anything_that_is_needed_says_so(hub):
    upload(hub, "art.png")
    with pytest.raises(NotFoundError, match="no file that could be used"):
        fetched(hub)


def test_what_was_downloaded_before_serves_offline(hub, monkeypatch):
    upload(hub, "config.json", "model.safetensors", "other.bin")
    assert fetched(hub) == {"config.json", "model.safetensors"}
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    seen = len(hub.seen)
    assert fetched(hub) == {"config.json", "model.safetensors"}
    assert len(hub.seen) == seen


def test_a_repository_that_does_not_exist_is_not_found(hub):
    with pytest.raises((NotFoundError, RemoteError), match="acme/nothing"):
        fetch_source("hf:acme/nothing", Silent())


PARTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
SMALL = {
    "model_index.json",
    "README.md",
    "scheduler/scheduler_config.json",
    *(f"tokenizer{number}/{name}" for number in ("", "_2") for name in ("vocab.json", "merges.txt")),
    *(f"{part}/config.json" for part in PARTS),
}


def sdxl(hub):
    """The names that SDXL base's repository has."""
    weights = [f"{part}/{stem}{dot}" for part, stem in PARTS.items() for dot in (".safetensors", ".fp16.safetensors")]
    more = [
        *(f"{part}/{name}" for part in PARTS for name in ("flax_model.msgpack", "model.onnx", "model.onnx_data")),
        *("sd_xl_base_1.0.safetensors", "sd_xl_offset_example-lora_1.0.safetensors", "pipeline.png", ".gitattributes"),
        *("vae_1_0/config.json", "vae_1_0/diffusion_pytorch_model.safetensors", "unet/openvino_model.bin"),
        *("vae_decoder/config.json", "vae_decoder/model.onnx", "tokenizer/special_tokens.png"),
    ]
    upload(hub, *SMALL, *weights, *more)


@pytest.mark.parametrize(
    ("request_", "weights"),
    [
        (
            {},
            {
                "text_encoder/model.fp16.safetensors",
                "text_encoder_2/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.safetensors",  # the VAE is fp32
            },
        ),
        (
            {"precision": "fp32", "options": {"components": "unet,text_encoder"}},
            {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"},
        ),
        (
            {"options": {"components": "vae_decoder", "vae-precision": "fp16"}, "targets": (TargetSpec("portable"),)},
            {"vae/diffusion_pytorch_model.fp16.safetensors"},
        ),
    ],
    ids=["all", "some in fp32", "an fp16 VAE"],
)
def test_sdxl_takes_the_variant_that_it_exports_from_and_nothing_twice(hub, sdxl_family, request_, weights):
    sdxl(hub)
    assert fetched(hub, sdxl_family, **request_) == SMALL | weights


def test_sdxl_takes_shards_with_their_index_and_the_only_variant_there_is(hub, sdxl_family):
    shards = {f"unet/diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    shards |= {"unet/diffusion_pytorch_model.safetensors.index.json"}
    half = {f"text_encoder/model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)}
    half |= {"text_encoder/model.safetensors.index.fp16.json"}
    upload(hub, *SMALL, *shards, *half, "text_encoder/model.safetensors")
    assert fetched(hub, sdxl_family) == SMALL | shards | half


def test_sdxl_finds_nothing_in_a_repository_of_another_layout(hub, sdxl_family):
    upload(hub, "sd_xl_base_1.0.safetensors", "config.json")
    with pytest.raises(NotFoundError, match="no file that could be used"):
        fetched(hub, sdxl_family)


@pytest.fixture
def sdxl_family(monkeypatch):
    import sys
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "plugins" / "wszoo-sdxl" / "src"))
    from wszoo_sdxl.family import SdxlFamily

    yield SdxlFamily()
    for name in [name for name in sys.modules if name.startswith("wszoo_sdxl")]:
        del sys.modules[name]
