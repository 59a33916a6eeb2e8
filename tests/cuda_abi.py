"""The CUDA kernels on this machine's processor: their own source, run by an emulator of blocks, warps and clusters.

``Emulated`` has the functions of the C interface that tests call; where those take an instruction set, it takes the
name of a device that is only said to be there.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import kernels_abi as abi


class TestDevice(ctypes.Structure):
    """Mirror of the struct in custom_ops/tests/cuda_abi.h."""

    __test__ = False
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("arch", "processors", "shared_bytes")),
        ("l2_bytes", ctypes.c_int64),
    )


#: As cards of these architectures are; the last has so few processors that a few rows fill it.
DEVICES = {
    "sm_75": TestDevice(75, 40, 64 << 10, 4 << 20),
    "sm_86": TestDevice(86, 84, 99 << 10, 6 << 20),
    "sm_90": TestDevice(90, 132, 227 << 10, 50 << 20),
    "sm_120": TestDevice(120, 170, 99 << 10, 96 << 20),
    "sm_90 small": TestDevice(90, 2, 227 << 10, 1 << 20),
}


class Emulated:
    """The kernels of the library ``rmsnorm_cuda_emulated``."""

    def __init__(self) -> None:
        name = "rmsnorm_cuda_emulated"
        self._library = ctypes.CDLL(str(abi.build(name) / f"lib{name}.so"))
        for name in ("run", "plan", "misuse"):
            getattr(self._library, f"rmsnorm_cuda_test_{name}").restype = ctypes.c_char_p

    def rmsnorm_test_run(self, device: bytes, problem: Any) -> bytes:
        """One norm."""
        text: bytes = self._library.rmsnorm_cuda_test_run(ctypes.byref(DEVICES[device.decode()]), problem)
        return text

    def plan(self, device: str, problem: Any) -> str:
        """How the norm would be launched."""
        text: bytes = self._library.rmsnorm_cuda_test_plan(ctypes.byref(DEVICES[device]), ctypes.byref(problem))
        return text.decode()

    def misuse(self, name: str) -> str:
        """What the emulator says about a kernel that is wrong."""
        text: bytes = self._library.rmsnorm_cuda_test_misuse(name.encode())
        return text.decode()


@functools.cache
def emulated() -> Emulated:
    """The library, built from this tree."""
    return Emulated()
