"""``wszoo run NAME --prompt TEXT``: text in pieces, the chat template, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from wszoo_llm.demo import answer
from wszoo_llm.tokens import Speaker, Tokenizer

from wszoo.errors import MalformedError, NotFoundError, UsageError
from wszoo.families.local import LocalModel
from wszoo.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

Exported = "tuple[LocalModel, dict[str, str]]"


def run(model: LocalModel, *arguments: str) -> tuple[str, list[str], dict[str, Any]]:
    result = answer(model, arguments, Silent())
    pieces = list(result.pieces)
    return "".join(pieces), pieces, dict(result.values)


def without(model: LocalModel, *names: str) -> LocalModel:
    return LocalModel(model.graphs, {name: data for name, data in model.files.items() if name not in names})


def test_text_comes_in_pieces_and_facts_at_the_end(exported: Exported) -> None:
    text, pieces, values = run(exported[0], "--prompt", "Once upon", "--max-tokens", "12")
    (found,) = values["answers"]
    assert text == found["text"] + "\n"
    assert len([piece for piece in pieces if piece]) > 3
    assert values["new_tokens"] == len(found["tokens"]) <= 12
    json.dumps(values)


def test_chat_template_is_used_unless_plain_text_is_asked_for(exported: Exported) -> None:
    tokenizer = Tokenizer(exported[0])
    chat, plain = tokenizer.encode("Once upon"), tokenizer.encode("Once upon", plain=True)
    assert (chat[0], chat[-1]) == (3, 4)  # <|user|> ... <|assistant|>
    assert tokenizer.decode(chat) == tokenizer.decode(plain) == "Once upon"
    lengths = [
        run(exported[0], "--prompt", "Once upon", "--max-tokens", "1", *more)[2]["answers"][0]["prompt_tokens"]
        for more in ((), ("--plain",))
    ]
    assert lengths == [len(chat), len(plain)]


def test_several_prompts_are_answered_together_under_their_numbers(exported: Exported) -> None:
    text, _, values = run(exported[0], "--prompt", "Once", "--prompt", "A reader who reads", "--max-tokens", "4")
    assert len(values["answers"]) == 2
    assert text.startswith("1: ")
    assert "\n2: " in text


def test_tokens_need_no_tokenizer(exported: Exported) -> None:
    bare = without(exported[0], "tokenizer.json", "tokenizer_config.json")
    text, _, values = run(bare, "--tokens", "5,17,300", "--max-tokens", "3")
    assert text.split() == [str(token) for token in values["answers"][0]["tokens"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "word " * 200], "do not fit into 128"),
        (["--max-tokens", "0"], "not a whole number"),
        (["--temperature", "nan"], "not a number"),
        (["--tokens", "a,b"], "no token numbers"),
        (["--tokens", "1", "--prompt", "x"], "exclude each other"),
        (["--prompt", ""], "empty prompt"),
        (["--beams", "4"], "unrecognized arguments"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(exported: Exported, arguments: Sequence[str], words: str) -> None:
    plain = ["--plain"] if "--tokens" not in arguments else []
    with pytest.raises(UsageError, match=words):
        answer(exported[0], [*arguments, *plain], Silent())


def test_model_without_tokenizer_says_what_to_do(exported: Exported) -> None:
    with pytest.raises(NotFoundError, match="without a tokenizer") as caught:
        answer(without(exported[0], "tokenizer.json"), ["--prompt", "x"], Silent())
    assert "--tokens" in caught.value.hint


def test_tokenizer_that_is_none_is_malformed(exported: Exported) -> None:
    files = {**exported[0].files, "tokenizer.json": b"{}"}
    with pytest.raises(MalformedError, match="tokenizer is not understood"):
        answer(LocalModel(exported[0].graphs, files), ["--prompt", "x"], Silent())


def test_chat_template_that_fails_is_malformed(exported: Exported) -> None:
    config = json.loads(exported[0].files["tokenizer_config.json"])
    config["chat_template"] = "{{ raise_exception('no') }}"
    files = {**exported[0].files, "tokenizer_config.json": json.dumps(config).encode()}
    with pytest.raises(MalformedError, match="chat template fails") as caught:
        answer(LocalModel(exported[0].graphs, files), ["--prompt", "x"], Silent())
    assert "--plain" in caught.value.hint


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"vocabulary": 8, "context": 4, "stop": [9]}'])
def test_recipe_that_makes_no_sense_is_malformed(exported: Exported, data: bytes) -> None:
    files = {**exported[0].files, "generation.json": data}
    with pytest.raises(MalformedError, match=r"generation\.json"):
        answer(LocalModel(exported[0].graphs, files), ["--prompt", "x"], Silent())


def test_characters_of_several_tokens_come_out_whole(exported: Exported) -> None:
    tokenizer = Tokenizer(exported[0])
    speaker = Speaker(tokenizer)
    text = "Zwölf Boxkämpfer 猫"
    pieces = [speaker.add(token) for token in tokenizer.encode(text, plain=True)]
    assert "".join(pieces) + speaker.rest() == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces
