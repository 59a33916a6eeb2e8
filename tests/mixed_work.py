"""Work for many threads: every operator and element type over shapes of every kind, and the bits each gives alone."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import kernels_abi as abi
import numpy as np
import onnx
import onnxruntime as ort
from norm_models import OPSETS, info, model, ort_value, values
from onnx import helper

from rmsnorm_onnx import library, spec
from rmsnorm_onnx.function import Form, function_proto
from rmsnorm_onnx.spec import DType

#: One short row, tails, several tasks of rows, one task of 32 KiB per row, rows that threads share, nothing.
SHAPES = ((1, 64), (7, 129), (300, 256), (40, 4099), (2, 131072), (0, 64))


@dataclass(frozen=True)
class Work:
    """One call of one model."""

    dtype: DType
    axis: int
    shape: tuple[int, int]

    @property
    def kind(self) -> tuple[DType, int]:
        """What a session is made for."""
        return self.dtype, self.axis


#: The Python side of older releases takes no bfloat16.
TYPES = [t for t in DType if t != DType.BFLOAT16 or hasattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type")]
ALL = tuple(Work(dtype, axis, shape) for dtype in TYPES for axis in (-1, 0) for shape in SHAPES)
KINDS = tuple(dict.fromkeys(work.kind for work in ALL))


def defaults(op: spec.Op) -> dict[str, object]:
    """All attributes, which the function bodies need."""
    return {attribute.name: attribute.default for attribute in op.attributes}


@functools.cache
def proto(dtype: DType, axis: int) -> bytes:
    """All four operators, one after the other; the first scale is constant, the others are fed.

    Runs with the library and, by function bodies, without.
    """
    gated = {"normalized_type": dtype, "scaled_type": dtype}
    wiring = {
        spec.RMS: (["x", "c"], ["a"], {}),
        spec.SKIP: (["a", "z", "s"], ["b", "t"], {"normalized_type": dtype}),
        spec.GATED: (["b", "z", "s"], ["d"], gated),
        spec.PRE_GATED: (["d", "z", "s"], ["y"], {}),
    }
    own = {"epsilon": 1e-5, "axes": [axis]}
    nodes = [
        helper.make_node(op.name, inputs, outputs, domain=spec.DOMAIN, **defaults(op) | own | others)
        for op, (inputs, outputs, others) in wiring.items()
    ]
    inputs = [info(name, dtype, ["n", "d"]) for name in "xz"] + [info("s", DType.FLOAT, [1])]
    outputs = [info(name, dtype, ["n", "d"]) for name in "yt"]
    constant = onnx.numpy_helper.from_array(np.float32([1.25]), "c")
    made = model(nodes, inputs, outputs, [constant])
    made.functions.extend(function_proto(op.name, Form(OPSETS[0].version)) for op in wiring)
    return bytes(made.SerializeToString())


def options_of(*, threads: int = 1, arena: bool = True) -> ort.SessionOptions:
    """Without arenas, every tensor is memory of its own, which sanitizers watch."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    return options


def session(kind: tuple[DType, int], options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A session; of options of its own where none are given."""
    if options is None:
        options = options_of()
        library.register(options)
    return ort.InferenceSession(proto(*kind), options, providers=["CPUExecutionProvider"])


@functools.cache
def feeds(work: Work) -> dict[str, ort.OrtValue]:
    return {
        "x": ort_value(values(work.shape, work.dtype)),
        "z": ort_value(values(work.shape, work.dtype, 1)),
        "s": ort_value(np.float32([0.75])),
    }


def digest(made: ort.InferenceSession, work: Work) -> bytes:
    """Hash of the outputs' bits."""
    binding = made.io_binding()
    for name, value in feeds(work).items():
        binding.bind_ortvalue_input(name, value)
    results = [abi.aligned(work.shape[0] * work.shape[1] * abi.NUMPY[work.dtype].itemsize) for _ in "yt"]
    typed = [result.view(abi.NUMPY[work.dtype]).reshape(work.shape) for result in results]
    for name, array in zip("yt", typed, strict=True):
        binding.bind_ortvalue_output(name, ort_value(array))
    made.run_with_iobinding(binding)
    return hashlib.blake2b(b"".join(result.tobytes() for result in results)).digest()


@functools.cache
def alone() -> dict[Work, bytes]:
    """What each gives on one thread, nothing else running."""
    sessions = {kind: session(kind) for kind in KINDS}
    return {work: digest(sessions[work.kind], work) for work in ALL}
