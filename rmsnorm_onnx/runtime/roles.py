"""What an input is for and what its axes count, read from its name, its type and who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx.runtime.uses import Read, constant, table_rows


class Role(Enum):
    """What an input is for; it decides which values fit."""

    INDEX = "rows of a table"
    POSITION = "positions"
    MASK = "mask"
    FLAG = "flag"
    LENGTH = "length of something"
    COUNT = "count"
    CACHE = "past keys or values"
    REAL = "real numbers"


class Axis(Enum):
    """What an axis counts; the value is also the short name that it is given by and shown as."""

    BATCH = "batch"
    SEQUENCE = "seq"
    PAST = "past"
    TOTAL = "total"
    ENCODER = "encoder"
    SAMPLES = "samples"
    PATCHES = "patches"
    PIXELS = "pixels"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the readers of an input tell about it.

    Attributes:
        rows: of the smallest table that it indexes.
        role: the role of the operand that it is in an operator of attention.
        length: what it measures, if it is a length.
        index: whether it is not that length but the last index, one less.
        past_axis: the axis along which it grows into a graph output.
        drops: whether a mask's true elements are those that are left out.
        added: whether its values are added to something computed.
        complemented: whether they are subtracted from a number, as 1 - mask.
    """

    rows: int | None = None
    role: Role | None = None
    length: Axis | None = None
    index: bool = False
    past_axis: int | None = None
    drops: bool | None = None
    added: bool = False
    complemented: bool = False


#: (domain, operator) -> {operand: role} where the operator's definition says it.
_OPERANDS: Final[dict[tuple[str, str], dict[int, Role]]] = {
    ("", "Attention"): {3: Role.MASK, 4: Role.CACHE, 5: Role.CACHE},
    ("com.microsoft", "Attention"): {3: Role.MASK, 4: Role.CACHE, 5: Role.MASK},
    ("com.microsoft", "MultiHeadAttention"): {4: Role.MASK, 5: Role.MASK, 6: Role.CACHE, 7: Role.CACHE},
    ("com.microsoft", "GroupQueryAttention"): {3: Role.CACHE, 4: Role.CACHE, 5: Role.LENGTH, 6: Role.LENGTH},
}
_PAST_AXES: Final = {("com.microsoft", "Attention"): 3}
#: Operands that are added to scores where they are floats.
_ADDED: Final = {("", "Attention"): 3, ("com.microsoft", "Attention"): 5, ("com.microsoft", "MultiHeadAttention"): 5}
#: A number that softmax takes for minus infinity is at most this.
_LEFT_OUT: Final = -1000.0


def evidence(reads: Iterable[Read]) -> Evidence:
    """What the readers of an input tell about it."""
    rows: list[int] = []
    role, past_axis, drops, length = None, None, None, None
    index = added = complemented = False
    for read in reads:
        if (found := table_rows(read)) is not None:
            rows.append(found)
        operand = _OPERANDS.get(read.operator, {}).get(read.operand)
        role = role or operand
        if operand is Role.CACHE:
            past_axis = _PAST_AXES.get(read.operator, 2)
        elif operand is Role.LENGTH:
            length, index = Axis.TOTAL, index or read.operand == 5
        elif read.node.op_type == "Concat" and past_axis is None:
            past_axis = _grows(read)
        elif read.node.op_type == "Where" and read.operand == 0 and drops is None:
            drops = _drops(read)
        elif _is_added(read):
            added = True
        elif read.node.op_type == "Sub" and read.operand == 1 and constant(read.operand_at(0), read.calls) is not None:
            complemented = True
    return Evidence(min(rows, default=None), role, length, index, past_axis, drops, added, complemented)


def role_of(name: str, dtype: ir.DataType, shape: tuple[int | str, ...], seen: Evidence) -> Role:
    """What an input of this name, type and shape (an int per static axis and a name per free one) is for."""
    lowered, rank = name.lower(), len(shape)
    # Two or four coordinates of a patch or box are no positions of tokens.
    position = "position" in lowered and not (rank > 2 and shape[-1] in {2, 4})
    if seen.role is not None:
        return seen.role
    if "mask" in lowered or (dtype.is_floating_point() and re.search(r"att\w*_?bias", lowered)):
        return Role.MASK
    if dtype == ir.DataType.BOOL:
        return Role.MASK if rank > 1 else Role.FLAG
    if seen.rows is not None and not position:
        return Role.INDEX  # of any type: Keras' token numbers are float32
    if dtype.is_floating_point():
        # States of convolutions and recurrences have their size whatever the length of the past is.
        cache = rank > 2 and not re.search(r"conv|ssm|state|recurrent|shift", lowered)
        grows = seen.past_axis is not None or re.search(r"past|cache|key_value|kv", lowered)
        return Role.CACHE if cache and grows else Role.REAL
    if not dtype.is_integer():
        return Role.REAL
    if length_of(lowered) is not None:
        return Role.LENGTH
    if position:
        return Role.POSITION
    return Role.INDEX if re.search(r"(?<!num)(?:^|_)(ids|idx|tokens|indices)", lowered) else Role.COUNT


