"""Running the float64 reading: onnxruntime where it has the kernels, else onnx's ReferenceEvaluator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.evaluator import Array, Arrays, run_reference
from rmsnorm_onnx.runtime.islands import surround
from rmsnorm_onnx.runtime.noise import SCALES, with_rounding_noise
from rmsnorm_onnx.runtime.session import import_onnxruntime, session_from_ir, session_options
from rmsnorm_onnx.runtime.slack import SIGNS, with_constant_slack
from rmsnorm_onnx.runtime.types import FLOATS, nodes_of, opset_of
from rmsnorm_onnx.runtime.widen import widen_to_float64

#: Inputs that are float32 whatever the data's type is.
_MIXED_SIGNATURES: Final = frozenset(
    {"Resize", "Upsample", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
)


@dataclass(frozen=True, slots=True)
class ExactRun:
    """Outputs of a float64 run.

    Attributes:
        outputs: by name; what was float is float64.
        how: who ran it, in words.
        roundoff: 2^-53, or 2^-24 where single operators had to run in float32.
    """

    outputs: dict[str, Array]
    how: str
    roundoff: float


def run_exact(model: ir.Model, feeds: Arrays, *, threads: int | None = None) -> ExactRun:
    """Run the float64 reading of ``model`` (see ``widen_to_float64``) on ``feeds`` in the model's own types.

    onnxruntime if it has a float64 kernel for every operator, else the ReferenceEvaluator, else onnxruntime with
    the operators without such a kernel in float32.

    Raises:
        CannotRun: none of the three could; the message holds the reason of each.
    """
    widened = widen_to_float64(model)
    given = widened_feeds(feeds)
    reasons = []
    lacking = sorted({node.op_type for node in _without_double_kernel(widened)})
    if lacking:
        reasons.append(f"onnxruntime has no float64 kernel for {', '.join(lacking)}")
    else:
        try:
            return ExactRun(_run_session(widened, given, threads), "onnxruntime in float64", 2.0**-53)
        except CannotRun as error:
            reasons.append(str(error))
    try:
        return ExactRun(run_reference(widened, given), "onnx.reference in float64", 2.0**-53)
    except CannotRun as error:
        reasons.append(str(error))
    if lacking:
        _make_islands(widened)
        how = f"onnxruntime in float64, {', '.join(lacking)} in float32"
        try:
            return ExactRun(_run_session(widened, given, threads), how, 2.0**-24)
        except CannotRun as error:
            reasons.append(str(error))
    raise CannotRun("no float64 run: " + "; ".join(reasons))


def noise_runs(
    model: ir.Model, feeds: Arrays, *, count: int, seed: int, threads: int | None = None
) -> Iterator[dict[str, Array]]:
    """``count`` runs of the float64 reading with rounding errors drawn anew; see ``with_rounding_noise``.

    Raises:
        CannotRun: onnxruntime cannot run the perturbed graph.
    """
    noisy = with_rounding_noise(model)
    generator = np.random.default_rng(seed)
    yield from _perturbed(noisy.model, SCALES, [noisy.scales(generator) for _ in range(count)], feeds, threads)


def slack_runs(
    model: ir.Model, feeds: Arrays, *, count: int, seed: int, threads: int | None = None
) -> list[tuple[int, list[dict[str, Array]]]]:
    """Per kind of inexact constant (half an ulp off, or standing for a known number) how many, and shifted runs.

    Each run (``count`` of them for the first kind) is in float64 and shifts all constants of the kind; kinds without
    constants are left out. See ``with_constant_slack``.

    Raises:
        CannotRun: onnxruntime cannot run the perturbed graph.
    """
    slack = with_constant_slack(model)
    generator = np.random.default_rng(seed)
    known = sum(slack.is_known)
    kinds = []
    if known < len(slack.is_known):
        kinds.append((len(slack.is_known) - known, slack.rounding_signs(count, generator)))
    if known:
        kinds.append((known, slack.meaning_signs(generator)))
    if _without_double_kernel(slack.model):
        # As in run_exact: effects this small drown in the roundings of a float32 island.
        given = widened_feeds(feeds)
        try:
            return [(n, [run_reference(slack.model, given | {SIGNS: row}) for row in rows]) for n, rows in kinds]
        except CannotRun:
            pass
    return [(n, list(_perturbed(slack.model, SIGNS, rows, feeds, threads))) for n, rows in kinds]


def _perturbed(
    model: ir.Model, name: str, draws: Iterable[Array], feeds: Arrays, threads: int | None
) -> Iterator[dict[str, Array]]:
    """One run for each of ``draws`` of input ``name``, all in one session."""
    _make_islands(model)
    # Without optimizations: no rounding must be taken for a superfluous pair of casts.
    session = session_from_ir(model, session_options(library=False, threads=threads, optimization="disable"))
    names = [str(output.name) for output in model.graph.outputs]
    given = widened_feeds(feeds)
    for draw in draws:
        yield dict(zip(names, _run(session, names, given | {name: draw}), strict=True))


def widened_feeds(feeds: Arrays) -> dict[str, Array]:
    """The same values with every float array as float64."""
    return {name: a.astype(np.float64) if is_float(a.dtype) else a for name, a in feeds.items()}


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one of the float types this package knows, bfloat16 included."""
    return any(dtype == known.numpy() for known in FLOATS)


