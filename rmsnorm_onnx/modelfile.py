"""Model files in and out: clear errors, weights left where they are, nothing lost on failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.files import write_atomically


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Load a model; external weights stay in their files.

    Raises:
        InvalidInput: there is no such file, or it does not hold an ONNX model.
    """
    if not Path(path).is_file():
        raise InvalidInput(f"no model file at {path}")
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError, ir.serde.SerdeError) as error:
        raise InvalidInput(f"{path} does not hold an ONNX model: {error.__cause__ or error}") from error
    if not model.graph.outputs or model.ir_version < 1:
        raise InvalidInput(f"{path} does not hold an ONNX model: it has no graph with outputs")
    _check_sources(model)
    return list_all_outputs(model)


def _check_sources(model: ir.Model) -> None:
    """Refuse a model that reads what nothing gives; onnx_ir loads it, and fails on it later."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            for value in node.inputs:
                if value is None or value.producer() is not None or value.is_graph_input() or value.is_initializer():
                    continue
                name = node.name or node.op_type
                raise InvalidInput(f"the model is invalid: node '{name}' reads '{value.name}', which nothing gives")


def save(
    model: ir.Model, path: str | os.PathLike[str], source: str | os.PathLike[str], *, copy_weights: bool = False
) -> None:
    """Write ``model``, loaded from ``source``, to ``path``: first a temporary file, then one rename.

    External weights are not read. In the source's folder the output refers to the same data file; in another
    folder it needs a copy of it, under the same relative name.

    Args:
        model: what to write.
        path: where to write it.
        source: the file it was loaded from.
        copy_weights: copy data files that the output cannot refer to.

    Raises:
        InvalidInput: ``path`` is the source itself, its folder is missing, data files would have to be copied
            and that was not asked for, one is missing or a different file is in its way, or the model is
            larger than protobuf's 2 GB.
    """
    target, origin = Path(path), Path(source)
    if target.exists() and target.samefile(origin):
        raise InvalidInput(f"the output {path} is the input; give another name, the input is never changed")
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder of {path} does not exist; create it first")
    try:
        data = ir.to_proto(model).SerializeToString()
    except (EncodeError, ValueError) as error:
        raise InvalidInput(f"{path} would be larger than protobuf allows (2 GB): {error}") from error
    locations = sorted(set(_external_files(model)))
    for location in locations:
        if not (origin.parent / location).is_file():
            raise InvalidInput(f"the model's data file {origin.parent / location} is missing")
    elsewhere = [at for at in locations if not _is_same(target.parent / at, origin.parent / at)]
    if elsewhere and not copy_weights:
        raise InvalidInput(
            f"the weights of {source} are in {', '.join(elsewhere)} beside it, and {path} in another folder would need "
            "copies: onnx and onnx_ir refuse data files behind hard or symbolic links. Write the output to "
            f"{origin.parent}, or copy the weights with --copy-weights"
        )
    for location in elsewhere:
        _copy(origin.parent / location, target.parent / location)
    write_atomically(target, data)


def to_model(model: ir.Model | onnx.ModelProto | str | os.PathLike[str]) -> ir.Model:
    """An ``onnx_ir.Model`` of whatever is given; a model object is used as it is.

    Raises:
        InvalidInput: it is neither a model nor a path to one.
    """
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        loaded = ir.from_proto(model)
        _check_sources(loaded)
        return list_all_outputs(loaded)
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


def _external_files(model: ir.Model) -> Iterator[str]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield os.fspath(value.const_value.location)


def _is_same(target: Path, source: Path) -> bool:
    return target.exists() and target.samefile(source)


def _copy(source: Path, target: Path) -> None:
    # Measured with onnx 1.23 and onnx_ir 1.1: no link to a data file is followed, so only a copy will do.
    if target.exists():
        raise InvalidInput(f"{target} exists and is not the model's data file {source}; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
