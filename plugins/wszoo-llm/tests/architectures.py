"""Which architectures can be exported: a Markdown table, made by exporting a tiny model of each.

    python plugins/wszoo-llm/tests/architectures.py [NAME ...]

Each has six layers, of which those are traced that stand for the others (:mod:`wszoo_llm.layers`), and all of it is
compared with transformers as ``wszoo build`` does it. What fails is listed with the reason.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import transformers
from wszoo_llm import tiny
from wszoo_llm.family import LlmFamily

from wszoo.errors import WszooError
from wszoo.testing.families import export_request

LAYERS = 6
GEMMA3 = ["sliding_attention"] * 3 + ["full_attention"] + ["sliding_attention"] * 2
# Besides tiny.KINDS: the configuration's class, and what differs from tiny.SIZES.
MORE = {
    "olmo2": ("Olmo2Config", {}),
    "granite": ("GraniteConfig", {}),
    "stablelm": ("StableLmConfig", {}),
    "starcoder2": ("Starcoder2Config", {"sliding_window": 16}),
    "cohere": ("CohereConfig", {}),
    "smollm3": ("SmolLM3Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt2": ("GPT2Config", {"n_embd": 128, "n_head": 4, "n_positions": 256}),
    "gptj": ("GPTJConfig", {"n_embd": 128, "n_head": 4, "n_positions": 256, "rotary_dim": 16}),
    "opt": ("OPTConfig", {"ffn_dim": 256, "word_embed_proj_dim": 128}),
    "falcon": ("FalconConfig", {}),
    "bloom": ("BloomConfig", {"n_head": 4}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "mamba": ("MambaConfig", {"state_size": 4}),
}


def attempt(name: str, folder: Path) -> tuple[str, str, str, str]:
    """The configuration's class, what came out, the layers that were traced, and the largest error."""
    kind = tiny.KINDS[name][0]
    try:
        changes = {"layer_types": GEMMA3} if name == "gemma3" else {}
        tiny.make(folder / name, name, num_hidden_layers=LAYERS, **changes)
        export = LlmFamily().export(export_request(folder / name, folder / f"{name}-scratch"))
        list(export.components)
    except WszooError as error:
        return kind, error.message.replace("|", "/").splitlines()[0][:160], "", ""
    except Exception as error:  # noqa: BLE001 - transformers cannot make or save it: no architecture is to end the table
        return kind, f"not made: {type(error).__name__}: {str(error).splitlines()[0][:120]}", "", ""
    return kind, "exported", export.options["traced_layers"], export.options["error"].split()[0]


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    transformers.logging.set_verbosity_error()
    tiny.KINDS.update(MORE)
    names = sys.argv[1:] or list(tiny.KINDS)
    write("| model | configuration | result | layers traced | error |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            write("| " + " | ".join((name, *attempt(name, Path(folder)))) + " |")


if __name__ == "__main__":
    main()
