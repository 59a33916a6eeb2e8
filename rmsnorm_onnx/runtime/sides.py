"""Running one model on given feeds, the plainest way that works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.library import import_onnxruntime
from rmsnorm_onnx.runtime.emulate import emulate_bfloat16, float32_boundary, has_bfloat16_boundary, lacks_kernels
from rmsnorm_onnx.runtime.evaluator import Array, Arrays, run_reference
from rmsnorm_onnx.runtime.model import LoadedModel
from rmsnorm_onnx.runtime.session import (
    Optimization,
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


class SideRunner:
    """Runs one model on one set of feeds after the other; every way's session is made when it is first needed.

    The ways, in order: onnxruntime with the model as it is; emulated, if it has bfloat16 or mixed norms;
    onnx.reference.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        library: bool,
        threads: int | None = None,
        optimization: Optimization = "basic",
    ) -> None:
        """Remember the model and how to run it; see ``run_side``."""
        self._loaded = loaded
        self._library = library
        self._session_options: dict[str, Any] = {"library": library, "threads": threads, "optimization": optimization}
        self._sessions: dict[str, Any] = {}

    def __call__(self, feeds: Arrays, *, reference: bool = True) -> SideRun:
        """One run; arguments and errors as for ``run_side``."""
        import_onnxruntime()
        reasons: list[str] = []
        for how, way in self._ways(reference and not self._library):
            try:
                return SideRun(way(feeds), how, tuple(reasons))
            except CannotRun as error:
                if type(error) is not CannotRun:
                    raise
                reasons.append(f"{how}: {error}")
        raise CannotRun(f"no way to run {self._loaded.name}:\n" + "\n".join(reasons))

    @cached_property
    def _lacks_kernels(self) -> bool:
        # Asked only when needed: inferring every type takes longer than most runs.
        return lacks_kernels(self._loaded.model)

    def release(self) -> None:
        """Let the sessions go, and with them the weights; a later run makes new ones."""
        self._sessions.clear()

    def _ways(self, reference: bool) -> Iterator[tuple[str, Callable[[Arrays], dict[str, Array]]]]:
        name = "onnxruntime with the library" if self._library else "onnxruntime"
        model = self._loaded.model
        yield name, lambda feeds: _run(self._session(name, self._plain), model, feeds)
        if self._lacks_kernels:
            emulated = f"{name}, bfloat16 and mixed norms computed in float32"
            yield emulated, lambda feeds: _run(self._session(emulated, self._emulated), model, feeds)
        if reference:
            yield REFERENCE, lambda feeds: run_reference(model, feeds)

    def _plain(self) -> Any:
        if has_bfloat16_boundary(self._loaded.model):
            return session_from_ir(float32_boundary(self._loaded.model), session_options(**self._session_options))
        source = self._loaded.path if self._loaded.path is not None else self._loaded.model
        return make_session(source, **self._session_options)

    def _emulated(self) -> Any:
        return session_from_ir(emulate_bfloat16(self._loaded.model), session_options(**self._session_options))

    def _session(self, how: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gave or raised when it was first called."""
        if how not in self._sessions:
            try:
                self._sessions[how] = make()
            except CannotRun as error:
                self._sessions[how] = error
        session = self._sessions[how]
        if isinstance(session, CannotRun):
            raise session
        return session


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
    runner = SideRunner(loaded, library=library, threads=threads, optimization=optimization)
    return runner(feeds, reference=reference)


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
