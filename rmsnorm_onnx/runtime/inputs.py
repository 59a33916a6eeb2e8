"""What a model must be fed: names, types, dimensions, and what each input is for."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime.roles import Axis, Evidence, Role, axes_of, evidence, role_of
from rmsnorm_onnx.runtime.uses import Uses


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One graph input that must be fed.

    Attributes:
        name: of the input.
        dtype: its element type.
        dims: an int per static axis and a name per free one; an unnamed axis is called ``input[axis]``.
        role: what it is for.
        axes: what each axis counts; None where only its own name could tell.
        seen: what its readers tell about it.
        rank_known: whether the model says how many axes there are.
    """

    name: str
    dtype: ir.DataType
    dims: tuple[int | str, ...]
    role: Role
    axes: tuple[Axis | None, ...]
    seen: Evidence
    rank_known: bool


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs without a default value, in the graph's order; an unknown rank is read as 2 (batch, sequence).

    Raises:
        InvalidInput: an input is no tensor but a sequence of tensors.
    """
    uses = Uses(model)
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    both = any(str(value.name).lower().startswith("decoder_input") for value in given)
    return tuple(_spec(value, uses, both) for value in given)


def _spec(value: ir.Value, uses: Uses, has_decoder: bool) -> InputSpec:
    name = str(value.name)
    if isinstance(value.type, ir.SequenceType):
        raise InvalidInput(f"input {name} is a sequence of tensors; only models that take tensors can be fed")
    shape = value.shape if value.shape is not None else ir.Shape([None, None])
    dims = tuple(_dim(name, axis, dim) for axis, dim in enumerate(shape))
    dtype = value.dtype if value.dtype is not None else ir.DataType.FLOAT
    seen = evidence(uses.reads(value))
    role = role_of(name, dtype, dims, seen)
    axes = axes_of(name, role, dims, seen, encoder=has_decoder)
    return InputSpec(name, dtype, dims, role, axes, seen, value.shape is not None)


def _dim(name: str, axis: int, dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return str(dim.value) if dim.value else f"{name}[{axis}]"
