"""onnxruntime sessions as they are timed: quiet, side by side in one process, inputs bound."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import ml_dtypes
import numpy as np

from rmsnorm_onnx import library as custom_ops
from rmsnorm_onnx.bench.problem import Array
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.library import import_onnxruntime
from rmsnorm_onnx.runtime import Optimization, session_options, why_not_loaded
from rmsnorm_onnx.spec import DType

#: "ours": our operators are registered; "drop-in": they also replace onnxruntime's.
Library: TypeAlias = Literal["none", "ours", "drop-in"]

_NOISE: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : |with name ''")


def open_session(
    source: bytes | str, threads: int, *, optimization: Optimization, library: Library, profile: str | None = None
) -> Any:
    """A session whose threads rest as soon as a run ends.

    Threads that wait in a loop for the next run would take cores from whoever is measured next.

    Args:
        source: serialized model or path.
        threads: inside one operator.
        optimization: graph optimization level.
        library: what to register.
        profile: prefix of a file that onnxruntime writes the time of every node to.

    Raises:
        CannotRun: onnxruntime is missing or cannot load the model; LibraryMissing: the library was not built.
    """
    options = session_options(library=library != "none", threads=threads, optimization=optimization)
    if library == "drop-in":
        custom_ops.register(options, override=True)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    try:
        return import_onnxruntime().InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"onnxruntime cannot load it: {first_line(error)}") from error


#: Bytes of a line of the cache.
_LINE = 64


def first_line(error: Exception) -> str:
    """The part of an error's text that says what is wrong."""
    lines = _NOISE.sub("", why_not_loaded(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def require(dtypes: Iterable[str]) -> None:
    """Raises CannotRun if this onnxruntime cannot be given tensors of these types."""
    onnxruntime = import_onnxruntime()
    if "bfloat16" in dtypes and not hasattr(onnxruntime.OrtValue, "ortvalue_from_numpy_with_onnx_type"):
        raise CannotRun(
            f"expected onnxruntime 1.20 or newer for bfloat16 tensors in Python, got {onnxruntime.__version__}; "
            "upgrade onnxruntime, or leave that type out: --dtype float32 --dtype float16"
        )


def to_ortvalue(array: Array) -> Any:
    """A copy of the array as onnxruntime holds it."""
    return share(at_line(array))


def at_line(array: Array) -> Array:
    """A copy at the start of a cache line, where onnxruntime puts the tensors of a model."""
    memory = np.empty(array.nbytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    copy: Array = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def share(array: Array) -> Any:
    """The memory of the array as a value of onnxruntime."""
    values = import_onnxruntime().OrtValue
    if array.dtype == ml_dtypes.bfloat16:
        return values.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), int(DType.BFLOAT16))
    return values.ortvalue_from_numpy(array)
