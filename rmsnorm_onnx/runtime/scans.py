"""A Scan as the Loop that computes the same: a Loop may carry values that change their shape, a Scan may not."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.types import set_type

_INT64: Final = ir.DataType.INT64
#: What Slice takes as the end of an axis that is read backwards.
_FRONT: Final = np.iinfo(np.int64).min


def loop_in_place_of(scan: ir.Node) -> ir.Node:
    """Replace a Scan (of opset 9 or later), in place; nothing else of the graph changes.

    Raises:
        ValueError: a scan output is stacked on an axis other than the first, and its rank is not known.
    """
    return _Rewriting(scan).loop()


class _Rewriting:
    def __init__(self, scan: ir.Node) -> None:
        self._scan = scan
        self._body = scan.attributes["body"].as_graph()
        self._first = self._body[0]
        graph = scan.graph
        assert graph is not None
        self._graph = graph
        self._name = f"{scan.outputs[0].name} as a loop"
        self._count = 0
        self._inputs = scan.attributes["num_scan_inputs"].as_int()
        self._states = len(scan.inputs) - self._inputs
        self._outputs = len(scan.outputs) - self._states

    def loop(self) -> ir.Node:
        permutations = [self._permutation(index) for index in range(self._outputs)]
        scanned = self._scan.inputs[self._states :]
        assert scanned[0] is not None
        shape = self._add("Shape", [scanned[0]], _INT64)
        trips = self._add("Gather", [shape, self._constant(self._axis("input", 0))], _INT64, axis=0)
        number, going = (
            ir.Value(name=f"{self._name}, {role}", type=ir.TensorType(dtype), shape=ir.Shape([]))
            for role, dtype in (("number", _INT64), ("going", ir.DataType.BOOL))
        )
        self._read_elements(number)
        self._body.inputs[0:0] = [number, going]
        still = self._add("Identity", [going], ir.DataType.BOOL, body=True)
        self._body.outputs.insert(0, still)
        del self._scan.attributes["body"]
        loop = ir.node(
            "Loop",
            [trips, None, *self._scan.inputs[: self._states]],
            {"body": self._body},
            num_outputs=len(self._scan.outputs),
            name=self._scan.name,
        )
        self._graph.insert_before(self._scan, loop)
        for position, (old, new) in enumerate(zip(self._scan.outputs, loop.outputs, strict=True)):
            new.name, new.type = f"{self._name}, {position}", old.type
            index = position - self._states
            substitute(old, new if index < 0 else self._arranged(new, index, permutations[index]))
        self._graph.remove(self._scan, safe=True)
        return loop

    def _read_elements(self, number: ir.Value) -> None:
        """Let the body read its element of each scanned value itself."""
        backward = None
        for index in range(self._inputs):
            element = self._body.inputs.pop(self._states)
            at = number
            if self._is_backward("input", index):
                minus_one = self._constant(-1)
                backward = backward or self._add("Sub", [minus_one, number], _INT64, body=True)
                at = backward
            whole = self._scan.inputs[self._states + index]
            assert whole is not None
            axis = self._axis("input", index)
            read = self._add("Gather", [whole, at], element.dtype or whole.dtype, body=True, axis=axis)
            substitute(element, read)

    def _arranged(self, stacked: ir.Value, index: int, permutation: list[int] | None) -> ir.Value:
        """What a Loop stacks on the first axis and forward, as the Scan gives it."""
        value = stacked
        if self._is_backward("output", index):
            ends = [self._constant([number]) for number in (-1, _FRONT, 0, -1)]
            value = self._add("Slice", [value, *ends], stacked.dtype)
        if permutation is not None:
            value = self._add("Transpose", [value], stacked.dtype, perm=permutation)
        return value

    def _permutation(self, index: int) -> list[int] | None:
        axis = self._axis("output", index)
        if axis == 0:
            return None
        shape = self._scan.outputs[self._states + index].shape
        if shape is None:
            raise ValueError("in the body of a Scan that stacks values of unknown rank")
        axis %= len(shape)
        return [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]

    def _axis(self, role: str, index: int) -> int:
        return self._listed(f"scan_{role}_axes", index)

    def _is_backward(self, role: str, index: int) -> bool:
        return self._listed(f"scan_{role}_directions", index) == 1

    def _listed(self, attribute: str, index: int) -> int:
        listed = self._scan.attributes.get(attribute)
        return 0 if listed is None else listed.as_ints()[index]

    def _constant(self, numbers: int | list[int]) -> ir.Value:
        return self._add("Constant", [], _INT64, value=ir.tensor(np.array(numbers, np.int64)))

    def _add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        dtype: ir.DataType | None,
        *,
        body: bool = False,
        **attributes: Any,
    ) -> ir.Value:
        """A node before the Scan or what takes its place, or at the beginning of the body."""
        node = ir.node(op_type, inputs, attributes)
        output = node.outputs[0]
        self._count += 1
        output.name = f"{self._name}, {op_type} {self._count}"
        if dtype is not None:
            set_type(output, dtype)
        if body:
            self._body.insert_before(self._first, node)
        else:
            self._graph.insert_before(self._scan, node)
        return output