def length_of(lowered: str) -> Axis | None:
    """What an integer input of this name measures, or None."""
    if not re.search(r"len|total_seq", lowered) or re.search(r"max|min|penalty", lowered):
        return None
    return axis_by_words(lowered) or (Axis.PAST if re.search("cache|kv", lowered) else Axis.SEQUENCE)


def axis_by_words(lowered: str) -> Axis | None:
    """What an axis (or length) of this name counts, where the name is plain about it."""
    if re.search(r"(?<!de)(?<!d)enc(oder|_)|source|src|cross", lowered):
        return Axis.ENCODER
    if "past" in lowered:
        return Axis.PAST
    if "total" in lowered or "seqlens_k" in lowered:
        return Axis.TOTAL
    if "batch" in lowered:
        return Axis.BATCH
    return None


def axes_of(
    name: str, role: Role, shape: tuple[int | str, ...], seen: Evidence, *, encoder: bool = False
) -> tuple[Axis | None, ...]:
    """What each axis of an input counts; None where only the axis' own name could tell.

    Args:
        name: of the input.
        role: of the input.
        shape: an int per static axis and a name per free one.
        seen: what its readers tell.
        encoder: whether sequences are an encoder's, as the decoder's inputs say that they are.
    """
    lowered, rank = name.lower(), len(shape)
    axes: list[Axis | None] = [None] * rank
    if rank == 0:
        return ()
    encoder = encoder and role is not Role.CACHE and "decoder" not in lowered
    across = encoder or axis_by_words(lowered) is Axis.ENCODER
    sequence = Axis.ENCODER if across else Axis.SEQUENCE
    if role is Role.CACHE:
        axes[0] = Axis.BATCH
        axes[_past_axis(shape, seen)] = Axis.ENCODER if across else Axis.PAST
        if seen.past_axis == 3:  # keys and values in one tensor, before the batch
            axes[:2] = [None, Axis.BATCH]
    elif role is Role.MASK and not re.search(r"pixel|image", lowered):
        last = Axis.ENCODER if across else Axis.TOTAL
        axes[-1] = last
        if rank > 1:
            axes[0] = Axis.BATCH
        if rank > 2:
            axes[-2] = Axis.SEQUENCE
    elif role is Role.POSITION:
        axes[-1] = sequence
        if rank > 1:
            axes[-2] = Axis.BATCH
    elif role is Role.INDEX or "embeds" in lowered or "hidden_states" in lowered:
        axes[:2] = [Axis.BATCH, sequence][: max(rank, 1)] if rank > 1 else [sequence]
    elif re.search(r"audio|wave|speech|input_values", lowered) and rank == 2:
        axes = [Axis.BATCH, Axis.SAMPLES]
    elif re.search(r"pixel|patch", lowered) and rank == 2:
        axes[0] = Axis.PATCHES
    elif re.search(r"pixel|image", lowered) and rank in {3, 4}:
        axes = [Axis.BATCH, *[Axis.PIXELS] * (rank - 1)]
    else:
        axes[0] = Axis.BATCH
    return tuple(axes)


def _past_axis(shape: tuple[int | str, ...], seen: Evidence) -> int:
    if seen.past_axis is not None and -len(shape) <= seen.past_axis < len(shape):
        return seen.past_axis % len(shape)
    free = [axis for axis, dim in enumerate(shape) if isinstance(dim, str) and axis > 0]
    named = [axis for axis in free if axis_by_words(str(shape[axis]).lower()) in {Axis.PAST, Axis.ENCODER}]
    return next(iter([*named, *free]), len(shape) - 2)


def _grows(read: Read) -> int | None:
    """The axis of a Concat with something computed whose result is an output of the model."""
    axis = read.node.attributes["axis"].as_int() if "axis" in read.node.attributes else None
    others = [value for i, value in enumerate(read.node.inputs) if i != read.operand and value is not None]
    computed = all(value.producer() is not None for value in others)
    return axis if computed and others and not read.calls and _is_given(read.node.outputs[0]) else None


def _is_given(value: ir.Value) -> bool:
    readers = [node for node in value.consumers() if node.op_type in {"Identity", "Cast", "Slice"}]
    return value.is_graph_output() or any(node.outputs[0].is_graph_output() for node in readers)


def _is_added(read: Read) -> bool:
    computed = read.node.op_type == "Add" and constant(read.operand_at(1 - read.operand), read.calls) is None
    return computed or _ADDED.get(read.operator) == read.operand


def _drops(read: Read) -> bool | None:
    """Whether true elements of this Where's condition are those that get a very negative number."""
    for operand, drops in ((1, not read.inverted), (2, read.inverted)):
        number = constant(read.operand_at(operand), read.calls)
        if number is not None and number <= _LEFT_OUT:
            return drops
    return None
