"""Models as given (path, ModelProto, onnx_ir.Model) and as onnxruntime takes them (bytes or path)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import onnx
import onnx_ir as ir

from rmsnorm_onnx import modelfile

Model: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | ir.Model

#: Weights above this many bytes go to a file of their own, which onnxruntime maps: inline, there would be four copies
#: in memory while a session is made. One protobuf message holds 2 GB at most.
_INLINE_BYTES: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: the graph; shared with the caller if an onnx_ir.Model was given, so never change it in place.
        path: the file it came from, or None.
        name: what to call it in messages.
        sha256: of the file and of every external data file it names, or of the serialized model.
    """

    model: ir.Model
    path: Path | None
    name: str
    sha256: str


def load(model: Model) -> LoadedModel:
    """Read a model; weights in external data stay memory-mapped.

    Raises:
        InvalidInput: no such file, its content is not an ONNX model, or ``model`` is of another kind.
    """
    loaded = modelfile.to_model(model)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return LoadedModel(loaded, path, str(path), _sha256(path, loaded))
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    return LoadedModel(loaded, None, loaded.graph.name or "model", digest.hexdigest())


def _sha256(path: Path, model: ir.Model) -> str:
    data = {Path(tensor.path) for tensor in modelfile.external_tensors(model)}
    digest = hashlib.sha256()
    for file in (path, *sorted(data)):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def runnable(model: ir.Model) -> Iterator[bytes | str]:
    """The model as onnxruntime takes it: bytes, or a path (deleted on exit) when the weights are large."""
    size = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    if size < _INLINE_BYTES:
        yield ir.to_proto(_internal(model)).SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.onnx.data")
        yield str(path)


def _internal(model: ir.Model) -> ir.Model:
    """The model with its external weights in memory, as bytes cannot refer to other files."""
    if not any(
        isinstance(value.const_value, ir.ExternalTensor)
        for graph in model.graphs()
        for value in graph.initializers.values()
    ):
        return model
    copy = model.clone()
    ir.external_data.load_to_model(copy)
    return copy
