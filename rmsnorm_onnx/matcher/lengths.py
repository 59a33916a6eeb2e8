"""The lengths that a list of integers holds, where a graph computes them from Shape.

ONNX's inference follows such lists too, but into Reshape only from opset 14 on.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, Dims, Known

#: Longest chain of operators that computes a shape; deeper ones are no exporter's.
_DEPTH: Final = 8
_SAME_NUMBERS: Final = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze"})


def lengths_in(known: Known, value: ir.Value, depth: int = _DEPTH) -> Dims | None:
    """The numbers in ``value``, or the names of unknown lengths, in order; None where not even their count is known."""
    numbers = known.ints(value)
    node = value.producer()
    if numbers is not None or node is None or not depth or node.domain not in DEFAULT_DOMAINS:
        return numbers
    inputs = [i for i in node.inputs if i is not None]
    if len(inputs) != len(node.inputs) or not inputs or any(a.is_ref() for a in node.attributes.values()):
        return None
    if node.op_type == "Shape":
        shape = known.shape(inputs[0])
        start, end = (node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end"))
        return shape[start:end] if shape is not None else None
    if node.op_type in _SAME_NUMBERS:
        return lengths_in(known, inputs[0], depth - 1)
    if node.op_type == "Gather":
        held, chosen = lengths_in(known, inputs[0], depth - 1), known.ints(inputs[1])
        within = held is not None and chosen is not None and all(-len(held) <= i < len(held) for i in chosen)
        return tuple(held[i] for i in chosen) if within and held is not None and chosen is not None else None
    if node.op_type == "Concat":
        parts = [lengths_in(known, part, depth - 1) for part in inputs]
        return tuple(n for part in parts if part is not None for n in part) if None not in parts else None
    return None
