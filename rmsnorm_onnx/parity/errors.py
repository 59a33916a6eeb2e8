"""Errors of both models against the float64 run, as a reader wants them: how large, how many, whose are larger."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import reference
from rmsnorm_onnx.parity.bound import Doubles, Spread, distance, rms
from rmsnorm_onnx.parity.records import Histogram

Array = npt.NDArray[Any]

#: In ulps, the same in every report, so that histograms can be added up; 65536 ulps of float32 are 4 digits lost.
EDGES: Final = (0.5, *(2.0**k for k in range(17)))
#: Errors closer than this are called equal however little the samples vary: a tenth is not worth acting on.
_LEAST_MARGIN: Final = 1.1


def held(exact: Doubles, dtype: np.dtype[Any]) -> Doubles:
    """``exact``, but inf where ``dtype`` overflows: a model that gives inf there is right."""
    with np.errstate(all="ignore"):
        overflows = ~np.isfinite(exact.astype(dtype).astype(np.float64)) & np.isfinite(exact)
    return np.where(overflows, np.copysign(np.inf, exact), exact)


def rms_error(values: Array, exact: Doubles) -> float:
    """Root mean square of values - exact; inf where NaN or inf are in one of them only."""
    errors = distance(values, held(exact, values.dtype))
    return np.inf if np.isinf(errors).any() else rms(errors)


def histogram(original: Array, fused: Array, exact: Doubles) -> Histogram:
    """Errors of both, of one shape and dtype, in ulps of that dtype at the exact value."""
    truth = held(exact, original.dtype)

    def bins(values: Array) -> tuple[int, ...]:
        errors = reference.ulps(values, truth, original.dtype)
        return tuple(np.bincount(np.searchsorted(EDGES, errors.ravel()), minlength=len(EDGES) + 1).tolist())

    return Histogram(EDGES, bins(original), bins(fused))


def margin(noise: Spread) -> float:
    """By what factor the rms errors of two models may differ by chance, if their roundings are of the same size.

    That is what the sampled runs of the original are: the same roundings, drawn anew. It takes the square of the ratio
    of the largest to the smallest rms error among them. Two further draws differ by more in 0.5 % of all cases if
    there are eight samples and the rms is that of many roundings (its logarithm is then close to normal), and in 1.7 %
    if one single rounding decides (simulated, 400,000 trials each); with four samples in 5 % and 8 %.

    Returns:
        At least 1.1; inf where it cannot be told.
    """
    smallest, largest = min(noise.rms), max(noise.rms)
    if largest == 0:
        return _LEAST_MARGIN
    return max(_LEAST_MARGIN, (largest / smallest) ** 2) if smallest > 0 and len(noise.rms) > 1 else np.inf
