from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wszoo.errors import UsageError
from wszoo.families.profiles import example_spec, profiles_for, profiles_for_components
from wszoo.schema.model import Value
from wszoo.schema.plan import Profile, ShapeRange

IMAGES = Value(name="images", dtype="float32", shape=("batch", 3, 320, 320))
IDS = Value(name="ids", dtype="int64", shape=("batch", "sequence"))
MASK = Value(name="mask", dtype="int64", shape=("batch", "sequence"))
FIXED = Value(name="scale", dtype="float32", shape=(1,))


def ranges(profile: Profile) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {name: (shapes.min, shapes.opt, shapes.max) for name, shapes in profile.inputs.items()}


def test_min_opt_max_and_one_shape_for_all_three() -> None:
    first, second = profiles_for([IMAGES], ["images=1x3x320x320:2x3x320x320:4x3x320x320", "images=8x3x320x320"])
    assert (first.name, second.name) == ("p0", "p1")
    assert ranges(first) == {"images": ((1, 3, 320, 320), (2, 3, 320, 320), (4, 3, 320, 320))}
    assert ranges(second) == {"images": ((8, 3, 320, 320),) * 3}


def test_several_inputs_in_one_spec() -> None:
    (profile,) = profiles_for([IDS, MASK, FIXED], ["ids=1x16:1x77:4x77, mask=1x16:1x77:4x77"])
    assert ranges(profile)["mask"] == ((1, 16), (1, 77), (4, 77))
    assert list(profile.inputs) == ["ids", "mask"]


def test_fixed_input_may_be_named_and_is_left_out() -> None:
    (profile,) = profiles_for([IDS, FIXED], ["scale=1,ids=1x16"])
    assert list(profile.inputs) == ["ids"]


def test_all_shapes_fixed_needs_no_profile() -> None:
    assert profiles_for([FIXED], []) == ()
    assert profiles_for([FIXED], ["scale=1"]) == ()
    with pytest.raises(UsageError, match="leave --profile out"):
        profiles_for([FIXED], ["other=1"])


def test_presets_are_taken_by_name_or_by_default() -> None:
    shape = (1, 3, 320, 320)
    one = Profile(name="one", inputs={"images": ShapeRange(min=shape, opt=shape, max=shape)})
    assert profiles_for([IMAGES], ["one"], presets={"one": one}) == (one,)
    assert profiles_for([IMAGES], [], presets={"one": one}, default="one") == (one,)
    with pytest.raises(UsageError, match=r"'two' is neither[\s\S]*preset: one"):
        profiles_for([IMAGES], ["two"], presets={"one": one})
    with pytest.raises(UsageError, match="'one' is given twice"):
        profiles_for([IMAGES], ["one", "one"], presets={"one": one})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("image=1x3x320x320", r"no input 'image'; the graph takes images"),
        ("images=1x3x320", r"1x3x320 has 3 dimensions, and the input 'images' has 4: batchx3x320x320"),
        ("images=1x4x320x320", r"has 4 on axis 1, where the input 'images' is fixed to 3"),
        ("images=4x3x320x320:2x3x320x320:8x3x320x320", r"'images' has 4:2:8 on axis 0"),
        ("images=1x3x320x320:2x3x320x320", r"neither a shape nor min:opt:max"),
        ("images=0x3x320x320", r"neither a shape"),
        ("images=-1x3x320x320", r"neither a shape"),
        ("images=1×3×320×320", r"neither a shape"),  # noqa: RUF001 - what people paste
        ("images=", r"neither a shape"),
        ("images", r"neither INPUT=SHAPE nor"),
        ("", r"neither INPUT=SHAPE nor"),
        ("images=1x3x320x320,images=1x3x320x320", r"'images' is given twice"),
        ("images=" + "9" * 30 + "x3x320x320", r"neither a shape"),
    ],
)
def test_wrong_spec_names_the_value_and_shows_an_example(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        profiles_for([IMAGES], [spec])
    assert 'for example: --profile "images=1x3x320x320:1x3x320x320:8x3x320x320"' in caught.value.hint


def test_dynamic_input_without_a_range_is_refused() -> None:
    with pytest.raises(UsageError, match="'mask' of shape batchxsequence has no range"):
        profiles_for([IDS, MASK], ["ids=1x16"])
    with pytest.raises(UsageError, match="dynamic inputs and no --profile was given: ids, mask"):
        profiles_for([IDS, MASK], [])


def test_one_dimension_has_one_range_in_all_inputs() -> None:
    with pytest.raises(UsageError, match="'batch' is 2:2:2 in the input 'mask' and 1:1:1 in 'ids'"):
        profiles_for([IDS, MASK], ["ids=1x16,mask=2x16"])


def test_too_many_profiles_are_refused() -> None:
    with pytest.raises(UsageError, match="65 optimization profiles are too many"):
        profiles_for([IMAGES], ["images=1x3x320x320"] * 65)


def test_input_name_may_hold_an_equals_sign() -> None:
    odd = Value(name="a=b", dtype="float32", shape=("n",))
    assert ranges(profiles_for([odd], ["a=b=4"])[0]) == {"a=b": ((4,),) * 3}


def test_components_share_or_split_a_spec() -> None:
    frame = Value(name="frame", dtype="float32", shape=("frames", 3))
    components = {"text": [IDS], "unet": [frame, IDS], "vae": [FIXED]}
    found = profiles_for_components(components, ["ids=1x77,unet/frame=2x3"])
    assert ranges(found["text"][0]) == {"ids": ((1, 77),) * 3}
    assert ranges(found["unet"][0]) == {"frame": ((2, 3),) * 3, "ids": ((1, 77),) * 3}
    assert found["vae"] == ()


def test_components_error_names_the_component() -> None:
    with pytest.raises(UsageError, match=r"component 'unet'[\s\S]*unet/images=1x3x320x320"):
        profiles_for_components({"text": [IDS], "unet": [IMAGES]}, ["ids=1x77"])
    with pytest.raises(UsageError, match=r"no component has an input 'noise'[\s\S]*unet/images"):
        profiles_for_components({"text": [IDS], "unet": [IMAGES]}, ["noise=1"])


dims = st.lists(st.one_of(st.integers(1, 9), st.sampled_from(["a", "b", "c"])), max_size=4)


@given(st.lists(dims, min_size=1, max_size=4))
def test_the_example_is_accepted(shapes: list[list[int | str]]) -> None:
    inputs = [Value(name=f"in{at}", dtype="float32", shape=tuple(shape)) for at, shape in enumerate(shapes)]
    spec = example_spec(inputs)
    profiles = profiles_for(inputs, [spec] if spec else [])
    assert bool(profiles) == any(isinstance(dim, str) for shape in shapes for dim in shape)
