"""The verbs of the package: paths or models in, results out."""

from rmsnorm_onnx.api._benchmark import benchmark
from rmsnorm_onnx.api._optimize import InspectResult, OptimizeResult, inspect, optimize
from rmsnorm_onnx.api._verify import verify
from rmsnorm_onnx.bench import benchmark_kernels

__all__ = ["InspectResult", "OptimizeResult", "benchmark", "benchmark_kernels", "inspect", "optimize", "verify"]
