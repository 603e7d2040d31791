from __future__ import annotations

from wszoo_llm import network, presets

from wszoo.schema.model import Value

INPUTS = [
    Value(name="input_ids", dtype="int64", shape=("batch", "length")),
    Value(name="attention_mask", dtype="int64", shape=("batch", "total")),
    Value(name="past_key_values.0.key", dtype="float16", shape=("batch", 2, "past", 64)),
]


def test_one_name_is_prefill_and_decode_of_one_context() -> None:
    (prefill, decode), context = presets.profiles(INPUTS, ["b4-c128"], trained=4096)
    assert (prefill.name, decode.name, context) == ("prefill", "decode", 128)
    assert [prefill.inputs["input_ids"].min, prefill.inputs["input_ids"].max] == [(1, 1), (4, 128)]
    assert prefill.inputs["past_key_values.0.key"].max == (4, 2, 0, 64)
    assert [decode.inputs["input_ids"].min, decode.inputs["input_ids"].max] == [(1, 1), (4, 1)]
    assert decode.inputs["past_key_values.0.key"].max == (4, 2, 127, 64)
    assert decode.inputs["attention_mask"].max == (4, 128)


def test_several_names_keep_their_profiles_apart() -> None:
    found, context = presets.profiles(INPUTS, ["c16", "b2-c64"], trained=4096)
    assert [profile.name for profile in found] == ["c16-prefill", "c16-decode", "b2-c64-prefill", "b2-c64-decode"]
    assert context == 64


def test_one_profile_for_both_is_best_at_a_token_after_others() -> None:
    (both,), _ = presets.profiles(INPUTS, ["c128-one"], trained=4096)
    assert both.name == "both"
    ids, past = both.inputs["input_ids"], both.inputs["past_key_values.0.key"]
    assert (ids.min, ids.opt, ids.max) == ((1, 1), (1, 1), (1, 128))
    assert (past.min[2], past.opt[2], past.max[2]) == (0, 64, 127)
    assert both.inputs["attention_mask"].max == (1, 128)


def test_default_is_one_sequence_no_longer_than_the_model_was_made_for() -> None:
    assert presets.profiles(INPUTS, [], trained=1 << 17)[1] == 2048
    assert presets.profiles(INPUTS, [], trained=256)[1] == 256


def test_every_layer_has_a_key_and_a_value_in_the_order_of_the_layers() -> None:
    assert network.input_names(2)[3:] == [
        "past_key_values.0.key",
        "past_key_values.0.value",
        "past_key_values.1.key",
        "past_key_values.1.value",
    ]
    assert network.output_names(1) == ["logits", "present.0.key", "present.0.value"]