def _session(model: ir.Model, threads: int | None) -> Any:
    return session_from_ir(model, session_options(library=False, threads=threads))


def _run_session(model: ir.Model, feeds: Arrays, threads: int | None) -> dict[str, Array]:
    names = [str(output.name) for output in model.graph.outputs]
    return dict(zip(names, _run(_session(model, threads), names, feeds), strict=True))


def _run(session: Any, names: list[str], feeds: Arrays) -> list[Array]:
    known = {i.name for i in session.get_inputs()}
    try:
        return list(session.run(names, {name: a for name, a in feeds.items() if name in known}))
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"onnxruntime cannot run it: {error}") from error


def _make_islands(widened: ir.Model) -> None:
    # float32 even for what was a 16-bit type: those have fewer kernels still.
    for node in _without_double_kernel(widened):
        surround(node, _double_to_float, _double_to_float)


def _double_to_float(dtype: ir.DataType | None) -> ir.DataType | None:
    return ir.DataType.FLOAT if dtype == ir.DataType.DOUBLE else None


def _without_double_kernel(widened: ir.Model) -> list[ir.Node]:
    """Nodes that handle float64 although onnxruntime's CPU provider has kernels for other types only."""
    opset = opset_of(widened)
    table = _kernels()
    return [
        node
        for node in nodes_of(widened)
        if any(v is not None and v.dtype == ir.DataType.DOUBLE for v in (*node.inputs, *node.outputs))
        and (node.op_type in _MIXED_SIGNATURES or _lacks_double(table.get((node.domain, node.op_type)), opset))
    ]


def _lacks_double(kernels: list[tuple[int, int, bool]] | None, opset: int) -> bool:
    # An operator without any kernel is one that onnxruntime replaces by its function body.
    if not kernels:
        return False
    current = [double for first, last, double in kernels if first <= opset <= last]
    return bool(current) and not any(current)


@cache
def _kernels() -> dict[tuple[str, str], list[tuple[int, int, bool]]]:
    """(domain, operator) -> (first version, last version, takes float64) of the CPU provider's kernels."""
    import_onnxruntime()
    from onnxruntime.capi import _pybind_state

    table: dict[tuple[str, str], list[tuple[int, int, bool]]] = {}
    for kernel in getattr(_pybind_state, "get_all_opkernel_def", list)():
        if kernel.provider == "CPUExecutionProvider":
            domain = "" if kernel.domain == "ai.onnx" else kernel.domain
            # A sequence's type holds its elements': seq(tensor(double)).
            takes_double = "tensor(double)" in str(list(kernel.type_constraints.values()))
            # Operators of other domains are versioned apart from the opset; they have one version as a rule.
            first, last = kernel.version_range if not domain else (0, 1 << 31)
            table.setdefault((domain, kernel.op_name), []).append((first, last, takes_double))
    return table
