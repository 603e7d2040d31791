"""What is wrong with a folder is said by name, before anything is exported."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from wszoo_llm import network, source, tiny, weights
from wszoo_llm.family import LlmFamily

from wszoo.errors import BuildError, IntegrityError, MalformedError, NotFoundError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


Request = "Callable[..., ExportRequest]"


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_only_transformers_own_layout_is_downloaded_and_code_when_asked_for() -> None:
    wanted = ["config.json", "generation_config.json", "model-00001-of-00002.safetensors"]
    wanted += ["model.safetensors.index.json", "tokenizer.json", "README.md"]
    others = ["consolidated.safetensors", "original/params.json", "pytorch_model.bin", "onnx/model.onnx", "model.gguf"]
    names = [*wanted, *others, "modeling_own.py"]
    assert source.choose_files(names) == wanted
    assert source.choose_files(names, remote_code=True) == [*wanted, "modeling_own.py"]


def test_unknown_architecture_is_named(copy: Path, request_for: Request) -> None:
    configure(copy, model_type="frobnicator", architectures=["FrobnicatorForCausalLM"])
    with pytest.raises(BuildError, match=r"'FrobnicatorForCausalLM' \(model_type 'frobnicator'\)") as caught:
        LlmFamily().export(request_for(copy))
    assert "exporter of its own" in caught.value.hint


def test_architecture_with_another_state_is_refused_by_name(tmp_path: Path, request_for: Request) -> None:
    import transformers

    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mamba")
    export = LlmFamily().export(request_for(tmp_path / "mamba"))
    with pytest.raises(BuildError, match="MambaForCausalLM does not run with a cache of keys and values"):
        list(export.components)


def test_mixture_of_experts_is_refused_by_name(copy: Path, request_for: Request) -> None:
    configure(copy, model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=4)
    with pytest.raises(BuildError, match="a mixtral sends tokens to experts"):
        LlmFamily().export(request_for(copy))


def test_code_in_the_folder_is_not_run_unless_allowed(copy: Path, request_for: Request, tmp_path: Path) -> None:
    proof = tmp_path / "code-ran"
    code = f"from pathlib import Path\nPath({str(proof)!r}).touch()\nraise ValueError('its code')\n"
    (copy / "configuration_own.py").write_text(code)
    configure(copy, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    with pytest.raises(UsageError, match="brings its own Python code") as caught:
        LlmFamily().export(request_for(copy))
    assert "--option remote-code=yes" in caught.value.hint
    assert not proof.exists()


@pytest.fixture
def own_code(copy: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A folder with an architecture of its own, and the file that its code makes when it runs."""
    proof = tmp_path / "code-ran"
    (copy / "configuration_own.py").write_text(
        f"from pathlib import Path\nfrom transformers import LlamaConfig\nPath({str(proof)!r}).touch()\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (copy / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    places = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    configure(copy, model_type="own", architectures=["OwnForCausalLM"], auto_map=places)
    return copy, proof


def test_code_in_the_folder_is_run_and_compared_when_it_is_allowed(
    own_code: tuple[Path, Path], request_for: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # transformers copies such code into a folder of its own, and imports it from there.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, proof = own_code
    with pytest.raises(UsageError, match="brings its own Python code"):
        LlmFamily().export(request_for(folder))
    with pytest.raises(UsageError, match="brings its own Python code"):
        LlmFamily().export(request_for(folder, remote_code="no"))
    assert not proof.exists()
    export = LlmFamily().export(request_for(folder, remote_code="yes"))
    (component,) = export.components
    assert proof.exists()
    assert export.options["architecture"] == "own"
    assert export.options["compared_with"] == "transformers, all layers"
    assert "model.layers.1.mlp.up_proj.weight" in {tensor.name for tensor in component.graph.tensors}


def test_code_beside_a_known_architecture_is_ignored(copy: Path) -> None:
    (copy / "configuration_own.py").write_text("raise ValueError('its code')\n")
    configure(copy, auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    assert source.read_source(copy).model_type == "llama"


def test_missing_shard_is_named(copy: Path, request_for: Request) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(NotFoundError, match=shard.name):
        LlmFamily().export(request_for(copy))


def test_shard_that_was_cut_off_is_named(copy: Path, request_for: Request) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(MalformedError, match=shard.name):
        LlmFamily().export(request_for(copy))


def test_shard_of_another_version_is_noticed(copy: Path, request_for: Request) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, shard)
    with pytest.raises(IntegrityError, match=r"index.json and the shards disagree about"):
        LlmFamily().export(request_for(copy))


def test_header_larger_than_the_file_is_refused(copy: Path, request_for: Request) -> None:
    shard = min(copy.glob("*.safetensors"))
    shard.write_bytes(struct.pack("<Q", 1 << 62) + shard.read_bytes()[8:])
    with pytest.raises(MalformedError, match="was cut off"):
        LlmFamily().export(request_for(copy))


def test_folder_of_pickles_is_refused(copy: Path, request_for: Request) -> None:
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match="pickle"):
        LlmFamily().export(request_for(copy))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"precision": "int3"}, "no precision 'int3'"),
        ({"compute": "fp16"}, "does not go with"),
        ({"precision": "int4", "compute": "int8"}, "does not go with"),
        ({"logits": "some"}, "logits='some' is none of last, all"),
        ({"quantizer": "x"}, "no option named 'quantizer'"),
    ],
)
def test_unknown_quantization_and_options_are_refused(
    llama: Path, request_for: Request, given: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        LlmFamily().export(request_for(llama, **given))


@pytest.mark.parametrize("profile", ["c1", "c100000", "prefill", "b0-c16"])
def test_profile_that_makes_no_sense_is_refused(llama: Path, request_for: Request, profile: str) -> None:
    with pytest.raises(UsageError, match="--profile"):
        LlmFamily().export(request_for(llama, profile))


def test_weights_that_are_no_numbers_are_named(copy: Path, request_for: Request) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    name = next(iter(tensors))
    tensors[name].view(-1)[5] = float("inf")
    save_file(tensors, shard)
    with pytest.raises(BuildError, match=f"NaN or infinity: {name}"):
        list(LlmFamily().export(request_for(copy)).components)


def test_numbers_too_large_for_fp16_are_refused_there(copy: Path, request_for: Request) -> None:
    shard = sorted(copy.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    next(iter(tensors.values())).view(-1)[5] = 1e6
    save_file(tensors, shard)
    with pytest.raises(BuildError, match="NaN or infinity") as caught:
        list(LlmFamily().export(request_for(copy, precision="fp16")).components)
    assert "--precision bf16" in caught.value.hint


def test_config_of_another_size_does_not_fit(copy: Path, request_for: Request) -> None:
    configure(copy, intermediate_size=128)
    with pytest.raises(BuildError, match="does not fit its config"):
        list(LlmFamily().export(request_for(copy)).components)


def test_chatglm_checkpoint_is_read_as_glm_without_its_code(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "glm", "glm")
    plain = source.read_source(folder)
    wanted = weights.place(weights.read_tensors(plain), network.bare_module(plain, "fp32"))

    own = as_chatglm(folder, tmp_path / "chatglm")
    read = source.read_source(own)
    found = weights.place(weights.read_tensors(read), network.bare_module(read, "fp32"))

    assert found.keys() == wanted.keys()
    assert all((found[name].load() == wanted[name].load()).all() for name in wanted)


def test_first_chatglm_is_refused(tmp_path: Path, request_for: Request) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "chatglm", "num_layers": 28}')
    with pytest.raises(BuildError, match="second generation"):
        LlmFamily().export(request_for(tmp_path))


def as_chatglm(folder: Path, to: Path) -> Path:
    """The same weights as ChatGLM3's own code would save them."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors.update(load_file(path))
    layers = {}
    parts = {"o_proj": "self_attention.dense", "gate_up_proj": "mlp.dense_h_to_4h", "down_proj": "mlp.dense_4h_to_h"}
    for layer in range(tiny.SIZES["num_hidden_layers"]):
        theirs, ours = f"model.layers.{layer}", f"transformer.encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            fused = [tensors[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            layers[f"{ours}.self_attention.query_key_value.{kind}"] = torch.cat(fused)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            layers[f"{ours}.{norm}.weight"] = tensors[f"{theirs}.{norm}.weight"]
        for name, tensor in tensors.items():
            leaf = name.removesuffix(".weight").rpartition(".")[2]
            if name.startswith(f"{theirs}.") and leaf in parts:
                layers[f"{ours}.{parts[leaf]}.weight"] = tensor
    layers["transformer.embedding.word_embeddings.weight"] = tensors["model.embed_tokens.weight"]
    layers["transformer.encoder.final_layernorm.weight"] = tensors["model.norm.weight"]
    layers["transformer.output_layer.weight"] = tensors["lm_head.weight"]
    to.mkdir()
    save_file(layers, to / "model.safetensors")
    sizes = tiny.SIZES
    config = {
        "model_type": "chatglm",
        "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig"},
        "padded_vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["hidden_size"],
        "ffn_hidden_size": sizes["intermediate_size"],
        "num_layers": sizes["num_hidden_layers"],
        "num_attention_heads": sizes["num_attention_heads"],
        "multi_query_attention": True,
        "multi_query_group_num": sizes["num_key_value_heads"],
        "kv_channels": 32,
        "add_qkv_bias": True,
        "seq_length": 256,
    }
    (to / "config.json").write_text(json.dumps(config))
    return to
