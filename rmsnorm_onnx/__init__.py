"""RMS normalization in ONNX models: fuse every spelling, run it fast in onnxruntime, prove that nothing changed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmsnorm_onnx.api import (
        InspectResult,
        OptimizeResult,
        benchmark,
        benchmark_kernels,
        inspect,
        optimize,
        verify,
    )
    from rmsnorm_onnx.bench import KernelBenchmark, ModelBenchmark
    from rmsnorm_onnx.errors import CannotRun, InvalidInput, LibraryMissing, RmsNormError
    from rmsnorm_onnx.export import translation_table
    from rmsnorm_onnx.layers import RMSNormalization, rms_normalization
    from rmsnorm_onnx.library import get_library_path, register
    from rmsnorm_onnx.parity import ParityReport
    from rmsnorm_onnx.passes import FuseRmsNorm
    from rmsnorm_onnx.passes.rules import rewrite_rules
    from rmsnorm_onnx.spec import Why

_HOMES = {
    "rmsnorm_onnx.api": (
        "InspectResult",
        "OptimizeResult",
        "benchmark",
        "benchmark_kernels",
        "inspect",
        "optimize",
        "verify",
    ),
    "rmsnorm_onnx.bench": ("KernelBenchmark", "ModelBenchmark"),
    "rmsnorm_onnx.errors": ("CannotRun", "InvalidInput", "LibraryMissing", "RmsNormError"),
    "rmsnorm_onnx.export": ("translation_table",),
    "rmsnorm_onnx.layers": ("RMSNormalization", "rms_normalization"),
    "rmsnorm_onnx.library": ("get_library_path", "register"),
    "rmsnorm_onnx.passes": ("FuseRmsNorm",),
    "rmsnorm_onnx.passes.rules": ("rewrite_rules",),
    "rmsnorm_onnx.spec": ("Why",),
    "rmsnorm_onnx.parity": ("ParityReport",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CannotRun",
    "FuseRmsNorm",
    "InspectResult",
    "InvalidInput",
    "KernelBenchmark",
    "LibraryMissing",
    "ModelBenchmark",
    "OptimizeResult",
    "ParityReport",
    "RMSNormalization",
    "RmsNormError",
    "Why",
    "benchmark",
    "benchmark_kernels",
    "get_library_path",
    "inspect",
    "optimize",
    "register",
    "rewrite_rules",
    "rms_normalization",
    "translation_table",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import rmsnorm_onnx`` itself takes no time."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'rmsnorm_onnx' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value
