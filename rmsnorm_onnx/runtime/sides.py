"""Running one model on given feeds, the plainest way that works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.emulate import emulate_bfloat16, float32_boundary, has_bfloat16_boundary, lacks_kernels
from rmsnorm_onnx.runtime.evaluator import Array, Arrays, run_reference
from rmsnorm_onnx.runtime.model import LoadedModel
from rmsnorm_onnx.runtime.session import (
    Optimization,
    import_onnxruntime,
    make_session,
    session_from_ir,
    session_options,
)

#: How a side ran that onnxruntime could not run.
REFERENCE: Final = "onnx.reference"
_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, slots=True)
class SideRun:
    """Outputs of one side in the model's own types, and how they came about.

    Attributes:
        outputs: by name, in the order of the graph.
        how: who ran it, in words.
        passed_over: why the plainer ways did not work, in the order they were tried.
    """

    outputs: dict[str, Array]
    how: str
    passed_over: tuple[str, ...] = ()


def run_side(
    loaded: LoadedModel,
    feeds: Arrays,
    *,
    library: bool,
    threads: int | None = None,
    optimization: Optimization = "basic",
    reference: bool = True,
) -> SideRun:
    """Run a model: in onnxruntime as it is; else, if it has bfloat16 or mixed norms, emulated; else in onnx.reference.

    Args:
        loaded: the model.
        feeds: by input name, in the model's own types (bfloat16 as ml_dtypes.bfloat16).
        library: register the custom-op library.
        threads: threads inside one operator, or onnxruntime's choice.
        optimization: onnxruntime's graph optimization level.
        reference: whether onnx.reference may stand in; it knows nothing of the library.

    Raises:
        CannotRun: no way works; the message holds the reason of each. LibraryMissing: the library is.
    """
    name = "onnxruntime with the library" if library else "onnxruntime"

    def plain() -> dict[str, Array]:
        if has_bfloat16_boundary(loaded.model):
            return emulated(float32_boundary)
        source = loaded.path if loaded.path is not None else loaded.model
        session = make_session(source, library=library, threads=threads, optimization=optimization)
        return _run(session, loaded.model, feeds)

    def emulated(transform: Callable[[ir.Model], ir.Model] = emulate_bfloat16) -> dict[str, Array]:
        options = session_options(library=library, threads=threads, optimization=optimization)
        return _run(session_from_ir(transform(loaded.model), options), loaded.model, feeds)

    def ways() -> Iterator[tuple[str, Callable[[], dict[str, Array]]]]:
        yield name, plain
        # Asked only when needed: inferring every type takes longer than most runs.
        if lacks_kernels(loaded.model):
            yield f"{name}, bfloat16 and mixed norms computed in float32", emulated
        if reference and not library:
            yield REFERENCE, lambda: run_reference(loaded.model, feeds)

    import_onnxruntime()
    reasons: list[str] = []
    for how, way in ways():
        try:
            return SideRun(way(), how, tuple(reasons))
        except CannotRun as error:
            if type(error) is not CannotRun:
                raise
            reasons.append(f"{how}: {error}")
    raise CannotRun(f"no way to run {loaded.name}:\n" + "\n".join(reasons))


def _run(session: Any, model: ir.Model, feeds: Arrays) -> dict[str, Array]:
    """Run a session whose bfloat16 inputs and outputs are float32, and give each output the model's own type."""
    given = {name: array.astype(np.float32) if array.dtype == _BFLOAT16 else array for name, array in feeds.items()}
    outputs = model.graph.outputs
    try:
        results = session.run([output.name for output in outputs], given)
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"onnxruntime cannot run it: {error}") from error
    return {
        str(output.name): result.astype(_BFLOAT16) if output.dtype == ir.DataType.BFLOAT16 else np.asarray(result)
        for output, result in zip(outputs, results, strict=True)
    }
