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
from rmsnorm_onnx.parity.operator import NormNode, norm_nodes, seen_after, seen_before
from rmsnorm_onnx.parity.oracle import consult
from rmsnorm_onnx.parity.readings import bound_of_operator, bound_of_subgraph, reading, worst_element
from rmsnorm_onnx.parity.records import BODY, KERNEL, SUBGRAPH, NodeParity
from rmsnorm_onnx.parity.runs import Options

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]


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
    nodes = list(norm_nodes(typed))
    if not nodes:
        return (), ("the fused model has no norm node",)
    before = runtime.typed_copy(original.model, inline_ours=False)
    known = {str(value.name) for node in runtime.nodes_of(before) for value in node.outputs}
    known |= {str(value.name) for value in before.graph.inputs}
    wanted = [value for norm in nodes for value in (*norm.inputs, norm.y, norm.sum) if value is not None]
    wanted += [seen_before(value, known) for norm in nodes for value in norm.inputs]
    shown, names = runtime.with_values(typed, [str(value.name) for value in wanted])
    run = runtime.run_side(
        runtime.LoadedModel(shown, None, fused.name, fused.sha256),
        feeds,
        library=options.library,
        threads=options.threads,
        optimization=options.optimization,
        reference=not options.library,
    )
    check = _Check(_Captured(run.outputs, names, feeds), typed, before, known, options)
    records, unseen, idle = [], [], []
    for norm in nodes:
        y = check.captured.of(norm.y)
        if y is None:
            unseen.append(_label(norm))
        elif y.size == 0:
            idle.append(_label(norm))
        else:
            records.append(check(norm, inputs_name))
    notes = [
        f"{len(found)} norm nodes {what}: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        for what, found in (("in the body of a Loop or Scan were not looked at", unseen), ("did not run", idle))
        if found
    ]
    return tuple(records), tuple(notes)


@dataclass(frozen=True, slots=True)
class _Captured:
    outputs: Outputs
    names: Mapping[str, str]
    feeds: Mapping[str, Array]

    def of(self, value: ir.Value) -> Array | None:
        """What the value held when the model ran; constants and the model's own inputs included."""
        if value.producer() is None:
            if str(value.name) in self.feeds:
                return self.feeds[str(value.name)]
            return None if value.const_value is None else value.const_value.numpy()
        name = self.names.get(str(value.name))
        return None if name is None else self.outputs[name]


@dataclass(frozen=True, slots=True)
class _Check:
    captured: _Captured
    fused: ir.Model
    original: ir.Model
    known: Collection[str]
    options: Options

    def __call__(self, norm: NormNode, inputs_name: str) -> NodeParity:
        given = {str(value.name): self._given(value) for value in norm.inputs}
        inputs = [given[str(value.name)] for value in norm.inputs]
        attributes = norm.attributes(inputs[0].ndim)
        oracle = consult(norm.op, inputs, attributes)
        names = [str(value.name) for value in (norm.y, norm.sum) if value is not None]
        results: dict[str, list[Array] | str] = {}
        part, results[SUBGRAPH] = self._by_subgraph(norm, [oracle.faithful.shape] * len(names))
        results[BODY] = self._by_body(norm, given, names)
        results[KERNEL] = self._by_kernel(norm)
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
            output=names[0],
            dtype=str(oracle.faithful.dtype),
            shape=oracle.faithful.shape,
            width=oracle.width,
            replaced=0 if part is None else len(part.graph),
            readings=tuple(readings),
            worst=worst_element(results, oracle, bounds),
            detail="; ".join(details),
        )

    def _given(self, value: ir.Value) -> Array:
        array = self.captured.of(value)
        if array is None:
            raise CannotRun(f"the value '{value.name}' that a norm reads could not be captured")
        return array

    def _by_subgraph(self, norm: NormNode, shapes: list[tuple[int, ...]]) -> tuple[ir.Model | None, list[Array] | str]:
        """What the original has between the values that both models have, and its results."""
        begin = [seen_before(value, self.known) for value in norm.inputs]
        end = [seen_after(value, self.known) for value in (norm.y, norm.sum) if value is not None]
        names = [str(value.name) for value in end]
        part = None
        try:
            given = {str(value.name): self._given(value) for value in begin if str(value.name) in self.known}
            part = runtime.between(self.original, given, names, self.captured.feeds)
            results = self._run(part, given, names)
            return part, [array.reshape(shape) for array, shape in zip(results, shapes, strict=True)]
        except (CannotRun, ValueError) as error:  # ValueError: arrays of other sizes
            return part, str(error)

    def _by_body(self, norm: NormNode, given: Mapping[str, Array], names: list[str]) -> list[Array] | str:
        if not norm.is_ours:
            return f"{norm.node.op_type} has no body in the model"
        try:
            alone = runtime.between(self.fused, given, names)
            if norm.node.op_identifier() not in alone.functions:
                opset = alone.graph.opset_imports.get("", spec.MINIMUM_OPSET)
                body = ir.serde.deserialize_function(function.function_proto(norm.op.name, function.Form(opset)))
                alone.functions[body.identifier()] = body
            return self._run(alone, given, names)
        except CannotRun as error:
            return str(error)

    def _by_kernel(self, norm: NormNode) -> list[Array] | str:
        if norm.is_ours and not self.options.library:
            return "run without the library"
        return [self._given(value) for value in (norm.y, norm.sum) if value is not None]

    def _run(self, part: ir.Model, given: Mapping[str, Array], names: list[str]) -> list[Array]:
        arrays = {**self.captured.feeds, **given}
        feeds = {str(value.name): arrays[str(value.name)] for value in part.graph.inputs}
        run = runtime.run_side(
            runtime.LoadedModel(part, None, "part", ""), feeds, library=False, threads=1, optimization="disable"
        )
        return [run.outputs[name] for name in names]


def _label(norm: NormNode) -> str:
    return norm.node.name or str(norm.y.name)
