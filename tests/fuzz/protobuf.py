"""Mutations that know nothing of ONNX: any field of any message, by its descriptor."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (0, 1, -1, 2, 3, 7, 16, 127, 1 << 16, (1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 40)
NUMBERS = (
    *(0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.0, 1e-5, 1e-6, -1e-5, 1e-12, 1e-45, 1e-38, 3.4028234e38, 65504.0),
    *(1e300, float("nan"), float("inf"), float("-inf")),
)
STRINGS = ("", " ", "x", "\0", "ä€😀", "../../etc/passwd", "a" * 3000, "0", "then_branch", "value", "axes")
#: Where most of a model is.
_WEIGHTS = {"graph": 40, "node": 12, "initializer": 4, "attribute": 4, "g": 4, "type": 3}


def mutate(root: Message, dice: random.Random) -> str:
    """Change one field somewhere in ``root``; says what, for people."""
    path, message = [], root
    while True:
        inner = [(f, v) for f, v in message.ListFields() if f.message_type is not None and _size(f, v)]
        if not inner or (path and dice.random() < 0.3):
            break
        field, value = dice.choices(inner, [_WEIGHTS.get(f.name, 1) for f, _ in inner])[0]
        index = dice.randrange(len(value)) if _repeats(field) else 0
        path.append(f"{field.name}[{index}]" if _repeats(field) else field.name)
        message = value[index] if _repeats(field) else value
    fields = [f for f, _ in message.ListFields()]
    if not fields or dice.random() < 0.15:
        fields = list(message.DESCRIPTOR.fields)
    field = dice.choice(fields)
    what = _change_repeated(message, field, dice) if _repeats(field) else _change_single(message, field, dice)
    return f"{'.'.join([*path, field.name])}: {what}"


def _repeats(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _size(field: FieldDescriptor, value: Any) -> int:
    return len(value) if _repeats(field) else 1


def _change_single(message: Message, field: FieldDescriptor, dice: random.Random) -> str:
    if field.message_type is not None:
        if message.HasField(field.name) and dice.random() < 0.7:
            message.ClearField(field.name)
            return "cleared"
        getattr(message, field.name).SetInParent()
        return "present"
    if dice.random() < 0.1:
        message.ClearField(field.name)
        return "cleared"
    value = _other(field, getattr(message, field.name), dice)
    setattr(message, field.name, value)
    return f"= {str(value)[:40]!r}"


def _change_repeated(message: Message, field: FieldDescriptor, dice: random.Random) -> str:
    items = getattr(message, field.name)
    kept = list(items)
    if len(kept) > 4096:  # the elements of a tensor
        del items[len(kept) // 2 :]
        return "half of it"
    what = dice.choice(["drop", "double", "swap", "reverse", "clear", "change", "change", "append"])
    if not kept or what == "append":
        kept.append(field.message_type._concrete_class() if field.message_type else _other(field, _ZERO(field), dice))
    index = dice.randrange(len(kept))
    if what == "drop":
        del kept[index]
    elif what == "double":
        kept.insert(dice.randrange(len(kept) + 1), kept[index])
    elif what == "swap":
        other = dice.randrange(len(kept))
        kept[index], kept[other] = kept[other], kept[index]
    elif what == "reverse":
        kept.reverse()
    elif what == "clear":
        kept = []
    elif what == "change" and field.message_type is None:
        kept[index] = _other(field, kept[index], dice)
    copies = [item.__deepcopy__() for item in kept] if field.message_type is not None else kept
    message.ClearField(field.name)
    getattr(message, field.name).extend(copies)
    return f"{what} {index}"


def _ZERO(field: FieldDescriptor) -> Any:  # noqa: N802
    return field.default_value if field.default_value not in ([], None) else {9: "", 10: b""}.get(field.cpp_type, 0)


def _other(field: FieldDescriptor, value: Any, dice: random.Random) -> Any:
    if field.enum_type is not None:
        return dice.choice([v.number for v in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _other_bytes(value or b"", dice)
    if field.type == FieldDescriptor.TYPE_STRING:
        return dice.choice([*STRINGS, value + "x" if value else "y", value[:-1] if value else ""])
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return _as_float(dice.choice([*NUMBERS, (value or 0) * 2, (value or 0) * 1.001, -(value or 0)]), field)
    number = dice.choice([*INTEGERS, *range(25), (value or 0) + 1, (value or 0) - 1, -(value or 0)])
    return _fitting(number, field)


def _as_float(value: float, field: FieldDescriptor) -> float:
    wide = (
        field.type == FieldDescriptor.TYPE_DOUBLE
        or value != value
        or abs(value) <= 3.4e38
        or abs(value) == float("inf")
    )
    return value if wide else 3.4028234e38


def _fitting(number: int, field: FieldDescriptor) -> int:
    bits = 32 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 64
    if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64):
        return number % (1 << bits)
    return (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _other_bytes(value: bytes, dice: random.Random) -> bytes:
    changed = bytearray(value)
    what = dice.choice(["flip", "truncate", "extend", "clear", "ff"])
    if what == "flip" and changed:
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif what == "truncate":
        del changed[dice.randrange(len(changed) + 1) :]
    elif what == "extend":
        changed += bytes(dice.randrange(1, 17))
    elif what == "clear":
        changed.clear()
    elif changed:
        start = dice.randrange(len(changed))
        changed[start : start + 4] = b"\xff" * len(changed[start : start + 4])
    return bytes(changed)


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """A file that was damaged: bits flipped, a piece lost, doubled or foreign."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        at, length = dice.randrange(len(changed) + 1), dice.choice([1, 2, 8, 64])
        what = dice.choice(["flip", "flip", "flip", "cut", "double", "random", "end"])
        if what == "flip" and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif what == "cut":
            del changed[at : at + length]
        elif what == "double":
            changed[at:at] = changed[at : at + length]
        elif what == "random":
            changed[at : at + length] = dice.randbytes(length)
        elif what == "end":
            del changed[at:]
    return bytes(changed)
