"""The CUDA kernels on a GPU, through ctypes: what ``kernels_abi.shim`` gives the kernels' tests there.

Every tensor lies on the device between guard zones, outputs are poisoned before a launch. As a program it builds
the library for the GPU that is there and describes it: PYTHONPATH=. python tests/cuda_device.py
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kernels_abi as abi
import numpy as np
from cuda_memory import Memory, has_gpu
from emulated import Emulator

BUILD = abi.ROOT / "build" / "cuda"
#: Bytes before and after every tensor; a multiple of every alignment that the kernels know.
GUARD = 512
#: Of guard zones; of outputs that nobody wrote: NaN in all four types.
GUARDED, POISON = 0xA5, 0xFF
#: Set for compute-sanitizer's initcheck: it finds reads of what nobody wrote, and poison is written.
POISONS = "RMSNORM_UNPOISONED" not in os.environ

#: Enqueues a problem whose pointers are of the device on a stream; the text of the error, or none.
Launch = Callable[[abi.TestProblem, int], str]
#: Has a launch run to its end, given what enqueues it on a stream.
How = Callable[[Memory, "Placed", Callable[[int], str]], str]


def nvcc() -> str | None:
    """CUDA's compiler, where it is usually found."""
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@functools.cache
def build(*targets: str) -> Path:
    """Folder that holds the libraries, compiled from this tree for the GPU that is there."""
    compiler = nvcc()
    if compiler is None:
        raise RuntimeError("nvcc is neither on PATH nor in /usr/local/cuda/bin")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:  # pytest-xdist: the first worker builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = [abi.tool("cmake"), "-S", str(abi.ROOT / "custom_ops"), "-B", str(BUILD), "-G", "Ninja"]
        configure += [f"-DCMAKE_MAKE_PROGRAM={abi.tool('ninja')}", f"-DPython3_EXECUTABLE={sys.executable}"]
        configure += ["-DRMSNORM_CUDA=ON", "-DRMSNORM_TESTS=ON", f"-DCMAKE_CUDA_COMPILER={compiler}"]
        configure += [f"-DCMAKE_CUDA_ARCHITECTURES={architecture()}"]
        compile_ = [abi.tool("cmake"), "--build", str(BUILD), "--target", *(targets or ("rmsnorm_cuda_test",))]
        for command in (configure, compile_):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return BUILD


def onnxruntime_library() -> str:
    """The library for onnxruntime, or a given one."""
    return os.environ.get("RMSNORM_CUDA_LIBRARY") or str(build("rmsnorm_onnx_cuda") / "cuda" / "librmsnorm_onnx.so")


def architecture() -> int:
    """What the kernels are compiled for: as RMSNORM_CUDA_ARCHITECTURE says, of which a newer GPU runs the PTX."""
    return int(os.environ.get("RMSNORM_CUDA_ARCHITECTURE") or capability())


def capability() -> int:
    """Compute capability of the first GPU, times ten."""
    driver = ctypes.CDLL("libcuda.so.1")
    parts = [ctypes.c_int(), ctypes.c_int()]
    driver.cuInit(0)
    for part, attribute in zip(parts, (75, 76), strict=True):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, 0)
    return 10 * parts[0].value + parts[1].value


@functools.cache
def library() -> Any:
    """The C interface of custom_ops/tests/cuda_device_abi.h."""
    loaded = ctypes.CDLL(str(build() / "librmsnorm_cuda_test.so"))
    for name in ("describe", "run", "plan", "copy"):
        getattr(loaded, f"rmsnorm_cuda_{name}").restype = ctypes.c_char_p
    loaded.rmsnorm_cuda_host.restype = ctypes.c_double
    return loaded


def launch(problem: abi.TestProblem, stream: int) -> str:
    """One norm on the GPU."""
    text: bytes = library().rmsnorm_cuda_run(ctypes.byref(problem), ctypes.c_void_p(stream))
    return text.decode()


