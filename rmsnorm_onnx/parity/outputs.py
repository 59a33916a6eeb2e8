"""Judging one output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import reference
from rmsnorm_onnx.parity.bound import Doubles, Yardstick, distance, rms
from rmsnorm_onnx.parity.errors import histogram, rms_error
from rmsnorm_onnx.parity.records import OutputParity, Verdict, Worst
from rmsnorm_onnx.runtime.exact import is_float

Array = npt.NDArray[Any]

#: Elements shown per output.
_MOST_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Truth:
    """What a float output is judged by.

    Attributes:
        exact: d.
        fused_exact: g, or None if the fused model has no float64 run.
        in_double: whether both were computed in nothing but float64.
        bounds: of its errors.
        margin: by what factor rms errors may differ by chance (``errors.margin``).
    """

    exact: Doubles
    fused_exact: Doubles | None
    in_double: bool
    bounds: Yardstick
    margin: float

    @property
    def fused_truth(self) -> Doubles:
        """t, which the fused model's roundings are measured from."""
        return self.fused_exact if self.fused_exact is not None and self.in_double else self.exact


def before_rounding(inputs: str, name: str, original: Array | None, fused: Array | None) -> OutputParity | None:
    """The verdict where no truth is needed to tell: missing, wrong type or shape, non-finite, integers; else None."""
    if original is None or fused is None:
        where = "the original" if original is None else "the fused model"
        known = original if original is not None else fused
        assert known is not None
        return OutputParity(inputs, name, str(known.dtype), known.shape, Verdict.MISSING, detail=f"missing in {where}")
    dtype, shape = str(original.dtype), original.shape
    if original.dtype != fused.dtype:
        detail = f"{dtype} in the original, {fused.dtype} in the fused model"
        return OutputParity(inputs, name, dtype, shape, Verdict.DTYPE, detail=detail)
    if shape != fused.shape:
        detail = f"{shape} in the original, {fused.shape} in the fused model"
        return OutputParity(inputs, name, dtype, shape, Verdict.SHAPE, detail=detail)
    if not is_float(original.dtype):
        return _without_rounding(inputs, name, original, fused)
    left, right = original.astype(np.float64), fused.astype(np.float64)
    non_finite = ~np.isfinite(left) | ~np.isfinite(right)
    unequal = non_finite & ~((left == right) | (np.isnan(left) & np.isnan(right)))
    if unequal.any():
        share = np.where(unequal, np.inf, 0.0)
        worst = _worst(original, fused, None, share)
        detail = f"{int(unequal.sum())} of {unequal.size} elements are NaN or inf in one model only"
        return OutputParity(inputs, name, dtype, shape, Verdict.NON_FINITE, np.inf, worst, detail=detail)
    return None


def identical(original: Array, fused: Array) -> bool:
    """Whether two arrays of one type and shape hold the same values; NaN equals NaN, and -0 is not +0."""
    same = (original == fused) & (np.signbit(original) == np.signbit(fused))
    return bool(np.all(same | (np.isnan(original) & np.isnan(fused))))


def judge(inputs: str, name: str, original: Array, fused: Array, truth: Truth) -> OutputParity:
    """The verdict on a float output whose non-finite elements agree."""
    exact, bounds = truth.exact, truth.bounds
    # Where both models give the same NaN or inf there is nothing left to judge, whatever float64 gives.
    settled = ~np.isfinite(original.astype(np.float64)) | (original == fused)
    error = distance(fused, truth.fused_truth)
    share = np.where(settled & ~np.isfinite(error), 0.0, _ratio(error, bounds.rounding))
    judged = np.where(np.isfinite(original.astype(np.float64)), error, 0.0)
    rms_share = float(_ratio(np.asarray(rms(judged)), np.asarray(bounds.rounding_rms)))
    function_share = None if truth.fused_exact is None else _ratio(distance(truth.fused_exact, exact), bounds.function)
    verdict, detail, shown = Verdict.WITHIN_BOUND, "", share
    if function_share is not None and np.max(function_share, initial=0.0) > 1:
        verdict, shown = Verdict.FUNCTION, function_share
        detail = f"in float64 the models differ by {np.max(function_share):.3g} times the bound"
    elif np.max(share, initial=0.0) > 1:
        verdict = Verdict.ROUNDING
        outside = int((share > 1).sum())
        detail = f"{outside} of {share.size} elements are outside their bound, up to {np.max(share):.3g} times"
    elif rms_share > 1:
        verdict = Verdict.ROUNDING
        detail = f"the root mean square of the error is {rms_share:.3g} times its bound"
    elif identical(original, fused):
        verdict = Verdict.IDENTICAL
    unit = _unit(exact, original.dtype)
    record = OutputParity(
        inputs,
        name,
        str(original.dtype),
        original.shape,
        verdict,
        float(np.max(distance(fused, original.astype(np.float64)), initial=0.0)),
        _worst(original, fused, exact, shown),
        noise=bounds.noise_rms / unit,
        function_share=None if function_share is None else float(np.max(function_share, initial=0.0)),
        detail=detail,
    )
    return with_errors(record, original, fused, exact, truth.margin)


