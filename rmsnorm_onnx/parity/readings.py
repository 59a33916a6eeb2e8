"""Readings of one node against its oracle: errors in ulps, and the bound that each way of computing it has.

The bound is that of ``reference.bound``: from the number of terms of the mean, the types and the places of rounding;
the kernel's sums go on in float64 after a few additions, a body's may take any order. The old subgraph has a bound of
its own, from the types that its nodes give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference, runtime
from rmsnorm_onnx.parity.operator import NormNode, norm_nodes
from rmsnorm_onnx.parity.oracle import Oracle
from rmsnorm_onnx.parity.records import BODY, KERNEL, SUBGRAPH, Reading, Worst

Array = npt.NDArray[Any]


def bound_of_operator(
    norm: NormNode, oracle: Oracle, attributes: reference.Attributes, additions: int | None
) -> float | None:
    """The bound of ``reference.bound`` in ulps, or None where the mean is too long for one."""
    chain = None if additions is None else min(additions, oracle.width - 1)
    try:
        return reference.bound(norm.op.name, oracle.width, oracle.faithful.dtype, attributes, additions=chain).ulps
    except ValueError:  # too many roundings for a first-order bound
        return None


def bound_of_subgraph(part: ir.Model, oracle: Oracle) -> float | None:
    """First-order bound of nodes that round once each, in the types they give; sums in any order.

    A rounding passes at most twice into the result (of what is squared: into the quotient and, halved, the root). None
    where a node does more than one step, or the types are not known.
    """
    if any(norm_nodes(part)) or any(value.dtype is None for node in part.graph for value in node.outputs):
        return None
    units = {
        node: max((reference.roundoff(v.dtype.numpy()) for v in node.outputs if v.dtype in runtime.FLOATS), default=0.0)
        for node in part.graph
    }
    sums = [unit for node, unit in units.items() if node.op_type.startswith("Reduce")] or list(units.values())
    relative = 2 * sum(units.values()) + (oracle.width - 1) / 2 * max(sums, default=0.0)
    if relative >= 0.5:
        return None
    before = relative / (1 - relative) / reference.roundoff(oracle.faithful.dtype)
    return before + (1.0 if before > 1 else 0.5)


def reading(how: str, result: list[Array] | str, oracle: Oracle, bound: float | None) -> Reading:
    """How far ``result`` (Y and perhaps the sum, or why there is none) is from the oracle, and whether it may be."""
    if isinstance(result, str):
        return Reading(how, None, None, bound, True, result)
    y, *sums = result
    if (y.dtype, y.shape) != (oracle.faithful.dtype, oracle.faithful.shape) and how != SUBGRAPH:
        return Reading(how, np.inf, np.inf, bound, False, f"gave {y.dtype}{list(y.shape)}")
    error = np.where(oracle.judged, oracle.ulps(y), 0.0)
    same_sum = not sums or oracle.total is None or bool(np.all(reference.ulps(sums[0], oracle.total, y.dtype) == 0))
    ok = bound is None or (same_sum and bool(np.all(error <= _limit(how, oracle, bound))))
    rms = float(np.sqrt(np.mean(np.square(error))))
    return Reading(how, float(np.max(error)), rms, bound, ok, "" if same_sum else "another residual sum")


def _limit(how: str, oracle: Oracle, bound: float) -> Array:
    # The kernels have an exp of their own.
    return np.asarray(bound + oracle.subnormal + (0.0 if how == KERNEL else oracle.sigmoid))


def worst_element(
    results: Mapping[str, list[Array] | str], oracle: Oracle, bounds: Mapping[str, float | None]
) -> Worst | None:
    """The worst element of the kernel, else of the body."""
    for how in (KERNEL, BODY):
        result, bound = results[how], bounds[how]
        if isinstance(result, str) or result[0].shape != oracle.faithful.shape or bound is None:
            continue
        share = np.where(oracle.judged, oracle.ulps(result[0]), 0.0) / _limit(how, oracle, bound)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(share)), share.shape))
        old = results[SUBGRAPH]
        expected = float(oracle.faithful[index] if isinstance(old, str) else old[0][index])
        got = float(result[0][index])
        ulps = float(reference.ulps(got, expected, oracle.faithful.dtype))
        return Worst(index, got, expected, float(oracle.exact[index]), ulps, float(share[index]))
    return None
