"""What a model's inputs are for, read from names and from where they flow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

import onnx_ir as ir

#: Operators through which an index keeps its value on the way to a Gather.
_KEEPS_VALUE: Final = frozenset(
    {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand", "Flatten", "Transpose", "Slice", "Clip"}
)


class Role(Enum):
    """What an input is for; it decides which values fit."""

    INDEX = "rows of a table"
    POSITION = "positions"
    MASK = "mask"
    FLAG = "flag"
    COUNT = "count"
    REAL = "real numbers"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One graph input that must be fed.

    Attributes:
        name: of the input.
        dtype: its element type.
        dims: an int per static axis and a name per free one; an unnamed axis is called ``input[axis]``.
        role: what it is for.
        rows: rows of the smallest table it indexes (INDEX, POSITION), else None.
    """

    name: str
    dtype: ir.DataType
    dims: tuple[int | str, ...]
    role: Role
    rows: int | None = None


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs without a default value, in the graph's order; an unknown rank is read as 2 (batch, sequence)."""
    return tuple(_spec(value) for value in model.graph.inputs if not value.is_initializer())


def _spec(value: ir.Value) -> InputSpec:
    name = str(value.name)
    shape = value.shape if value.shape is not None else ir.Shape([None, None])
    dims = tuple(_dim(name, axis, dim) for axis, dim in enumerate(shape))
    dtype = value.dtype if value.dtype is not None else ir.DataType.FLOAT
    rows = _table_rows(value) if dtype.is_integer() else None
    return InputSpec(name, dtype, dims, _role(name, dtype, rows), rows)


def _dim(name: str, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return str(dim.value) if dim.value else f"{name}[{axis}]"


def _role(name: str, dtype: ir.DataType, rows: int | None) -> Role:
    lowered = name.lower()
    if "mask" in lowered:
        return Role.MASK
    if dtype == ir.DataType.BOOL:
        return Role.FLAG
    if dtype.is_integer():
        if "position" in lowered:
            return Role.POSITION
        return Role.INDEX if rows is not None else Role.COUNT
    return Role.REAL


def _table_rows(value: ir.Value) -> int | None:
    """Rows of the smallest initializer that is gathered with this value as index."""
    rows: list[int] = []
    seen: set[ir.Value] = set()
    pending = [value]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, index in current.uses():
            if node.op_type == "Gather" and index == 1:
                rows += _rows_of(node)
            elif node.op_type in _KEEPS_VALUE and index == 0:
                pending.append(node.outputs[0])
    return min(rows, default=None)


def _rows_of(gather: ir.Node) -> list[int]:
    table = gather.inputs[0]
    axis = gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0
    if table is None or table.shape is None:
        return []
    rows = table.shape[axis]
    return [rows] if isinstance(rows, int) else []
