"""Every check of a model, in an order in which each may rely on those before."""

from __future__ import annotations

from typing import Final

import onnx

from rmsnorm_onnx import spec
from rmsnorm_onnx.modelfile.calls import check_calls
from rmsnorm_onnx.modelfile.datafiles import DataFiles
from rmsnorm_onnx.modelfile.flaw import Flaw, Place, flaw, shown
from rmsnorm_onnx.modelfile.messages import check_messages
from rmsnorm_onnx.modelfile.operators import DEFAULT_DOMAINS, Operators
from rmsnorm_onnx.modelfile.scopes import Scopes

#: Before this IR version, a model without imports was of opset 1.
_IMPORTS_FROM: Final = 3
_NEWEST: Final = {"": onnx.defs.onnx_opset_version(), spec.DOMAIN: spec.VERSION}


def check_model(model: onnx.ModelProto, files: DataFiles) -> bool:
    """Raise a Flaw where ``model`` or its data files are broken; weights are not read.

    Not judged is what has no bearing on reading the graph: operators of other domains, types and shapes that are
    stated, and names of nodes.

    Returns:
        Whether nodes stand in an order in which they can run.
    """
    if not model.graph.output:
        raise Flaw("it has no graph with outputs")
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise Flaw(f"onnx {onnx.__version__} knows IR versions 1 to {onnx.IR_VERSION}, got {model.ir_version}")
    check_messages(model, files)
    _check_imports(model.opset_import, None)
    imports = model.opset_import
    if not imports and model.ir_version < _IMPORTS_FROM:
        imports = [onnx.helper.make_opsetid("", 1)]
    scopes = Scopes()
    operators = Operators(imports)
    scopes.check_graph(model.graph, operators)
    for function in model.functions:
        if function.domain in DEFAULT_DOMAINS and operators.have(function.name):
            raise flaw((function, None), "it gives an operator of ONNX's own another meaning")
        _check_imports(function.opset_import, (function, None))
        scopes.check_function(function, Operators(function.opset_import))
    check_calls(model)
    return scopes.sorted


def _check_imports(imports: list[onnx.OperatorSetIdProto], place: Place | None) -> None:
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain in DEFAULT_DOMAINS else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise flaw(place, f"two versions of the domain {shown(domain)} are imported")
        newest = _NEWEST.get(domain)
        if newest is not None and not 1 <= entry.version <= newest:
            whose = f"onnx {onnx.__version__}" if domain == "" else "this package"
            raise flaw(
                place, f"{whose} knows versions 1 to {newest} of the domain {shown(domain)}, got {entry.version}"
            )
