"""The kernels of another architecture, run by an emulator: what ``kernels_abi.shim`` gives then.

``RMSNORM_KERNELS`` names the command, as in ``qemu-aarch64 build/aarch64/kernels_server``; ``make aarch64`` sets it.
Arrays are copied into memory that both processes map, requests are lines, pointers in them offsets.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import kernels_abi as abi

from rmsnorm_onnx.spec import DType

#: More than any test needs; pages that nobody touches cost nothing.
_BYTES = 1 << 30
#: Where a request lies, and where what it points to begins.
_REQUEST, _ARRAYS = 64, 4096


class Emulator:
    """Has the functions of the C interface that tests call."""

    def __init__(self, command: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        shared = Path(self._folder.name) / "memory"
        shared.touch()
        os.truncate(shared, _BYTES)
        with shared.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([*command, str(shared)], stdin=pipe, stdout=pipe, text=True)

    def rmsnorm_test_isas(self) -> bytes:
        """Names of the instruction sets."""
        return self._ask("isas")

    def rmsnorm_test_layout(self, *lists: Any) -> bytes:
        """How the kernels walk; ``lists`` are C arrays of int64, each followed by its length."""
        pairs = zip(lists[::2], lists[1::2], strict=True)
        words = [word for values, count in pairs for word in (count.value, *values)]
        ctypes.memmove(self._base + _REQUEST, abi.int64s(words), 8 * len(words))
        return self._ask("layout")

    def rmsnorm_test_run(self, isa: bytes, reference: Any) -> bytes:
        """One kernel call; what it wrote is copied back."""
        problem = reference._obj
        moved = abi.TestProblem.from_buffer_copy(problem)
        sizes = self._sizes(problem)
        free, places = _ARRAYS, dict[int, int]()
        for name, size in sizes.items():
            address = ctypes.cast(getattr(problem, name), ctypes.c_void_p).value
            if address is None:
                continue
            if address not in places:  # Y may be X
                places[address], free = free, free + (size + 127) // 64 * 64
                ctypes.memmove(self._base + places[address], address, size)
            self._point(moved, name, places[address])
        ctypes.memmove(self._base + _REQUEST, ctypes.byref(moved), ctypes.sizeof(moved))
        answer = self._ask(f"run {isa.decode() or '-'}")
        for name in ("y", "sum"):
            address = getattr(problem, name)
            if address is not None:
                ctypes.memmove(address, self._base + places[address], sizes[name])
        return answer

    @staticmethod
    def _sizes(problem: Any) -> dict[str, int]:
        """Bytes behind each pointer."""
        elements = math.prod(problem.shape[: problem.rank])
        tensor = elements * abi.NUMPY[DType(problem.type)].itemsize
        scale = math.prod(problem.scale_shape[: problem.scale_rank]) * abi.NUMPY[DType(problem.scale_type)].itemsize
        counts = {"shape": problem.rank, "axes": problem.axis_count, "scale_shape": problem.scale_rank}
        lists = {name: 8 * count for name, count in counts.items()}
        return lists | {"x": tensor, "second": tensor, "scale": scale, "y": tensor, "sum": tensor}

    @staticmethod
    def _point(problem: Any, name: str, offset: int) -> None:
        kind = dict(abi.TestProblem._fields_)[name]
        setattr(problem, name, ctypes.cast(ctypes.c_void_p(offset), kind) if kind is not ctypes.c_void_p else offset)

    def _ask(self, line: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the emulated kernels ended: {' '.join(map(str, self._process.args))}"
        return answer.strip().encode()
