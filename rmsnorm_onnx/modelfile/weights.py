"""The tensors of a model, and those whose data lies in other files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from rmsnorm_onnx.modelfile.datafiles import DataFiles


class _Linked(ir.ExternalTensor):
    """A tensor whose file was checked by DataFiles, and is a link that onnx_ir itself would not follow."""

    __slots__ = ()

    def _check_path_containment(self) -> None:
        pass


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers and attributes, in subgraphs and functions too."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for inner in (graph, *graph.subgraphs()):
            yield from (v.const_value for v in inner.initializers.values() if v.const_value is not None)
        for node in graph.all_nodes():
            for attribute in node.attributes.values():
                yield from _tensors(attribute)


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Those of them whose data lies in other files."""
    return (tensor for tensor in tensors(model) if isinstance(tensor, ir.ExternalTensor))


def _tensors(attribute: ir.Attr) -> Sequence[ir.TensorProtocol]:
    if attribute.is_ref():
        return ()
    if attribute.type is ir.AttributeType.TENSOR:
        return (attribute.as_tensor(),)
    return attribute.as_tensors() if attribute.type is ir.AttributeType.TENSORS else ()


def locate(model: ir.Model, folder: str, files: DataFiles) -> None:
    """Let every tensor find its file in ``folder``; onnx_ir does so for those of the main graph only."""
    for tensor in external_tensors(model):
        tensor.base_dir = folder
        if files.linked(os.fspath(tensor.location)):
            tensor.__class__ = _Linked


def relocate(model: ir.Model, original: ir.Model) -> None:
    """Let every tensor of ``model``, made of ``original`` by way of a message, find the file it had there."""
    known = {tensor.location: tensor for tensor in external_tensors(original)}
    for tensor in external_tensors(model):
        tensor.base_dir = known[tensor.location].base_dir
        tensor.__class__ = type(known[tensor.location])