class Placed:
    """A problem of the host on the device; tensors that were one there are one here."""

    def __init__(self, memory: Memory, problem: abi.TestProblem, offset: int) -> None:
        """``offset`` is where tensors begin after a multiple of 256 bytes, in elements."""
        self._memory = memory
        self._sizes = Emulator._sizes(problem)
        self._places: dict[int, tuple[Any, np.ndarray[Any, Any], slice]] = {}
        self.problem = abi.TestProblem.from_buffer_copy(problem)
        self._written = {address for name in ("y", "sum") if (address := getattr(problem, name))}
        read = {address for name in ("x", "second") if (address := getattr(problem, name))}
        for name in ("x", "second", "scale", "y", "sum"):
            address = getattr(problem, name)
            if address is None:
                continue
            if address not in self._places:
                size = self._sizes[name]
                element = abi.NUMPY[problem.scale_type if name == "scale" else problem.type].itemsize
                start = GUARD + offset * element
                content = np.full(start + size + GUARD, GUARDED, np.uint8)
                content[start : start + size] = (
                    POISON if address not in read and name != "scale" else _bytes(address, size)
                )
                blank = not POISONS and address in self._written and address not in read
                buffer = memory.allocate(content.size if blank else content)
                self._places[address] = (buffer, content, slice(start, start + size))
            buffer, _, where = self._places[address]
            setattr(self.problem, name, memory.address(buffer) + where.start)

    def restore(self) -> None:
        """Poison the outputs, and put inputs back, as before the launch."""
        for buffer, content, _ in self._places.values():
            self._memory.write(buffer, content)

    def take_back(self) -> None:
        """Copy the outputs to the host; AssertionError if anything else was written."""
        for address, (buffer, before, where) in self._places.items():
            if address in self._written:
                _bytes(address, where.stop - where.start)[:] = self._memory.read(buffer, where)
                if not POISONS:  # nobody wrote what lies around, and initcheck sees copies too
                    continue
            after = self._memory.read(buffer, slice(None))
            if address in self._written:
                after[where] = before[where]
            changed = np.flatnonzero(after != before)
            assert not changed.size, (
                f"{changed.size} bytes written outside the outputs, the first {changed[0] - where.start} bytes after "
                f"the beginning of a tensor of {where.stop - where.start}"
            )


def _bytes(address: int, size: int) -> np.ndarray[Any, Any]:
    """Memory of the host."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def directly(memory: Memory, placed: Placed, enqueue: Callable[[int], str]) -> str:
    """On a stream of its own."""
    stream, wait = memory.stream()
    error = enqueue(stream)
    wait()
    return error


def replayed(memory: Memory, placed: Placed, enqueue: Callable[[int], str]) -> str:
    """Captured in a graph, which is replayed twice."""
    errors = []
    replay = memory.capture(lambda stream: errors.append(enqueue(stream)))
    for _ in range(2):
        placed.restore()
        replay()
    return errors[0]


class Device:
    """Has the functions of the C interface that the kernels' tests call."""

    def __init__(self, memory: Memory, launch: Launch = launch, how: How = directly, offset: int = 0) -> None:
        self._memory, self._launch, self._how, self._offset = memory, launch, how, offset

    def rmsnorm_test_isas(self) -> bytes:
        """A name that the tests know: what runs is this GPU's code."""
        return b"baseline"

    def rmsnorm_test_run(self, isa: bytes, reference: Any) -> bytes:
        """One norm, whose outputs are copied back."""
        placed = Placed(self._memory, reference._obj, self._offset)
        error = self._how(self._memory, placed, lambda stream: self._launch(placed.problem, stream))
        if not error:
            placed.take_back()
        return error.encode()


if __name__ == "__main__":
    if not has_gpu():
        sys.exit("no NVIDIA GPU")
    print(library().rmsnorm_cuda_describe().decode())
