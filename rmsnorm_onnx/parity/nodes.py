"""Every fused node on the inputs it really gets: the old subgraph, the function body and the kernel, side by side.

The inputs are captured from the running fused model, so that all three see the same. Each is compared with the
float64 oracle of the operator, within a bound (``parity.oracle``, ``parity.readings``). An old subgraph that is further
off than its bound computes something else or overflows: that is said and does not count against the node, as the
models' outputs decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import function, reference, runtime, spec
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity.captured import Captured, capture
from rmsnorm_onnx.parity.operator import NormNode, norm_nodes, seen_after, seen_before
from rmsnorm_onnx.parity.oracle import consult
from rmsnorm_onnx.parity.readings import bound_of_operator, bound_of_subgraph, reading, worst_element
from rmsnorm_onnx.parity.records import BODY, KERNEL, SUBGRAPH, NodeParity
from rmsnorm_onnx.parity.runs import Options
from rmsnorm_onnx.parity.scopes import Scopes, paths

Array = npt.NDArray[Any]


def check_nodes(
    original: runtime.LoadedModel,
    fused: runtime.LoadedModel,
    feeds: Mapping[str, Array],
    options: Options,
    inputs_name: str,
) -> tuple[tuple[NodeParity, ...], tuple[str, ...]]:
    """Compare every norm node of ``fused`` on the inputs it gets when the model runs on ``feeds``.

    Returns:
        A record per node that ran, and notes about those that could not be looked at.

    Raises:
        CannotRun: the fused model cannot run with its inner values as outputs. LibraryMissing: the library is wanted
            and missing.
    """
    typed = runtime.typed_copy(fused.model, inline_ours=False)
    norms = list(norm_nodes(typed))
    if not norms:
        return (), ("the fused model has no norm node",)
    before = runtime.typed_copy(original.model, inline_ours=False)
    scopes, places = Scopes(before), dict(paths(typed.graph))
    known = [scopes.known_at(places[norm.graph]) for norm in norms]
    check = _Check(typed, before, options)
    records: list[NodeParity] = []
    missing: dict[str, list[str]] = {}
    seen = capture(fused, typed, list(map(_around, norms, known)), feeds, options)
    for norm, names, times in zip(norms, known, seen, strict=True):
        if isinstance(times, str):
            missing.setdefault(f"were not looked at, {times}", []).append(_label(norm))
        elif not times:
            missing.setdefault("did not run", []).append(_label(norm))
        else:
            records += [check(norm, names, captured, inputs_name) for captured in times]
    notes = [
        f"{len(found)} norm nodes {why}: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        for why, found in missing.items()
    ]
    return tuple(records), tuple(notes)


def _around(norm: NormNode, known: Collection[str]) -> list[ir.Value]:
    """The values to capture for ``norm``, its result first."""
    values = [norm.y, norm.sum, *norm.inputs, *(seen_before(value, known) for value in norm.inputs)]
    return list(dict.fromkeys(value for value in values if value is not None))


@dataclass(frozen=True, slots=True)
class _Check:
    fused: ir.Model
    original: ir.Model
    options: Options

    def __call__(
        self, norm: NormNode, known: Mapping[str, ir.Value], captured: Captured, inputs_name: str
    ) -> NodeParity:
        inputs = [captured.of(value) for value in norm.inputs]
        attributes = norm.attributes(inputs[0].ndim)
        oracle = consult(norm.op, inputs, attributes)
        results: dict[str, list[Array] | str] = {}
        part, results[SUBGRAPH] = self._by_subgraph(norm, known, captured, oracle.faithful.shape)
        results[BODY] = self._by_body(norm, captured)
        results[KERNEL] = self._by_kernel(norm, captured)
        short = norm.is_ours and attributes.stash_type is spec.DType.FLOAT
        bounds = {
            SUBGRAPH: None if part is None else bound_of_subgraph(part, oracle),
            BODY: bound_of_operator(norm, oracle, attributes, None),
            KERNEL: bound_of_operator(norm, oracle, attributes, reference.KERNEL_ADDITIONS if short else None),
        }
        readings = [reading(how, result, oracle, bounds[how]) for how, result in results.items()]
        details = []
        if outside := int((~oracle.judged).sum()):
            details.append(f"{outside} elements in rows whose squares leave the stash type's range are not judged")
        if not readings[0].ok:
            details.append("the original subgraph is further off than its roundings explain")
        if norm.op is spec.SKIP and not readings[1].ok:
            # Measured with onnxruntime 1.31: a body's Casts from float32 to float16 and back are taken out.
            unrounded = consult(norm.op, inputs, attributes, rounds_sum=False)
            again = reading(BODY, results[BODY], unrounded, bounds[BODY])
            if again.ok:
                readings[1] = again
                details.append("the body was run without the rounding of its sum, and is judged without it")
        return NodeParity(
            inputs=inputs_name,
            node=_label(norm),
            op=norm.op.name,
            output=str(norm.y.name),
            dtype=str(oracle.faithful.dtype),
            shape=oracle.faithful.shape,
            width=oracle.width,
            replaced=0 if part is None else len(part.graph),
            readings=tuple(readings),
            worst=worst_element(results, oracle, bounds),
            detail="; ".join(details),
            iterations=captured.iterations,
        )

    def _by_subgraph(
        self, norm: NormNode, known: Mapping[str, ir.Value], captured: Captured, shape: tuple[int, ...]
    ) -> tuple[ir.Model | None, list[Array] | str]:
        """What the original has between the values that both models have, and its results."""
        begin = [seen_before(value, known) for value in norm.inputs]
        end = [str(seen_after(value, known).name) for value in _results(norm)]
        part = None
        try:
            if missing := [name for name in end if name not in known]:
                raise CannotRun(f"the original has no value called {', '.join(missing)}")
            given = {str(value.name): captured.of(value) for value in begin if str(value.name) in known}
            part = runtime.between(self.original, given, [known[name] for name in end], captured.feeds)
            return part, [array.reshape(shape) for array in _run(part, {**captured.feeds, **given}, end)]
        except (CannotRun, ValueError) as error:  # ValueError: arrays of other sizes
            return part, str(error)

    def _by_body(self, norm: NormNode, captured: Captured) -> list[Array] | str:
        if not norm.is_ours:
            return f"{norm.node.op_type} has no body in the model"
        given = {str(value.name): captured.of(value) for value in norm.inputs}
        try:
            alone = runtime.between(self.fused, given, _results(norm))
            if norm.node.op_identifier() not in alone.functions:
                opset = alone.graph.opset_imports.get("", spec.MINIMUM_OPSET)
                body = ir.serde.deserialize_function(function.function_proto(norm.op.name, function.Form(opset)))
                alone.functions[body.identifier()] = body
            return _run(alone, given, [str(value.name) for value in _results(norm)])
        except CannotRun as error:
            return str(error)

    def _by_kernel(self, norm: NormNode, captured: Captured) -> list[Array] | str:
        if norm.is_ours and not self.options.library:
            return "run without the library"
        return [captured.of(value) for value in _results(norm)]


def _run(part: ir.Model, arrays: Mapping[str, Array], names: list[str]) -> list[Array]:
    feeds = {str(value.name): arrays[str(value.name)] for value in part.graph.inputs}
    run = runtime.run_side(
        runtime.LoadedModel(part, None, "part", ""), feeds, library=False, threads=1, optimization="disable"
    )
    return [run.outputs[name] for name in names]


def _results(norm: NormNode) -> list[ir.Value]:
    return [value for value in (norm.y, norm.sum) if value is not None]


def _label(norm: NormNode) -> str:
    return norm.node.name or str(norm.y.name)
