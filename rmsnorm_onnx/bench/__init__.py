"""Benchmarks: kernels against other implementations and plain copies, and models against each other."""

from rmsnorm_onnx.bench.cell import Cell, Measurement
from rmsnorm_onnx.bench.decoder import DECODERS, Decoder, build, save
from rmsnorm_onnx.bench.kernel_records import KernelBenchmark
from rmsnorm_onnx.bench.kernels import benchmark_kernels
from rmsnorm_onnx.bench.machine import Machine, usable_cores
from rmsnorm_onnx.bench.model_records import ModelBenchmark, Timed
from rmsnorm_onnx.bench.models import Candidate, time_models
from rmsnorm_onnx.bench.ort import Library
from rmsnorm_onnx.bench.picture import to_svg
from rmsnorm_onnx.bench.profile import OpTime
from rmsnorm_onnx.bench.timing import Ratio, Times

__all__ = [
    "DECODERS",
    "Candidate",
    "Cell",
    "Decoder",
    "KernelBenchmark",
    "Library",
    "Machine",
    "Measurement",
    "ModelBenchmark",
    "OpTime",
    "Ratio",
    "Timed",
    "Times",
    "benchmark_kernels",
    "build",
    "save",
    "time_models",
    "to_svg",
    "usable_cores",
]
