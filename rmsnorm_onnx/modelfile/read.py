"""Reading a model: a file or a message becomes a graph, or a sentence that says what is wrong with it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.modelfile.check import check_model
from rmsnorm_onnx.modelfile.datafiles import DataFiles
from rmsnorm_onnx.modelfile.flaw import Flaw
from rmsnorm_onnx.modelfile.weights import locate, tensors

#: What one protobuf message holds at most.
LARGEST: Final = 2**31 - 1
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Load a model; external weights stay in their files, of which only the sizes are looked at.

    Raises:
        InvalidInput: there is no such file, or it does not hold a valid ONNX model in binary form; the message says
            what is wrong with it, and where.
    """
    file = Path(path)
    files = DataFiles(file)
    model = _checked(_parse(file), files, str(path))
    # Never empty: onnx_ir reads any file where there is no folder.
    locate(model, os.fspath(file.parent), files)
    return model


def to_model(model: ir.Model | onnx.ModelProto | str | os.PathLike[str]) -> ir.Model:
    """An ``onnx_ir.Model`` of whatever is given; a model object is used as it is.

    Raises:
        InvalidInput: it is neither a model nor a path to one, or the model is not valid.
    """
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        return _checked(model, DataFiles(None), "the model")
    if isinstance(model, str | os.PathLike):
        return load(model)
    raise InvalidInput(f"expected a path, an onnx.ModelProto or an onnx_ir.Model, got {type(model).__name__}")


def list_all_outputs(model: ir.Model) -> ir.Model:
    """List the outputs of our operators that were left out, as ``spec.LeftOut`` explains."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            if node.domain != spec.DOMAIN or node.op_type not in spec.OPS:
                continue
            node.resize_outputs(len(spec.OPS[node.op_type].outputs))
            for output in [o for o in node.outputs[1:] if not o.name]:
                output.name = None  # an empty name equals LeftOut, and setting an equal name does nothing
                output.name = spec.LeftOut()
    return model


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise InvalidInput(f"no model file at {path}")
    size = path.stat().st_size
    if size > LARGEST:
        raise InvalidInput(
            f"{path} does not hold an ONNX model: it has {size:,} bytes, and a model at most 2 GB; "
            "larger weights belong in a file of their own"
        )
    data, model = path.read_bytes(), onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        reason = f"not a protobuf message, or one that was cut short ({error})"
        if data.startswith(_LFS_POINTER):
            reason = "it is a pointer of Git LFS; fetch the file itself with git lfs pull"
        raise InvalidInput(f"{path} does not hold an ONNX model: {reason}") from error
    return model


def _checked(proto: onnx.ModelProto, files: DataFiles, name: str) -> ir.Model:
    try:
        with collector_paused():
            in_order = check_model(proto, files)
            model = _convert(proto)
            if not in_order:
                _sort(model)
    except Flaw as reason:
        raise InvalidInput(f"{name} cannot be read: {reason}") from reason
    return list_all_outputs(model)


def _convert(proto: onnx.ModelProto) -> ir.Model:
    try:
        model = ir.from_proto(proto)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, ir.serde.SerdeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = str(cause).strip().splitlines() or [type(cause).__name__]
        raise Flaw(f"onnx_ir {ir.__version__} cannot read it: {text[0]}") from error
    for tensor in tensors(model):
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            # Measured with onnx_ir 1.1: it writes the message with its metadata, and then the metadata again.
            tensor.metadata_props.clear()
    for value in _values(model):
        if value.type is None and value.const_value is not None:
            # A value_info that states nothing hid what the data states; written and read again, it would not.
            data = value.const_value
            value.type, value.shape = ir.TensorType(data.dtype), ir.Shape(data.shape.numpy())
        lengths = value.shape or ()
        if any(isinstance(length, int) and length < 0 for length in lengths):
            # Unknown, as onnxruntime reads it.
            value.shape = ir.Shape([None if isinstance(n, int) and n < 0 else n for n in lengths])
    for imports in (model.graph.opset_imports, *(function.opset_imports for function in model.functions.values())):
        if "ai.onnx" in imports:
            imports[""] = imports.pop("ai.onnx")
    if not model.graph.opset_imports:
        model.graph.opset_imports[""] = 1
    return model


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for inner in (graph, *graph.subgraphs()):
            yield from (*inner.inputs, *inner.initializers.values())
            for node in inner:
                yield from node.outputs


def _sort(model: ir.Model) -> None:
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        try:
            graph.sort()
        except ValueError:
            raise Flaw(f"the nodes of {graph.name or 'a function'} wait for each other in a circle") from None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Leave the garbage collector out: hardly anything is garbage, and it took a third of the time (27,000 nodes)."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
