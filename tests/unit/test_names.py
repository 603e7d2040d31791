"""Grammars of refs, targets and file names."""

from __future__ import annotations

import pytest

from wszoo.errors import MalformedError, UsageError
from wszoo.names import Ref, TargetSpec, capability_key, compute_capability, is_portable_file_name, sm_name

PIN = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "name", "tag", "pinned"),
    [
        ("sdxl", "sdxl", "latest", False),
        ("sdxl:1.0", "sdxl", "1.0", False),
        ("acme/sdxl:1.0", "acme/sdxl", "1.0", False),
        ("a.b_c__d-e--f/g:_T-a.G", "a.b_c__d-e--f/g", "_T-a.G", False),
        (f"sdxl@{PIN}", "sdxl", "latest", True),
        (f"sdxl:1@{PIN}", "sdxl", "1", True),
        ("x:" + "t" * 128, "x", "t" * 128, False),
        ("n" * 200, "n" * 200, "latest", False),
    ],
)
def test_refs_that_are_accepted(text, name, tag, pinned):
    ref = Ref.parse(text)
    assert (ref.name, ref.tag, ref.digest) == (name, tag, PIN if pinned else None)
    assert Ref.parse(str(ref)) == ref
    assert ref.tagged == f"{name}:{tag}"
    assert ref.unpinned.digest is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":1",
        "a:",
        "A",
        "a b",
        "a//b",
        "/a",
        "a/",
        "../a",
        "a/../b",
        ".a",
        "a.",
        "a..b",
        "a___b",
        "a\\b",
        "a:b:c",
        "a:b/c",
        "a:-b",
        "a:.b",
        "a:" + "t" * 129,
        "n" * 201,
        "a\n",
        "a:b\n",
        "é",
        "a:é",
        "a\0",
        "localhost:5000/a:b",
    ],
)
def test_refs_that_are_refused_are_named(text):
    with pytest.raises(UsageError) as caught:
        Ref.parse(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("pin", ["", "x", PIN[:-1], PIN.upper(), PIN + "\n", f"{PIN}@{PIN}", PIN[7:]])
def test_a_pin_that_is_no_digest_is_refused_and_never_dropped(pin):
    """``sdxl@$DIGEST`` with an empty variable must not become an unpinned ref."""
    with pytest.raises(MalformedError):
        Ref.parse(f"sdxl@{pin}")


@pytest.mark.parametrize(
    ("text", "prefix", "capabilities", "plus"),
    [
        ("portable", "portable", (), False),
        ("rtx-sm89", "rtx", ("8.9",), False),
        ("rtx-sm120-sm86", "rtx", ("8.6", "12.0"), False),
        ("trt-sm80+", "trt", ("8.0",), True),
        ("my_backend2-sm90", "my_backend2", ("9.0",), False),
    ],
)
def test_targets_that_are_accepted(text, prefix, capabilities, plus):
    spec = TargetSpec.parse(text)
    assert (spec.prefix, spec.compute_capabilities, spec.plus) == (prefix, capabilities, plus)
    assert TargetSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-sm89",
        "rtx-",
        "rtx-89",
        "rtx-sm8",
        "rtx-sm1234",
        "rtx-sm089",
        "rtx-sm\uff18\uff19",
        "rtx-sm٨٩",
        "rtx-SM89",
        "rtx sm89",
        "rtx-sm89++",
        "rtx-sm89-sm89",
        "RTX-sm89",
        "9rtx-sm89",
        "rtx-sm89\n",
        "+",
    ],
)
def test_targets_that_are_refused_are_named(text):
    with pytest.raises(UsageError) as caught:
        TargetSpec.parse(text)
    assert repr(text) in caught.value.message
    assert "rtx-sm89" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "written", "options"),
    [
        ("trt-sm89.same-cc", "trt-sm89.same-cc", ("same-cc",)),
        ("trt-sm80+.version-compatible.refit", "trt-sm80+.refit.version-compatible", ("refit", "version-compatible")),
        ("rtx-sm89.strip.strip", "rtx-sm89.strip", ("strip",)),
    ],
)
def test_options_of_a_target_stand_behind_dots(text, written, options):
    spec = TargetSpec.parse(text)
    assert (str(spec), spec.options) == (written, options)
    assert TargetSpec.parse(written) == spec


@pytest.mark.parametrize(
    "text", ["rtx-sm89.", "rtx-sm89..strip", "rtx-sm89.Strip", "rtx-sm89.a b", "rtx.strip-", ".strip"]
)
def test_an_option_that_is_no_word_is_refused(text):
    with pytest.raises(UsageError, match="not a target"):
        TargetSpec.parse(text)


@pytest.mark.parametrize(("text", "hint"), [("trt-sm89.fast", "options of trt targets: a, b"), ("portable.x", "none")])
def test_an_unknown_option_is_refused_with_those_that_there_are(text, hint):
    with pytest.raises(UsageError, match="no option") as caught:
        TargetSpec.parse(text).refuse_options("ba" if text.startswith("trt") else ())
    assert hint in caught.value.hint


def test_capabilities_sort_as_numbers():
    assert compute_capability("sm120") == "12.0"
    assert sm_name("12.0") == "sm120"
    assert sorted(["12.0", "8.9", "10.0", "8.6"], key=capability_key) == ["8.6", "8.9", "10.0", "12.0"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "con",
        "CON",
        "Con.txt",
        "con .txt",
        "nul.tar.gz",
        "PRN",
        "aux.h",
        "com0",
        "COM1.log",
        "lpt9",
        "COM¹",
        "lpt³.txt",
        "CONIN$",
        "conout$",
        "a.",
        "a ",
        "a/b",
        "a\\b",
        "a:b",
        "a?",
        "a*",
        'a"',
        "a<b",
        "a|b",
        "a\0",
        "a\n",
        "a\x1f",
        "\ud800",
        "x" * 256,
        "é" * 128,
    ],
)
def test_names_that_some_system_refuses_are_not_portable(name):
    assert not is_portable_file_name(name)


@pytest.mark.parametrize(
    "name", ["labels.txt", "console.txt", "com10", "auxiliary", ".hidden", "a b", "x" * 255, "é" * 127, "COM", "日本語"]
)
def test_ordinary_names_are_portable(name):
    assert is_portable_file_name(name)
