"""Running the float64 reading: onnxruntime where it has the kernels, else onnx's ReferenceEvaluator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.library import import_onnxruntime
from rmsnorm_onnx.runtime.evaluator import Array, Arrays, run_reference
from rmsnorm_onnx.runtime.islands import surround
from rmsnorm_onnx.runtime.session import session_from_ir, session_options
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


class ExactRunner:
    """Runs the float64 reading of a model (see ``widen_to_float64``) on one set of feeds after the other.

    onnxruntime if it has a float64 kernel for every operator, else the ReferenceEvaluator, else onnxruntime with the
    operators without such a kernel in float32. A session is made when it is first needed, and kept.
    """

    def __init__(self, model: ir.Model, *, threads: int | None = None) -> None:
        """Widen ``model``, which is not changed; raises InvalidInput if functions cannot be inlined."""
        self._widened = widen_to_float64(model)
        self._lacking = sorted({node.op_type for node in without_double_kernel(self._widened)})
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    def __call__(self, feeds: Arrays) -> ExactRun:
        """One run, on feeds in the model's own types.

        Raises:
            CannotRun: none of the ways works; the message holds the reason of each.
        """
        given = widened_feeds(feeds)
        reasons = []
        if self._lacking:
            reasons.append(f"onnxruntime has no float64 kernel for {', '.join(self._lacking)}")
        else:
            try:
                return ExactRun(self._run("double", given), "onnxruntime in float64", 2.0**-53)
            except CannotRun as error:
                reasons.append(str(error))
        try:
            return ExactRun(run_reference(self._widened, given), "onnx.reference in float64", 2.0**-53)
        except CannotRun as error:
            reasons.append(str(error))
        if self._lacking:
            how = f"onnxruntime in float64, {', '.join(self._lacking)} in float32"
            try:
                return ExactRun(self._run("islands", given), how, 2.0**-24)
            except CannotRun as error:
                reasons.append(str(error))
        raise CannotRun("no float64 run: " + "; ".join(reasons))

    def _run(self, kind: str, given: Arrays) -> dict[str, Array]:
        names = [str(output.name) for output in self._widened.graph.outputs]
        if kind not in self._sessions:
            model = self._widened
            if kind == "islands":
                model = model.clone()
                make_islands(model)
            options = session_options(library=False, threads=self._threads)
            self._sessions[kind] = session_from_ir(model, options)
        return dict(zip(names, run_session(self._sessions[kind], names, given), strict=True))


def run_exact(model: ir.Model, feeds: Arrays, *, threads: int | None = None) -> ExactRun:
    """Run the float64 reading of ``model`` once; see ``ExactRunner``."""
    return ExactRunner(model, threads=threads)(feeds)


def widened_feeds(feeds: Arrays) -> dict[str, Array]:
    """The same values with every float array as float64."""
    return {name: a.astype(np.float64) if is_float(a.dtype) else a for name, a in feeds.items()}


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one of the float types this package knows, bfloat16 included."""
    return any(dtype == known.numpy() for known in FLOATS)


def run_session(session: Any, names: list[str], feeds: Arrays) -> list[Array]:
    """The outputs called ``names``; feeds that the session does not take are left out. Raises CannotRun."""
    known = {i.name for i in session.get_inputs()}
    try:
        return list(session.run(names, {name: a for name, a in feeds.items() if name in known}))
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"onnxruntime cannot run it: {error}") from error


def make_islands(widened: ir.Model) -> None:
    """Surround, in place, every node that onnxruntime has no float64 kernel for with casts."""
    # float32 even for what was a 16-bit type: those have fewer kernels still.
    for node in without_double_kernel(widened):
        surround(node, _double_to_float, _double_to_float)


def _double_to_float(dtype: ir.DataType | None) -> ir.DataType | None:
    return ir.DataType.FLOAT if dtype == ir.DataType.DOUBLE else None


def without_double_kernel(widened: ir.Model) -> list[ir.Node]:
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
