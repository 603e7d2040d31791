"""Optimization profiles: what a user wrote after ``--profile``, checked against what the graph takes.

A spec names a shape for each dynamic input, as one shape or as ``min:opt:max``::

    images=1x3x320x320:1x3x640x640:4x3x640x640
    input_ids=1x16:1x77:4x77,attention_mask=1x16:1x77:4x77

A spec without ``=`` is the name of a preset. The flag may be given several times: one optimization profile each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from wszoo.errors import UsageError
from wszoo.schema.plan import Profile, ShapeRange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.schema.model import Value

_SHAPE = re.compile(r"[1-9][0-9]{0,11}(?:x[1-9][0-9]{0,11})*")
_MAX_SPECS = 64  # TensorRT keeps context memory for each optimization profile


def profiles_for(
    inputs: Sequence[Value],
    specs: Sequence[str],
    *,
    presets: Mapping[str, Profile] | None = None,
    default: str = "",
    required: bool = True,
) -> tuple[Profile, ...]:
    """Turn specs into optimization profiles for one graph.

    Args:
        inputs: what the graph takes, with dynamic dimensions by name.
        specs: in the user's order; a spec is named ``p<position>``, a preset keeps its name.
        presets: profiles that may be asked for by name.
        default: the preset to take when there are no specs; empty for none.
        required: a target is built for that cannot do without profiles where inputs are dynamic.

    Returns:
        One profile for each spec, with a range for each dynamic input; empty when every shape is fixed.

    Raises:
        UsageError: an unknown preset or input, a shape that does not fit, ``min <= opt <= max`` violated, or a dynamic
            input without a range. The hint shows a spec that this graph accepts.
    """
    wanted = list(specs) or ([default] if default else [])
    checker = _Checker(tuple(inputs), dict(presets or {}))
    if len(wanted) > _MAX_SPECS:
        raise UsageError(f"{len(wanted)} optimization profiles are too many; up to {_MAX_SPECS} are accepted")
    found = [checker.profile(spec, f"p{position}") for position, spec in enumerate(wanted)]
    names = [profile.name for profile in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the profile {name!r} is given twice")
    if not checker.dynamic:
        return ()
    if not found and required:
        checker.complain("it has dynamic inputs and no --profile was given: " + ", ".join(sorted(checker.dynamic)))
    return tuple(found)


def profiles_for_components(
    components: Mapping[str, Sequence[Value]],
    specs: Sequence[str],
    *,
    presets: Mapping[str, Mapping[str, Profile]] | None = None,
    default: str = "",
    required: bool = True,
) -> dict[str, tuple[Profile, ...]]:
    """Deal specs out to several graphs.

    ``COMPONENT/INPUT=RANGE`` goes to one component, ``INPUT=RANGE`` to each with such an input, a preset to all.

    Args:
        components: the inputs of each component.
        specs: in the user's order. A spec may give profiles to some components only.
        presets: profiles that may be asked for by name, of each component.
        default: the preset that a component takes when no spec gave it any; empty for none.
        required: see :func:`profiles_for`.

    Raises:
        UsageError: an entry fits no component, or as for :func:`profiles_for`.
    """
    known = presets or {}
    if len(components) == 1 and not known:
        return {name: profiles_for(inputs, specs, required=required) for name, inputs in components.items()}
    dealt: dict[str, list[str]] = {name: [] for name in components}
    for spec in specs:
        if "=" not in spec and known:
            for given in dealt.values():
                given.append(spec)
            continue
        parts: dict[str, list[str]] = {}
        for entry in spec.split(","):
            for component, bare in _receivers(components, entry):
                parts.setdefault(component, []).append(bare)
        for component, entries in parts.items():
            dealt[component].append(",".join(entries))
    return {
        name: _for_component(name, inputs, dealt[name], known.get(name, {}), default=default, required=required)
        for name, inputs in components.items()
    }


def dynamic_inputs(inputs: Sequence[Value]) -> dict[str, Value]:
    """Those inputs that have a dimension without a number, by name."""
    return {value.name: value for value in inputs if any(isinstance(dim, str) for dim in value.shape)}


def example_spec(inputs: Sequence[Value]) -> str:
    """A spec that :func:`profiles_for` accepts for these inputs; empty when every shape is fixed."""
    dims: dict[str, tuple[int, int, int]] = {}  # by name: one name may stand on different axes of two inputs
    entries = []
    for value in dynamic_inputs(inputs).values():
        ranges = [
            (dim, dim, dim) if isinstance(dim, int) else dims.setdefault(dim, (1, 1, 8) if axis == 0 else (16, 64, 128))
            for axis, dim in enumerate(value.shape)
        ]
        entries.append(f"{value.name}=" + ":".join("x".join(map(str, column)) for column in zip(*ranges, strict=True)))
    return ",".join(entries)


def _receivers(components: Mapping[str, Sequence[Value]], entry: str) -> list[tuple[str, str]]:
    name = entry.rpartition("=")[0].strip()
    component, slash, _ = name.partition("/")
    if slash and component in components:
        return [(component, entry.strip().removeprefix(f"{component}/"))]
    found = [(each, entry) for each, inputs in components.items() if name in {value.name for value in inputs}]
    if not found:
        known = ", ".join(f"{each}/{value.name}" for each, inputs in components.items() for value in inputs)
        raise UsageError(f"--profile: no component has an input {name or entry!r}", hint=f"there is: {known}")
    return found


def _for_component(
    name: str,
    inputs: Sequence[Value],
    specs: Sequence[str],
    presets: Mapping[str, Profile],
    *,
    default: str,
    required: bool,
) -> tuple[Profile, ...]:
    try:
        return profiles_for(inputs, specs, presets=presets, default=default, required=required)
    except UsageError as error:
        example = ",".join(f"{name}/{entry}" for entry in example_spec(inputs).split(",") if entry)
        known = f"; or a preset: {', '.join(presets)}" if presets else ""
        raise UsageError(
            f"component {name!r}: {error.message}",
            hint=f'for example: --profile "{example}"{known}' if example else error.hint,
        ) from error


@dataclass(frozen=True, slots=True)
class _Checker:
    inputs: tuple[Value, ...]
    presets: dict[str, Profile]

    @property
    def dynamic(self) -> dict[str, Value]:
        return dynamic_inputs(self.inputs)

    def complain(self, what: str) -> NoReturn:
        example = example_spec(self.inputs)
        hint = f'for example: --profile "{example}"' if example else "every shape is fixed: leave --profile out"
        if self.presets:
            hint += f", or a preset: {', '.join(self.presets)}"
        raise UsageError(f"--profile: {what}", hint=hint)

    def profile(self, spec: str, name: str) -> Profile:
        if "=" not in spec:
            if spec not in self.presets:
                self.complain(f"{spec!r} is neither INPUT=SHAPE nor the name of a preset")
            return self._checked(self.presets[spec])
        ranges: dict[str, ShapeRange] = {}
        for entry in spec.split(","):
            input_name, _, text = (part.strip() for part in entry.rpartition("="))
            if input_name in ranges:
                self.complain(f"the input {input_name!r} is given twice in {spec!r}")
            ranges[input_name] = self._range(input_name, text)
        return self._checked(Profile(name=name, inputs=ranges))

    def _range(self, name: str, text: str) -> ShapeRange:
        parts = text.split(":")
        if len(parts) not in {1, 3} or not all(_SHAPE.fullmatch(part) for part in parts):
            self.complain(f"{text!r} for the input {name!r} is neither a shape nor min:opt:max")
        shapes = [tuple(int(dim) for dim in part.split("x")) for part in parts]
        least, opt, most = shapes * 3 if len(shapes) == 1 else shapes
        return ShapeRange(min=least, opt=opt, max=most)

    def _checked(self, profile: Profile) -> Profile:
        known = {value.name: value for value in self.inputs}
        for name, shapes in profile.inputs.items():
            if name not in known:
                self.complain(f"there is no input {name!r}; the graph takes {', '.join(known) or 'nothing'}")
            self._fits(known[name], shapes)
        for name in [name for name in self.dynamic if name not in profile.inputs]:
            self.complain(f"the dynamic input {name!r} of shape {_show(known[name].shape)} has no range")
        self._consistent(profile)
        return Profile(name=profile.name, inputs={name: profile.inputs[name] for name in self.dynamic})

    def _fits(self, value: Value, shapes: ShapeRange) -> None:
        for shape in (shapes.min, shapes.opt, shapes.max):
            if len(shape) != len(value.shape):
                self.complain(
                    f"{_show(shape)} has {len(shape)} dimensions, and the input {value.name!r} "
                    f"has {len(value.shape)}: {_show(value.shape)}"
                )
            for axis, (given, own) in enumerate(zip(shape, value.shape, strict=True)):
                if isinstance(own, int) and given != own:
                    self.complain(
                        f"{_show(shape)} has {given} on axis {axis}, where the input {value.name!r} is fixed to {own}"
                    )
        for axis, (least, opt, most) in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
            if not least <= opt <= most:
                self.complain(
                    f"the input {value.name!r} has {least}:{opt}:{most} on axis {axis}, which is not min <= opt <= max"
                )

    def _consistent(self, profile: Profile) -> None:
        seen: dict[str, tuple[str, tuple[int, int, int]]] = {}
        for name, value in self.dynamic.items():
            shapes = profile.inputs[name]
            for axis, dim in enumerate(value.shape):
                if not isinstance(dim, str):
                    continue
                here = shapes.min[axis], shapes.opt[axis], shapes.max[axis]
                other, before = seen.setdefault(dim, (name, here))
                if before != here:
                    self.complain(
                        f"the dimension {dim!r} is {_colons(here)} in the input {name!r} "
                        f"and {_colons(before)} in {other!r}"
                    )


def _show(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _colons(dims: tuple[int, int, int]) -> str:
    return ":".join(map(str, dims))
