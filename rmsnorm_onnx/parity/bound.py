r"""When two results are equal: the bound, derived from the original's own rounding noise.

Let d be the float64 run of the original (its exact-arithmetic reading), o and f what the original and the fused model
give, and u the roundoff of the output's type. Two questions are asked of every element i, and both need a yes.

*Is it the same function?* The fused model is read in float64 as well, giving g. Folding a norm into one node is an
identity, so g - d may only hold float64 roundings. First-order error analysis gives both kinds of error the same
shape: a rounding made at some value reaches output i through the derivative of the output by that value, whatever the
precision. So float64 errors are the noise s_i of the original (next paragraph) scaled by 2^-53 over the smallest
roundoff that made s_i, at most 2^-24, and by N, the longest reduction in the graph: inside a reduction s_i counts one
rounding and float64 arithmetic N (Higham, section 3.1):

    |g_i - d_i| <= k N 2^-53 / 2^-24 s_i + N 2^-53 |d_i| + c_i

One thing is not arithmetic: a float32 scalar like sqrt(d) is itself the rounding of the number that was meant, and a
norm that divides by the true root is right. c_i is what the last half ulp of the C such scalars can do. With a_j the
effect of scalar j, that is at most the sum of |a_j| <= sqrt(C) |a|, and |a| is the root mean square of the sum of
+-a_j under random signs; the largest of m such runs (at least eight, or balanced signs) estimates it
(``runtime.slack``). Scalars that hold n, 1 / n, sqrt(n) or 1 / sqrt(n) of a length n rounded to 16 bits are a kind of
their own: a_j is the effect of the distance to that number, and the signs are balanced, so that the largest run is at
least |a|. The c_i of both kinds add up. Weights that are folded with such a scalar count there as well; other vectors
and 16-bit constants, and short numbers (2, 0.5), are exact.

*Does it round as well?* s_i is the largest of |o_i - d_i| and of m runs of the float64 reading that round wherever
the original does, on random grids (``runtime.noise``). If f is right, its error is one more draw from the same
distribution. The sum of many roundings is close to normal, with a scale that is unknown and differs by element, but is
common to the m + 1 draws. For normal draws,

    P(|e| > k max_j |e_j|) <= E[(sqrt(2/pi) |e| / k)^m] = (2/pi)^(m/2) 2^(m/2) Gamma((m+1)/2) / sqrt(pi) / k^m,

because |e_j| has density at most sqrt(2/pi) and the m draws are independent. Setting n times this (n elements, which
may be correlated in any way) to the false alarm rate 10^-6 gives k(m, n); nothing else is chosen:

    |f_i - t_i| <= k(m, n) s_i + u |d_i| + half a subnormal        every element against its own noise
    rms(f - t)  <= k(m, 1) max(rms(o - d), max_j rms(e_j)) + ...   the output as a whole, far tighter per element

with t = g: where the fused model reads a constant as what was meant, its roundings are errors from there, and the
first question has bounded g - d. Where g is missing or carries float32 roundings itself, t = d.

The sampled runs round once per operator; kernels also round inside sums. How much more that is, is measured: s is
scaled by rms(o - d) / max_j rms(e_j) where that ratio is between 1 and k(m, 1). Beyond k(m, 1) the original's run
itself is not explained by rounding; it is then left out of the yardstick, and the report says so.

Where d is no more precise than the output (float64 outputs; float32 ones behind an operator without a float64 kernel),
the errors themselves are known only to one ulp: four in ten sampled ones come out as zero. Their density is not bounded
as above then, and s_i is one ulp larger.

What cannot be seen: a change of the function smaller on these inputs than the first bound (about N 2^-29 of the
original's float32 rounding noise), and a kernel error smaller than k times the rounding noise of the original. Where
single operators have no float64 kernel and run in float32, the first bound is the noise itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import reference
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.exact import is_float

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

#: Probability that one correct output is called different.
FALSE_ALARMS: Final = 1e-6
_DOUBLE_ROUNDOFF: Final = 2.0**-53
_SINGLE_ROUNDOFF: Final = 2.0**-24


def noise_factor(samples: int, elements: int) -> float:
    """k(m, n): by how much one draw may exceed the largest of ``samples`` others, ``elements`` times over."""
    log_moment = math.lgamma((samples + 1) / 2) - math.log(math.pi) / 2 + samples / 2 * math.log(2)
    log_power = log_moment + math.log(max(elements, 1) / FALSE_ALARMS)
    return math.sqrt(2 / math.pi) * math.exp(log_power / samples)


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Bounds of one float output; arrays have the output's shape.

    Attributes:
        rounding: bound of |f - t|.
        rounding_rms: bound of the root mean square of f - t over the finite elements.
        function: bound of |g - d|.
        noise_rms: largest root mean square of the original's own errors.
        original_explained: whether rounding explains how far the original's run is from d.
    """

    rounding: Doubles
    rounding_rms: float
    function: Doubles
    noise_rms: float
    original_explained: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """How far perturbed runs are from the exact one.

    Attributes:
        largest: per element, of the output's shape.
        rms: root mean square per run.
    """

    largest: Doubles
    rms: tuple[float, ...]


