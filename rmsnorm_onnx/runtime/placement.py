"""Which of our operators a session really runs with the library's kernels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.emulate import float32_boundary, has_bfloat16_boundary
from rmsnorm_onnx.runtime.model import LoadedModel
from rmsnorm_onnx.runtime.session import Optimization, session_from_ir, session_options
from rmsnorm_onnx.runtime.types import nodes_of


@dataclass(frozen=True, slots=True)
class Placement:
    """How the nodes of ``spec.DOMAIN`` in a model run.

    Attributes:
        by_library: nodes per operator that run as one kernel.
        by_body: nodes per operator that onnxruntime replaced by the function body.
    """

    by_library: Mapping[str, int]
    by_body: Mapping[str, int]


def placement(loaded: LoadedModel, *, library: bool, optimization: Optimization = "basic") -> Placement:
    """Read the placement from the graph that onnxruntime is about to run, which it saves on request.

    Raises:
        CannotRun: onnxruntime cannot load the model; LibraryMissing: the library is missing.
    """
    declared = _count(loaded.model)
    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder:
        path = Path(folder) / "optimized.onnx"
        options = session_options(library=library, optimization=optimization)
        options.optimized_model_filepath = str(path)
        # Weights go to a second file, as one protobuf message holds 2 GB at most.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        model = float32_boundary(loaded.model) if has_bfloat16_boundary(loaded.model) else loaded.model
        session_from_ir(model, options)
        if not path.is_file():
            raise CannotRun("onnxruntime did not save the optimized graph")
        kept = _count(ir.load(path))
    return Placement(dict(kept), dict(declared - kept))


def _count(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in nodes_of(model) if node.domain == spec.DOMAIN)
