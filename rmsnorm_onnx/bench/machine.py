"""What was measured on: processor, instruction set, cores, versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rmsnorm_onnx import library
from rmsnorm_onnx.environment import processor, versions_of

_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu", "numpy", "torch", "openvino", "jax", "numba")


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine and what runs on it.

    Attributes:
        cpu: the processor's name.
        cores: those that this process may use.
        load: of the machine in the last minute before the measurement (runnable processes).
        isa: instruction set that our kernels use.
        versions: of Python and of the packages that were measured.
    """

    cpu: str
    cores: int
    load: float
    isa: str
    versions: dict[str, str]

    def line(self) -> str:
        """All of it in one line."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.cpu}, {self.cores} cores usable, load {self.load:.1f}, kernels for {self.isa}; {versions}"


def machine() -> Machine:
    """Look at this machine.

    Raises:
        CannotRun: onnxruntime is missing or cannot load the library; LibraryMissing: the library was not built.
    """
    return Machine(processor(), usable_cores(), os.getloadavg()[0], library.info().isa_active, versions_of(_PACKAGES))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Keep this process, and the thread pools made meanwhile, on so many of its cores.

    Threads then stay where their data is, and libraries without a setting for it (XLA) use as many threads.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-cores:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
