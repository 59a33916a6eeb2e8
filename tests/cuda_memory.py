"""Memory and streams of a GPU through whichever package is there: torch or cupy, bytes only."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Memory(Protocol):
    """Where the tensors of a problem lie, and how its launches are ordered."""

    def allocate(self, content: np.ndarray[Any, Any] | int) -> Any:
        """A buffer of those bytes, or of so many that nobody wrote; it begins at a multiple of 256."""

    def address(self, buffer: Any) -> int:
        """Where the buffer begins."""

    def write(self, buffer: Any, content: np.ndarray[Any, Any]) -> None:
        """Replace all bytes."""

    def read(self, buffer: Any, part: slice) -> np.ndarray[Any, Any]:
        """Those bytes, after whatever was enqueued on any stream."""

    def stream(self) -> tuple[int, Callable[[], None]]:
        """A new stream's handle, and what waits for it."""

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        """What replays, and waits for, the graph of what ``enqueue`` enqueues on the stream it is given."""


class Torch:
    """Memory of torch."""

    def __init__(self) -> None:
        import torch

        torch.cuda.init()
        self._torch = torch

    def allocate(self, content: np.ndarray[Any, Any] | int) -> Any:
        if isinstance(content, int):
            return self._torch.empty(content, dtype=self._torch.uint8, device="cuda")
        return self._torch.from_numpy(content).cuda()

    def address(self, buffer: Any) -> int:
        address: int = buffer.data_ptr()
        return address

    def write(self, buffer: Any, content: np.ndarray[Any, Any]) -> None:
        buffer.copy_(self._torch.from_numpy(content))
        self._torch.cuda.synchronize()

    def read(self, buffer: Any, part: slice) -> np.ndarray[Any, Any]:
        self._torch.cuda.synchronize()
        content: np.ndarray[Any, Any] = buffer[part].cpu().numpy()
        return content

    def stream(self) -> tuple[int, Callable[[], None]]:
        stream = self._torch.cuda.Stream()
        stream.wait_stream(self._torch.cuda.current_stream())
        return stream.cuda_stream, stream.synchronize

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        self._torch.cuda.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            enqueue(self._torch.cuda.current_stream().cuda_stream)

        def replay() -> None:
            graph.replay()
            self._torch.cuda.synchronize()

        return replay


class Cupy:
    """Memory of cupy, every buffer an allocation of its own: what leaves it is seen by compute-sanitizer."""

    def __init__(self) -> None:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
        cupy.cuda.set_allocator(None)
        self._cupy = cupy

    def allocate(self, content: np.ndarray[Any, Any] | int) -> Any:
        if isinstance(content, int):
            return self._cupy.empty(content, np.uint8)
        return self._cupy.asarray(content)

    def address(self, buffer: Any) -> int:
        address: int = buffer.data.ptr
        return address

    def write(self, buffer: Any, content: np.ndarray[Any, Any]) -> None:
        buffer.set(content)
        self._cupy.cuda.runtime.deviceSynchronize()

    def read(self, buffer: Any, part: slice) -> np.ndarray[Any, Any]:
        self._cupy.cuda.runtime.deviceSynchronize()
        content: np.ndarray[Any, Any] = buffer[part].get()
        return content

    def stream(self) -> tuple[int, Callable[[], None]]:
        self._cupy.cuda.runtime.deviceSynchronize()
        stream = self._cupy.cuda.Stream(non_blocking=True)
        return _Handle(stream), stream.synchronize

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        self._cupy.cuda.runtime.deviceSynchronize()
        stream = self._cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            enqueue(stream.ptr)
            graph = stream.end_capture()

        def replay() -> None:
            graph.launch(stream)
            stream.synchronize()

        return replay


class _Handle(int):
    """A stream's handle that keeps the stream."""

    def __new__(cls, stream: Any) -> _Handle:
        handle = super().__new__(cls, stream.ptr)
        handle.stream = stream
        return handle

    stream: Any


def has_gpu() -> bool:
    """Whether the driver is there and shows a GPU; imports nothing large."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def memory() -> Memory | str:
    """Of the first package that works, RMSNORM_CUDA_MEMORY alone if it names one; or why there is none."""
    packages: dict[str, Callable[[], Memory]] = {"torch": Torch, "cupy": Cupy}
    named = os.environ.get("RMSNORM_CUDA_MEMORY")
    reasons = []
    for name in [named] if named else packages:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return packages[name]()
        except Exception as error:  # a package for another CUDA fails in its own way
            reasons.append(f"{name}: {error}".splitlines()[0])
    return "neither torch nor cupy can use the GPU: " + "; ".join(reasons)
