"""Every message of a model, wherever it stands: text is text, tensors fit their data, attributes have one value."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import onnx
from google.protobuf.descriptor import FieldDescriptor

from rmsnorm_onnx.modelfile.datafiles import DataFiles
from rmsnorm_onnx.modelfile.flaw import Place, flaw, shown
from rmsnorm_onnx.modelfile.tensors import check_tensor

#: Deeper messages than protobuf parses.
_DEPTH: Final = 100
_KINDS = onnx.AttributeProto.AttributeType
#: Fields that hold an attribute's value, by its type; numbers may be left out when they are 0.
_VALUE_OF: Final = {
    _KINDS.FLOAT: "f",
    _KINDS.INT: "i",
    _KINDS.STRING: "s",
    _KINDS.TENSOR: "t",
    _KINDS.GRAPH: "g",
    _KINDS.SPARSE_TENSOR: "sparse_tensor",
    _KINDS.TYPE_PROTO: "tp",
    _KINDS.FLOATS: "floats",
    _KINDS.INTS: "ints",
    _KINDS.STRINGS: "strings",
    _KINDS.TENSORS: "tensors",
    _KINDS.GRAPHS: "graphs",
    _KINDS.SPARSE_TENSORS: "sparse_tensors",
    _KINDS.TYPE_PROTOS: "type_protos",
}
_VALUES: Final = frozenset(_VALUE_OF.values())
_NEEDED: Final = frozenset({"t", "g", "tp"})
#: What onnx_ir has no place for, so that it would be lost.
_UNSUPPORTED: Final[dict[type, str]] = {
    onnx.SparseTensorProto: "sparse tensors are not supported; make them dense",
    onnx.TypeProto.Map: "maps are not supported",
    onnx.TrainingInfoProto: "it holds training information, which would be lost; export it for inference",
}


def check_messages(model: onnx.ModelProto, files: DataFiles) -> None:
    """Raise a Flaw at the first message that is broken in itself."""
    _visit(model, None, files, 0)


def _visit(message: Any, outer: Place | None, files: DataFiles, depth: int) -> None:
    here = (message, outer)
    kind = type(message)
    if kind in _UNSUPPORTED:
        raise flaw(here, _UNSUPPORTED[kind])
    if depth > _DEPTH:
        raise flaw(None, f"it is nested deeper than protobuf's {_DEPTH} messages")
    fields = message.ListFields()
    for field, value in fields:
        is_text, is_message, is_repeated = _kind(field)
        if is_message:
            for inner in value if is_repeated else (value,):
                _visit(inner, here, files, depth + 1)
        elif is_text:
            for text in value if is_repeated else (value,):
                # protobuf gives bytes where it cannot decode.
                if type(text) is not str:
                    raise flaw(outer, f"the {field.name} {shown(text)} in it is not valid UTF-8")
    if kind is onnx.TensorProto:
        check_tensor({field.name: value for field, value in fields}, here, files)
    elif kind is onnx.AttributeProto:
        _check_attribute({field.name: value for field, value in fields}, here)


@cache
def _kind(field: FieldDescriptor) -> tuple[bool, bool, bool]:
    # Before protobuf 30, a label says what is_repeated says.
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    return field.type == field.TYPE_STRING, field.type == field.TYPE_MESSAGE, repeated


def _check_attribute(fields: dict[str, Any], place: Place) -> None:
    if not fields.get("name"):
        raise flaw(place, "it has no name")
    if fields.get("ref_attr_name"):
        if not _in_function(place):
            raise flaw(place, "it refers to an attribute of a function, and is not in one")
        return
    wanted = _VALUE_OF.get(fields.get("type", 0))
    if wanted is None:
        raise flaw(place, "it has no type, or one that this onnx does not know")
    others = sorted(fields.keys() & _VALUES - {wanted})
    if others or (wanted in _NEEDED and wanted not in fields):
        kind = _KINDS.Name(fields["type"])
        raise flaw(place, f"an attribute of type {kind} has its value in {wanted}, got {', '.join(others) or 'none'}")


def _in_function(place: Place | None) -> bool:
    while place is not None and not isinstance(place[0], onnx.FunctionProto):
        place = place[1]
    return place is not None
