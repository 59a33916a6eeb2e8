"""Tensors that hold what they say: a known element type, a possible shape, and exactly the data for both."""

from __future__ import annotations

import math
from typing import Any, Final

import onnx
import onnx_ir as ir

from rmsnorm_onnx.modelfile.datafiles import DataFiles
from rmsnorm_onnx.modelfile.flaw import Place, flaw

#: numpy 1 has 32 axes at most.
_AXES: Final = 32
_LARGEST: Final = 2**63 - 1
_FIELDS: Final = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
#: Where a type's elements lie when not in raw_data, and how many entries one takes; all others in int32_data.
_TYPED: Final[dict[ir.DataType, tuple[str, int]]] = {
    ir.DataType.FLOAT: ("float_data", 1),
    ir.DataType.COMPLEX64: ("float_data", 2),
    ir.DataType.DOUBLE: ("double_data", 1),
    ir.DataType.COMPLEX128: ("double_data", 2),
    ir.DataType.INT64: ("int64_data", 1),
    ir.DataType.UINT32: ("uint64_data", 1),
    ir.DataType.UINT64: ("uint64_data", 1),
    ir.DataType.STRING: ("string_data", 1),
}


def check_tensor(fields: dict[str, Any], place: Place, files: DataFiles) -> None:
    """Raise a Flaw where ``fields`` (of a TensorProto, by name) contradict each other or the data file."""
    dtype = _data_type(fields.get("data_type", 0), place)
    dims = fields.get("dims", ())
    if len(dims) > _AXES or any(dim < 0 for dim in dims):
        raise flaw(place, f"a shape has at most {_AXES} axes and none is negative, got {_short(dims)}")
    if math.prod(max(dim, 1) for dim in dims) * 16 > _LARGEST:
        raise flaw(place, f"a shape of {_short(dims)} is larger than any memory")
    count = math.prod(dims)
    if "segment" in fields:
        raise flaw(place, "it is a segment of a larger tensor, which no tool reads")
    held = [name for name in _FIELDS if fields.get(name)]
    if fields.get("data_location") == onnx.TensorProto.EXTERNAL:
        if held:
            raise flaw(place, f"its data is said to be in another file, but there is {held[0]} as well")
        if dtype is ir.DataType.STRING:
            raise flaw(place, "strings cannot be in another file")
        files.check(fields.get("external_data", ()), _bytes(dtype, count), place)
        return
    if len(held) > 1:
        raise flaw(place, f"it holds its data twice, in {' and '.join(held)}")
    typed, per_element = _TYPED.get(dtype, ("int32_data", 1))
    name = held[0] if held else "raw_data" if dtype is not ir.DataType.STRING else typed
    if name == "raw_data" and dtype is not ir.DataType.STRING:
        needed = _bytes(dtype, count)
    elif name == typed:
        # Types of less than a byte are packed, as in raw_data.
        packed = dtype is not ir.DataType.STRING and dtype.bitwidth < 8
        needed = _bytes(dtype, count) if packed else count * per_element
    else:
        raise flaw(place, f"data of {dtype.name} belongs in {typed} or, other than strings, raw_data, not in {name}")
    entries = len(fields.get(name, ()))
    if entries != needed:
        unit = "bytes of data" if name == "raw_data" else f"entries of {name}"
        raise flaw(place, f"{dtype.name} of shape {_short(dims)} takes {needed} {unit}, got {entries}")


def _data_type(number: int, place: Place) -> ir.DataType:
    try:
        dtype = ir.DataType(number)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype is ir.DataType.UNDEFINED:
        raise flaw(place, f"no element type has the number {number}")
    return dtype


def _bytes(dtype: ir.DataType, count: int) -> int:
    return (count * dtype.bitwidth + 7) // 8


def _short(dims: Any) -> str:
    return str(list(dims)) if len(dims) <= _AXES else f"{len(dims)} axes"
