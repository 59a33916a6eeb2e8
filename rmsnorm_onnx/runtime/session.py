"""onnxruntime sessions, with or without the library."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias

import onnx_ir as ir

from rmsnorm_onnx import library as custom_ops
from rmsnorm_onnx.errors import CannotRun, RmsNormError
from rmsnorm_onnx.library import import_onnxruntime
from rmsnorm_onnx.runtime.model import Model, load, runnable

Optimization: TypeAlias = Literal["disable", "basic", "extended", "all"]
#: Where everything runs unless told otherwise.
CPU: Final = ("CPUExecutionProvider",)
_LEVELS: Final[dict[str, str]] = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
#: What onnxruntime says of a model that is newer than itself: what came, and the most that it knows.
_TOO_NEW: Final = {
    "opset": re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL),
    "IR version": re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
}
#: Fatal errors only: warnings are noise in a tool's output, and what fails is in the exception too.
_QUIET: Final = 4


def session_options(*, library: bool, threads: int | None = None, optimization: Optimization = "basic") -> Any:
    """onnxruntime.SessionOptions with quiet logs, and the library registered if asked for.

    Args:
        library: register the custom-op library.
        threads: threads inside one operator; onnxruntime's choice (one per core) when None.
        optimization: graph optimization level. From ``extended`` on onnxruntime's own fusions act, some of which
            change results (a float64 epsilon becomes 1e-5), so comparisons use ``basic``.

    Raises:
        CannotRun: onnxruntime is missing; LibraryMissing: the library is.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimization])
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if library:
        custom_ops.register(options)
    return options


def make_session(
    model: Model,
    *,
    library: bool,
    threads: int | None = None,
    optimization: Optimization = "basic",
    providers: tuple[str, ...] = CPU,
) -> Any:
    """An onnxruntime.InferenceSession for a path, ModelProto or onnx_ir.Model; see ``session_options``.

    A path goes to onnxruntime as it is; anything else as bytes, or through a temporary file above 1 GB of weights.

    Raises:
        InvalidInput: no such file.
        CannotRun: onnxruntime is missing, lacks a provider, or cannot start one, or cannot load the model
            (its own words are kept).
        LibraryMissing: ``library`` is true and there is none.
    """
    onnxruntime = import_onnxruntime()
    options = session_options(library=library, threads=threads, optimization=optimization)
    absent = set(providers) - set(onnxruntime.get_available_providers())
    if absent:
        raise CannotRun(
            f"onnxruntime {onnxruntime.__version__} lacks {', '.join(sorted(absent))}; "
            f"it has {', '.join(onnxruntime.get_available_providers())}"
        )
    loaded = load(model)
    if loaded.path is not None:
        return _create(onnxruntime, str(loaded.path), options, providers, loaded.name)
    return session_from_ir(loaded.model, options, providers=providers)


def session_from_ir(model: ir.Model, options: Any, providers: tuple[str, ...] = CPU) -> Any:
    """An InferenceSession of an onnx_ir.Model with prepared options; raises CannotRun as ``make_session``."""
    with runnable(model) as source:
        return _create(import_onnxruntime(), source, options, providers, model.graph.name or "the model")


def why_not_loaded(error: Exception) -> str:
    """Onnxruntime's reason for refusing a model: a sentence where the model is newer than it, else its own words."""
    for what, pattern in _TOO_NEW.items():
        if found := pattern.search(str(error)):
            expected = f"expected {what} {found[2]} or lower, got {found[1]}"
            return f"{expected}; upgrade onnxruntime, or export the model with a lower one"
    return str(error)


def _create(onnxruntime: Any, source: bytes | str, options: Any, providers: tuple[str, ...], name: str) -> Any:
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers))
    except RmsNormError:
        raise
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"onnxruntime {onnxruntime.__version__} cannot load {name}: {why_not_loaded(error)}") from error
    # A provider that does not start (no device, no driver) is a line in a log, and the CPU runs everything.
    if lost := set(providers) - set(session.get_providers()):
        raise CannotRun(
            f"onnxruntime {onnxruntime.__version__} could not start {', '.join(sorted(lost))}; "
            "its log says why, rmsnorm-onnx info what the driver says"
        )
    return session
