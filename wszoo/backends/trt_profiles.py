"""Optimization profiles, from wszoo's form to TensorRT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from wszoo.backends.inputs import dims
from wszoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.schema.plan import Profile, ShapeRange

_FREE = -1  # TensorRT's mark of a dynamic dimension
_EXAMPLE = 8  # the largest size of a dynamic dimension in an example; any number shows the syntax


def add_profiles(builder: Any, network: Any, config: Any, profiles: Sequence[Profile]) -> None:  # noqa: ANN401
    """Check profiles against a network, and add them to a builder's configuration in the given order.

    Raises:
        UsageError: a dynamic input has no range, a range does not fit its input, or an input is unknown; the hint
            shows what to write.
    """
    inputs = network_inputs(network)
    dynamic = {name: shape for name, shape in inputs.items() if _FREE in shape}
    if dynamic and not profiles:
        _complain(f"dynamic input {next(iter(dynamic))!r} has no optimization profile", dynamic)
    for profile in profiles:
        for name in profile.inputs.keys() - inputs.keys():
            _complain(f"profile {profile.name!r} names {name!r}, which is no input", inputs)
        for name in dynamic.keys() - profile.inputs.keys():
            _complain(f"profile {profile.name!r} gives no shapes for the dynamic input {name!r}", dynamic)
        theirs = builder.create_optimization_profile()
        for name, limits in profile.inputs.items():
            if not _fits(limits, inputs[name]):
                _complain(
                    f"profile {profile.name!r} does not fit input {name!r}: {_text(limits)}", {name: inputs[name]}
                )
            theirs.set_shape(name, limits.min, limits.opt, limits.max)
        config.add_optimization_profile(theirs)


def network_inputs(network: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Names and shapes of a network's inputs; dynamic dimensions are -1."""
    found = map(network.get_input, range(network.num_inputs))
    return {tensor.name: tuple(tensor.shape) for tensor in found}


def _fits(limits: ShapeRange, shape: tuple[int, ...]) -> bool:
    if not len(limits.min) == len(limits.opt) == len(limits.max) == len(shape):
        return False
    rows = zip(limits.min, limits.opt, limits.max, shape, strict=True)
    return all(low <= best <= high if size == _FREE else low == best == high == size for low, best, high, size in rows)


def _text(limits: ShapeRange) -> str:
    return ":".join(map(dims, (limits.min, limits.opt, limits.max)))


def _complain(problem: str, inputs: Mapping[str, tuple[int, ...]]) -> NoReturn:
    specs = []
    for name, shape in inputs.items():
        low, high = (dims([free if size == _FREE else size for size in shape]) for free in (1, _EXAMPLE))
        specs.append(f"{name}={low}:{low}:{high}")
    raise UsageError(problem, hint=f"give min:opt:max of each dynamic input, as in: --profile {','.join(specs)}")
