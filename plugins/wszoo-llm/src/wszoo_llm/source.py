"""A model's folder: which architecture it is, and whether wszoo can take it without running code from the folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError, NotFoundError, UsageError
from wszoo.families.checkpoints import read_json, refuse_pickles
from wszoo_llm import chatglm
from wszoo_llm.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONFIG = "config.json"
# What tokenizers are made of, as transformers saves them.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)

# Architectures whose state between tokens is no list of keys and values, so that this family's graphs cannot hold it.
_RECURRENT = "mamba", "rwkv", "recurrent", "xlstm", "jamba", "bamba", "zamba", "falcon_h1", "lfm", "next", "linear"
_WEIGHTS = re.compile(r"model(?:-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
_CODE = re.compile(r"[^/]+\.py")
# Where configurations say how many experts there are.
_EXPERTS = "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder that has been looked at.

    Attributes:
        folder: the model's.
        config: transformers' own configuration object, of the text model.
        model_type: as ``config.json`` names it.
        remote_code: the folder's own code may run, because the user said so.
        chatglm: the checkpoint names its tensors as ChatGLM's own code does.
    """

    folder: Path
    config: Any
    model_type: str
    remote_code: bool = False
    chatglm: bool = False

    @property
    def layers(self) -> int:
        """How many decoder layers it has."""
        return int(self.config.num_hidden_layers)


def choose_files(names: Sequence[str], *, remote_code: bool = False) -> list[str]:
    """What of a Hub repository is needed: beside the shards there may lie the same weights in other layouts.

    Args:
        names: every file of the repository.
        remote_code: its own Python code too.
    """
    small = {CONFIG, "generation_config.json", "README.md", *TOKENIZER_FILES}
    return [
        name for name in names if name in small or _WEIGHTS.fullmatch(name) or (remote_code and _CODE.fullmatch(name))
    ]


def read_source(folder: Path, *, remote_code: bool = False) -> Source:
    """Read ``config.json`` and find the architecture.

    Args:
        folder: as transformers saves a model.
        remote_code: run the folder's own Python code where transformers does not know the architecture.

    Raises:
        NotFoundError: no such folder, or no ``config.json`` in it.
        UsageError: a file, pickles, or code that would have to run and may not.
        BuildError: an architecture that this family cannot export; the message says why.
        MalformedError: ``config.json`` is no JSON object.
        MissingExtraError: transformers is not installed.
    """
    _check_folder(folder)
    raw = read_json(folder / CONFIG)
    model_type = str(raw.get("model_type", ""))
    known = _causal()
    if model_type == chatglm.MODEL_TYPE and not remote_code:
        config = chatglm.glm_config(raw)
        return Source(folder=folder, config=config, model_type=model_type, chatglm=True)
    if model_type not in known and not (remote_code and _own_code(raw)):
        raise _refusal(folder, raw, model_type)
    config = _config(folder, remote_code=remote_code and model_type not in known)
    text = config.get_text_config(decoder=True)
    if not isinstance(getattr(text, "num_hidden_layers", None), int):
        raise BuildError(f"{folder / CONFIG} of a {model_type} does not say how many layers it has")
    if any((getattr(text, name, None) or 0) > 1 for name in _EXPERTS):
        raise BuildError(
            f"a {model_type} sends tokens to experts, which a graph of fixed steps cannot follow",
            hint="mixtures of experts need an exporter of their own; see docs/llm.md for what works",
        )
    return Source(folder=folder, config=text, model_type=model_type, remote_code=remote_code)


def _check_folder(folder: Path) -> None:
    hint = "give the folder that holds config.json and the safetensors files, as model.save_pretrained() writes them"
    if folder.is_file():
        raise UsageError(f"{folder} is a file, and the family 'llm' takes transformers' folders", hint=hint)
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}", hint=hint)
    if not (folder / CONFIG).is_file():
        refuse_pickles(folder)
        raise NotFoundError(f"no {CONFIG} in {folder}", hint=hint)


def _causal() -> Mapping[str, Any]:
    auto = require("transformers.models.auto.modeling_auto")
    names: Mapping[str, Any] = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return names


def _own_code(raw: Mapping[str, Any]) -> bool:
    return bool(raw.get("auto_map"))


def _refusal(folder: Path, raw: Mapping[str, Any], model_type: str) -> Exception:
    name = str((raw.get("architectures") or [model_type or "an unnamed architecture"])[0])
    if _own_code(raw):
        return UsageError(
            f"{folder} brings its own Python code for {name!r}, and wszoo does not run code from a model's folder",
            hint="read the code; if you trust it, build with --option remote-code=yes, "
            "or take a version of the model for an architecture that transformers knows",
        )
    reason = "transformers has no causal language model of that type"
    if model_type.startswith("chatglm") or any(word in model_type for word in _RECURRENT):
        reason = "its state between tokens is not a list of keys and values"
    version = require("transformers").__version__
    return BuildError(
        f"the architecture {name!r} (model_type {model_type!r}) cannot be exported: {reason} (transformers {version})",
        hint="a newer transformers may know it; otherwise it needs an exporter of its own, see docs/plugins.md",
    )


def _config(folder: Path, *, remote_code: bool) -> Any:  # noqa: ANN401 - transformers' own class
    transformers = require("transformers")
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code, local_files_only=True)
    except Exception as error:  # whatever a wrong config makes the library raise
        raise BuildError(f"{folder / CONFIG} is not understood: {type(error).__name__}: {error}") from error