def with_errors(record: OutputParity, original: Array, fused: Array, exact: Doubles, margin: float) -> OutputParity:
    """The record with what the float64 run says of both models."""
    unit = _unit(exact, original.dtype)
    return replace(
        record,
        worst=tuple(replace(element, exact=float(exact[element.index])) for element in record.worst),
        original_error=rms_error(original, exact) / unit,
        fused_error=rms_error(fused, exact) / unit,
        margin=margin,
        histogram=histogram(original, fused, exact),
    )


def _unit(exact: Doubles, dtype: np.dtype[Any]) -> float:
    """One roundoff of the output's type at its root mean square."""
    return rms(np.abs(exact)) * reference.roundoff(dtype) or 1.0


def _without_rounding(inputs: str, name: str, original: Array, fused: Array) -> OutputParity:
    unequal = np.asarray(original != fused)
    count = int(unequal.sum())
    dtype, shape = str(original.dtype), original.shape
    if count == 0:
        return OutputParity(inputs, name, dtype, shape, Verdict.IDENTICAL, 0.0)
    if original.dtype.kind not in "iub":
        return OutputParity(
            inputs, name, dtype, shape, Verdict.VALUES, detail=f"{count} of {unequal.size} elements differ"
        )
    error = np.abs(fused.astype(np.float64) - original.astype(np.float64))
    worst = _worst(original, fused, None, np.where(unequal, np.maximum(error, 1.0), 0.0))
    detail = f"{count} of {unequal.size} elements differ"
    return OutputParity(inputs, name, dtype, shape, Verdict.VALUES, float(error.max()), worst, detail=detail)


def _ratio(error: Doubles, limit: Doubles) -> Doubles:
    """Quotient of both; no error is always within, and an infinite limit allows every finite error, but no other."""
    with np.errstate(all="ignore"):
        ratio = error / limit
    ratio = np.where(np.isinf(error) | np.isnan(ratio), np.inf, ratio)
    return np.where(error == 0, 0.0, ratio)


def _worst(original: Array, fused: Array, exact: Doubles | None, share: Doubles) -> tuple[Worst, ...]:
    """The elements with the largest shares that are not 0; of equal ones the first."""
    if share.size == 0:
        return ()
    flat = share.ravel()
    least = np.partition(flat, -min(_MOST_SHOWN, flat.size))[-min(_MOST_SHOWN, flat.size)]
    candidates = np.flatnonzero((flat >= least) & (flat > 0))
    chosen = candidates[np.argsort(-flat[candidates], kind="stable")][:_MOST_SHOWN]

    def element(place: int) -> Worst:
        index = tuple(int(i) for i in np.unravel_index(place, share.shape))
        got, expected = original.dtype.type(fused[index]), original[index]
        if is_float(original.dtype):
            steps = float(reference.ulps(got, expected, original.dtype))
        else:
            steps = abs(float(got) - float(expected))
        truth = None if exact is None else float(exact[index])
        return Worst(index, float(got), float(expected), truth, steps, float(share[index]))

    return tuple(element(int(place)) for place in chosen)
