"""The compiled library and, through ctypes, the bare kernels: built from this tree when needed.

``library_path()`` is the onnxruntime library, ``run()`` one kernel call on numpy arrays. Both come
from one CMake build in ``build/kernels`` (pip's own, kept, so that only changed files are compiled again), or from
the folder that ``RMSNORM_BUILD`` names, as it is: sanitized ones (tests/sanitizers.py).
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rmsnorm_onnx.spec import DType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "kernels"
CUDA_LIBRARY = BUILD / "cuda" / "librmsnorm_onnx.so"
NUMPY = {
    DType.FLOAT: np.dtype(np.float32),
    DType.FLOAT16: np.dtype(np.float16),
    DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    DType.DOUBLE: np.dtype(np.float64),
}
DTYPE = {numpy: dtype for dtype, numpy in NUMPY.items()}
FORMS = ("plain", "skip", "gated", "pregated")
LIBC = ctypes.CDLL(None)


def tool(name: str) -> str:
    """Path of a build tool: on PATH or beside this Python (PyPI's wheels).

    In this order, as pip's build takes them: another CMake writes other commands, and everything is compiled again.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.fail(f"{name} is needed to build the kernels for tests: pip install {name}")
    return found


@functools.cache
def build(target: str = "all") -> Path:
    """Folder that holds the shared objects, compiled from this tree."""
    given = os.environ.get("RMSNORM_BUILD")
    if given:
        return Path(given).resolve()
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:  # pytest-xdist: the first worker builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = [tool("cmake"), "-S", str(ROOT / "custom_ops"), "-B", str(BUILD), "-G", "Ninja"]
        configure += [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", f"-DPython3_EXECUTABLE={sys.executable}"]
        # `make bench` builds here too, and may have ended halfway.
        configure += ["-DRMSNORM_TESTS=ON", "-DRMSNORM_BENCH=OFF"]
        # What `make cuda` left is kept up to date.
        configure += [f"-DRMSNORM_CUDA={'ON' if CUDA_LIBRARY.exists() else 'OFF'}"]
        for command in (configure, [tool("cmake"), "--build", str(BUILD), "--target", target]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return BUILD


def library_path() -> str:
    """The onnxruntime library of this tree."""
    return str(build() / "librmsnorm_onnx.so")


def cuda_library_path() -> str:
    """The same with CUDA kernels: a given file, or that of `make cuda`."""
    given = os.environ.get("RMSNORM_CUDA_LIBRARY")
    if given:
        return given
    if not CUDA_LIBRARY.exists():
        pytest.skip("no library with CUDA kernels: make cuda builds it, RMSNORM_CUDA_LIBRARY may name one")
    build("rmsnorm_onnx_cuda")
    return str(CUDA_LIBRARY)


class TestProblem(ctypes.Structure):
    """Mirror of the struct in custom_ops/tests/kernels_abi.h."""

    __test__ = False
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("form", "type", "scale_type", "stash", "normalized", "scaled")),
        *((name, ctypes.c_double) for name in ("epsilon", "epsilon_outside", "floor")),
        *((name, ctypes.POINTER(ctypes.c_int64)) for name in ("shape", "axes", "scale_shape")),
        *((name, ctypes.c_int64) for name in ("rank", "axis_count", "scale_rank")),
        *((name, ctypes.c_void_p) for name in ("x", "second", "scale", "y", "sum")),
        ("split", ctypes.c_int64),
        ("streaming", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


@functools.cache
def shim() -> Any:
    """The kernels without onnxruntime: emulated where the environment says so, else this machine's."""
    if not is_emulated():
        return native()
    from emulated import Emulator

    return Emulator(os.environ["RMSNORM_KERNELS"].split())


def is_emulated() -> bool:
    """Whether the kernels are of another architecture."""
    return "RMSNORM_KERNELS" in os.environ


@functools.cache
def native() -> Any:
    """The kernels of this machine."""
    library = ctypes.CDLL(str(build() / "librmsnorm_kernels_test.so"))
    for name in ("isas", "run", "layout"):
        getattr(library, f"rmsnorm_test_{name}").restype = ctypes.c_char_p
    return library


@functools.cache
def isas() -> tuple[str, ...]:
    """Supported instruction sets, best first."""
    return tuple(shim().rmsnorm_test_isas().decode().split())


def int64s(values: Any) -> Any:
    """A C array of int64."""
    return (ctypes.c_int64 * len(values))(*values)


def layout(shape: tuple[int, ...], axes: tuple[int, ...], scale: tuple[int, ...]) -> str:
    """How the kernels would walk a tensor, or what is wrong with the question."""
    args = [part for dims in (shape, axes, scale) for part in (int64s(dims), ctypes.c_int64(len(dims)))]
    text: bytes = shim().rmsnorm_test_layout(*args)
    return text.decode()


class KernelError(Exception):
    """The text a kernel call was refused with."""


@dataclass
class Norm:
    """Attributes of one node; ``form`` is one of FORMS."""

    form: str = "plain"
    axes: tuple[int, ...] = (-1,)
    epsilon: float = 1e-5
    epsilon_outside: float = 0.0
    floor: float = 0.0
    stash: DType = DType.FLOAT
    normalized: DType = DType.FLOAT
    scaled: DType = DType.FLOAT
    isa: str = ""
    split: int = 0
    threads: int = 1
    streaming: int = -1
    in_place: bool = False
    want_sum: bool = field(default=True)


def address(array: np.ndarray[Any, Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def aligned(nbytes: int) -> Any:
    """Bytes at the start of a cache line, as onnxruntime allocates them; none follow, which a sanitizer watches."""
    place = ctypes.c_void_p()
    if LIBC.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(max(nbytes, 1))):
        raise MemoryError(f"{nbytes} bytes")
    block = (ctypes.c_char * nbytes).from_address(place.value or 0)
    weakref.finalize(block, LIBC.free, place)
    return np.frombuffer(block, np.uint8)


def run(norm: Norm, x: Any, second: Any = None, scale: Any = None, library: Any = None) -> tuple[Any, Any]:
    """Y and sum (None unless skip) from one kernel call of ``library``, by default ``shim()``."""
    x = np.ascontiguousarray(x)
    y = x.copy() if norm.in_place else aligned(x.nbytes).view(x.dtype).reshape(x.shape)
    total = np.empty_like(x) if norm.form == "skip" and norm.want_sum else None
    problem = problem_of(norm, y if norm.in_place else x, second, scale, y, total)
    error = (library or shim()).rmsnorm_test_run(norm.isa.encode(), ctypes.byref(problem)).decode()
    if error:
        raise KernelError(error)
    return y, total


def problem_of(norm: Norm, x: Any, second: Any, scale: Any, y: Any, total: Any) -> TestProblem:
    """What a kernel call is given; it holds on to no array but the scale."""
    scale_array = np.ones(1, x.dtype) if scale is None else np.ascontiguousarray(scale)
    problem = TestProblem(
        form=FORMS.index(norm.form),
        type=DTYPE[x.dtype],
        scale_type=DTYPE[scale_array.dtype],
        stash=norm.stash,
        normalized=norm.normalized,
        scaled=norm.scaled,
        epsilon=norm.epsilon,
        epsilon_outside=norm.epsilon_outside,
        floor=norm.floor,
        shape=int64s(x.shape),
        axes=int64s(norm.axes),
        scale_shape=int64s(scale_array.shape),
        rank=x.ndim,
        axis_count=len(norm.axes),
        scale_rank=scale_array.ndim,
        x=address(x),
        second=address(second),
        scale=None if scale is None else address(scale_array),
        y=address(y),
        sum=address(total),
        split=norm.split,
        streaming=norm.streaming,
        threads=norm.threads,
    )
    problem.held = scale_array
    return problem


def installed_header() -> Path | None:
    """Official onnxruntime_c_api.h of this machine, if any; RMSNORM_ORT_HEADER may name one."""
    named = os.environ.get("RMSNORM_ORT_HEADER")
    folders = [Path(folder) for folder in ("/usr/include/onnxruntime", "/usr/include", "/usr/local/include")]
    places = [Path(named)] if named else []
    places += [folder / "onnxruntime_c_api.h" for folder in folders]
    return next((path for path in places if path.exists()), None)


def function_table(header: str) -> list[str]:
    """Members of struct OrtApi in order, as the official header declares them."""
    body = header[re.search(r"^struct OrtApi \{", header, re.MULTILINE).end() :]  # type: ignore[union-attr]
    body = re.sub(r"//.*", "", re.sub(r"/\*.*?\*/", "", body[: body.index("\n};")], flags=re.DOTALL))
    patterns = (r"ORT_API2_STATUS\((\w+)", r"ORT_CLASS_RELEASE2?\((\w+)\)", r"\(ORT_API_CALL\* ?(\w+)\)")
    found = re.finditer("|".join(patterns), body)
    return [m[1] or (f"Release{m[2]}" if m[2] else m[3]) for m in found]