def spread(exact: Mapping[str, Doubles], runs: Iterable[Mapping[str, Array]]) -> dict[str, Spread]:
    """Per output; every run is let go before the next one, as logits of a large vocabulary are 500 MB in float64.

    Raises:
        CannotRun: an output has another shape than in the exact run.
    """
    largest = {name: np.zeros(values.shape) for name, values in exact.items()}
    sizes: dict[str, list[float]] = {name: [] for name in exact}
    for run in runs:
        for name, values in exact.items():
            require_shape(name, values, run[name], "with other roundings")
            error = distance(run[name], values)
            np.maximum(largest[name], error, out=largest[name])
            sizes[name].append(rms(error))
    return {name: Spread(largest[name], tuple(sizes[name])) for name in exact}


def require_shape(name: str, exact: Doubles, other: Array, when: str) -> None:
    """Only arrays of one shape can be compared, and only floats with floats.

    Raises:
        CannotRun: output ``name`` is not float in the float64 run of the original, or has another shape there.
    """
    if not is_float(exact.dtype):
        raise CannotRun(
            f"expected output '{name}' of floats in the original's float64 run, but it is {exact.dtype} there, and "
            f"{other.dtype} {when}: the model declares a type that is not so; let onnx.checker check the original "
            "with full_check=True, and mend what it names"
        )
    if other.shape != exact.shape:
        raise CannotRun(
            f"expected output '{name}' of shape {exact.shape}, as the original's float64 run gives it, "
            f"but {when} it is {other.shape}: its shape "
            "follows from rounded values, or the model declares one that is not so; let onnx.checker check the "
            "original with full_check=True, and mend what it names"
        )


def yardstick(
    original: Array,
    exact: Doubles,
    noise: Spread,
    *,
    exact_roundoff: float,
    longest_sum: int,
    slack: Doubles | float = 0.0,
) -> Yardstick:
    """Bounds for one output from the original's run and sampled noise; the derivation is in the module's docstring.

    Args:
        original: o, in the output's type.
        exact: d.
        noise: of the runs with random roundings, at least one.
        exact_roundoff: of the arithmetic that d and g were computed in.
        longest_sum: N, the number of terms of the longest reduction.
        slack: c, what half an ulp of the scalar constants can do; scalar or of the output's shape.
    """
    own = distance(original, exact)
    sampled_rms = max(noise.rms)
    k_one, k_all = noise_factor(len(noise.rms), 1), noise_factor(len(noise.rms), exact.size)
    floor = reference.roundoff(original.dtype) * np.abs(exact) + _half_subnormal(original.dtype)
    floor = np.where(np.isfinite(floor), floor, 0.0)
    inside_sums = rms(own) / sampled_rms if sampled_rms > 0 else 1.0
    explained = rms(own) <= k_one * sampled_rms + rms(floor)
    largest = noise.largest
    if exact_roundoff >= reference.roundoff(original.dtype):
        largest = largest + np.where(np.isfinite(exact), reference.ulp(exact, original.dtype), 0.0)
    if explained:
        largest = np.maximum(own, largest * max(inside_sums, 1.0))
    noise_rms = max(rms(own), sampled_rms) if explained else sampled_rms
    in_double = exact_roundoff <= _DOUBLE_ROUNDOFF
    terms = longest_sum if in_double else 1
    share = min(1.0, terms * exact_roundoff / _SINGLE_ROUNDOFF)
    if original.dtype == np.float64:
        share = float(longest_sum)
    return Yardstick(
        rounding=k_all * largest + floor,
        rounding_rms=k_one * noise_rms + rms(floor),
        function=k_all * largest * share + terms * exact_roundoff * np.abs(exact) + slack,
        noise_rms=noise_rms,
        original_explained=explained,
    )


def constant_slack(
    exact: Mapping[str, Doubles], kinds: Iterable[tuple[int, Iterable[Mapping[str, Array]]]]
) -> dict[str, Doubles]:
    """Per output c, the sum over kinds of sqrt(C) times the largest effect of shifting all C constants of the kind."""
    slack = {name: np.zeros(values.shape) for name, values in exact.items()}
    for constants, runs in kinds:
        for name, moved in spread(exact, runs).items():
            slack[name] += math.sqrt(constants) * moved.largest
    return slack


def distance(values: Array, exact: Doubles) -> Doubles:
    """|values - exact| in float64; equal infinities and two NaN are 0, any other non-finite pair is inf."""
    left = values.astype(np.float64)
    same = (left == exact) | (np.isnan(left) & np.isnan(exact))
    with np.errstate(all="ignore"):
        error = np.abs(left - exact)
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def rms(errors: Doubles) -> float:
    """Root mean square of the finite errors (which are not negative); 0 if there are none."""
    finite = errors[np.isfinite(errors)]
    largest = float(np.max(finite, initial=0.0))
    # Scaled, so that squares of errors near the ends of float64 neither overflow nor vanish.
    return largest * math.sqrt(float(np.mean(np.square(finite / largest)))) if largest > 0 else 0.0


def _half_subnormal(dtype: np.dtype[Any]) -> float:
    return float(reference.ulp(0.0, dtype)) / 2
