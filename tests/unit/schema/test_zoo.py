"""zoo.toml: what it may say, and what a mistake in it is told."""

import pytest

from wszoo.errors import LimitError, MalformedError
from wszoo.names import Ref
from wszoo.schema.zoo import MAX_ZOO, decode_zoo

MODEL = '[models."net:1"]\nfamily = "onnx"\nsource = "net.onnx"\n'


def decode(text):
    return decode_zoo(text.encode())


def test_what_stands_at_the_top_holds_for_models_that_say_nothing():
    zoo = decode(
        'licence = "MIT"\ntargets = ["portable"]\n'
        + MODEL
        + '[models.other]\nfamily="onnx"\nsource="o"\nlicence="ISC"\n'
    )
    net, other = zoo.models[Ref.parse("net:1")], zoo.models[Ref.parse("other")]
    assert (net.licence, net.targets) == ("MIT", ("portable",))
    assert (other.licence, other.targets) == ("ISC", ("portable",))


def test_a_model_without_targets_is_refused():
    with pytest.raises(MalformedError, match="'net:1' has no targets"):
        decode(MODEL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing required field `models`"),
        ("models = {}", "length >= 1"),
        ("[models", "Expected ']'"),
        (
            'targets = ["portable"]\n[models."net:1"]\nfamily = "onnx"\n',
            "'net:1' is malformed: .*missing required field `source`",
        ),
        (
            'targets = ["portable"]\n' + MODEL + "options = {a = 1}\n",
            r"Expected `str`, got `int` - at `\$\.options\[\.\.\.\]`",
        ),
        ('targets = [""]\n' + MODEL, r"length >= 1 - at `\$\.targets\[0\]`"),
        ('targets = ["portable"]\n' + MODEL.replace("net:1", "net:1@sha256:" + "0" * 64), "is pinned"),
        (
            'targets = ["portable"]\n' + MODEL.replace("net:1", "net:latest") + MODEL.replace("net:1", "net"),
            "there twice",
        ),
        ('[signing]\nkeys = "k"\n' + MODEL, r"unknown field `keys` - at `\$\.signing`"),
    ],
    ids=["empty", "no models", "no toml", "no source", "option type", "empty target", "pin", "twice", "signing"],
)
def test_a_mistake_is_told_with_its_path(text, message):
    with pytest.raises(MalformedError, match=message):
        decode(text)


def test_names_from_outside_cannot_steer_a_terminal():
    with pytest.raises(MalformedError) as error:
        decode('targets = ["portable"]\n' + MODEL.replace("net:1", "\\u001b[2Jnet"))
    assert "\x1b" not in error.value.message


def test_a_file_larger_than_any_zoo_is_not_read():
    with pytest.raises(LimitError):
        decode_zoo(b" " * (MAX_ZOO + 1))


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(MalformedError):
        decode_zoo(b"\xff\xfe")
