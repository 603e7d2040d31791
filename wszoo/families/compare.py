"""How far an export may lie from its original, and by how much it does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``|ours - theirs| <= atol + rtol * max|theirs| + 3 * noise``, over a whole output.

    Relative to the output's greatest number and not to each: rounding errors of a sum scale with its terms, and a logit
    that happens to lie near zero has no digits of its own.
    """

    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"{self.atol:g} + {self.rtol:g} * max|output|"


_SAMPLE = 4096

# Both sides compute in the given precision, in another order: an error is some tens of units in the last place
# (2^-24 = 6e-8, 2^-11 = 5e-4, 2^-8 = 4e-3), and grows with depth. Measured on a CPU, ONNX Runtime against torch, parts
# of max|output|: fp32 up to 1.3e-5; fp16 up to 4e-3 in ResNet, ConvNeXt, EfficientNet and ViT. Networks with random
# weights can multiply rounding errors without end (0.2 in a timm EfficientNet-B0): give compare() an fp32 truth there.
TOLERANCES = {
    "fp32": Tolerance(rtol=1e-4, atol=1e-6),
    "fp16": Tolerance(rtol=2e-2, atol=1e-5),
    "bf16": Tolerance(rtol=1e-1, atol=1e-4),
}

# What the original loses itself by its precision is no defect of the export, which rounds in other places.
NOISE_FACTOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was compared and found.

    Attributes:
        tolerance: what was allowed.
        cases: how many sets of inputs were run.
        max_abs_error: the greatest difference of all outputs in all cases, by output.
        max_relative_error: the same over the output's greatest number, of all outputs.
        samples: the last numbers of each output in the case before: batches of two cases may begin with the same row.
        varied: some output changed from one case to the next by more than a tenth of the tolerance, which is about
            what errors amount to.
    """

    tolerance: Tolerance
    cases: int = 0
    max_abs_error: Mapping[str, float] = field(default_factory=dict)
    max_relative_error: float = 0.0
    samples: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)
    varied: bool = False

    def require_meaning(self, name: str) -> None:
        """Refuse a comparison that any export would have passed.

        Untrained networks with batch norms at their start values fade out: an EfficientNet's logits are 1e-30 plus the
        bias whatever goes in, and a wrong trunk would look right.

        Raises:
            BuildError: no case, or no output depends on the inputs.
        """
        if not self.cases:
            raise BuildError(f"{name!r} was compared on no inputs at all")
        if self.cases > 1 and not self.varied:
            raise BuildError(
                f"comparing {name!r} proves nothing: on {self.cases} different inputs, "
                "no output changed by more than a tenth of the tolerance",
                hint="are the weights trained? Scale seeded weights so that signals do not fade out",
            )

    def as_options(self) -> dict[str, str]:
        """As entries for :attr:`wszoo.families.protocol.Export.options`."""
        return {
            "compared_with": "torch",
            "compared_cases": str(self.cases),
            "max_abs_error": f"{max(self.max_abs_error.values(), default=0.0):.3g}",
            "max_relative_error": f"{self.max_relative_error:.3g}",
            "tolerance": f"{self.tolerance} + {NOISE_FACTOR} * torch's own",
        }


def compare_outputs(
    before: Comparison,
    ours: Mapping[str, NDArray[Any]],
    theirs: Mapping[str, NDArray[Any]],
    name: str,
    *,
    noise: Mapping[str, float] | None = None,
) -> Comparison:
    """Add one case to a comparison.

    Args:
        before: the cases so far.
        ours: what the export gave, by output.
        theirs: what the original gave, by output.
        name: the network's, for messages.
        noise: by how much the original itself is off in this precision, by output; three times that is allowed too.

    Raises:
        BuildError: they differ in shape or by more than the tolerance, or a number is not finite.
    """
    errors, samples = dict(before.max_abs_error), {}
    varied, relative = before.varied, before.max_relative_error
    for output, expected in theirs.items():
        error, allowed = _error(
            ours[output],
            expected,
            before.tolerance,
            (noise or {}).get(output, 0.0),
            f"the output {output!r} of {name!r}",
        )
        errors[output] = max(error, errors.get(output, 0.0))
        relative = max(relative, error / (float(np.abs(expected).max(initial=0)) or 1.0))
        samples[output] = expected.reshape(-1)[-_SAMPLE:].astype(np.float64)
        varied = varied or _differ(samples[output], before.samples.get(output), allowed / 10)
    return replace(
        before,
        cases=before.cases + 1,
        max_abs_error=errors,
        max_relative_error=relative,
        samples=samples,
        varied=varied,
    )


def _differ(now: NDArray[np.float64], before: NDArray[np.float64] | None, allowed: float) -> bool:
    if before is None:
        return False
    common = min(len(now), len(before))
    return bool(common) and float(np.abs(now[:common] - before[:common]).max()) > allowed


def _error(
    ours: NDArray[Any], theirs: NDArray[Any], tolerance: Tolerance, noise: float, what: str
) -> tuple[float, float]:
    if ours.shape != theirs.shape:
        raise BuildError(f"{what} has the shape {list(ours.shape)}, and {list(theirs.shape)} in torch")
    if not theirs.size:
        return 0.0, tolerance.atol
    got, want = ours.astype(np.float64), theirs.astype(np.float64)
    for numbers, whose in ((want, "in torch"), (got, "in ONNX Runtime")):
        if not np.isfinite(numbers).all():
            raise BuildError(
                f"{what} holds {int((~np.isfinite(numbers)).sum())} numbers that are not finite {whose}",
                hint="check the weights; in fp16 an overflow is likely: try --precision fp32",
            )
    error = float(np.abs(got - want).max())
    allowed = tolerance.atol + tolerance.rtol * float(np.abs(want).max()) + NOISE_FACTOR * noise
    if error > allowed:
        raise BuildError(
            f"{what} differs from torch by {error:.3g}, and {allowed:.3g} is allowed "
            f"({tolerance.atol:g} + {tolerance.rtol:g} * {float(np.abs(want).max()):.3g} "
            f"+ {NOISE_FACTOR} * {noise:.3g} that torch is off itself)",
            hint="the export is wrong and was not published",
        )
    return error, allowed
