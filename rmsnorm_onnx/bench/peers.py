"""Contestants from other packages, imported only when they are measured, and left out where they are not installed.

Each computes one norm per call, called from Python, as their users do; what the call itself takes is in the time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from rmsnorm_onnx.bench.contestant import Absent, Contestant, Group
from rmsnorm_onnx.bench.machine import usable_cores
from rmsnorm_onnx.bench.problem import EPSILON, Array, Problem
from rmsnorm_onnx.spec import DType


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent("not installed") from error


def torch(problem: Problem, threads: int) -> Contestant:
    """torch.nn.functional.rms_norm, with torch's own operators for the rest of the form."""
    package = _import("torch")
    package.set_num_threads(threads)
    functional = package.nn.functional
    bfloat16 = problem.element is DType.BFLOAT16

    def tensor(array: Array) -> Any:
        if bfloat16:
            return package.from_numpy(array.view(np.int16)).view(package.bfloat16)
        return package.from_numpy(array)

    given = {name: tensor(array) for name, array in problem.inputs.items()}
    x, scale, gate = given["X"], given["scale"], given.get("gate")

    def norm(value: Any) -> Any:
        return functional.rms_norm(value, (problem.width,), scale, EPSILON)

    def skip() -> Any:
        total = x + given["skip"]
        return norm(total), total

    forms: dict[str, Callable[[], Any]] = {
        "plain": lambda: (norm(x),),
        "skip": skip,
        "gated": lambda: (norm(x) * functional.silu(gate),),
        "pregated": lambda: (norm(x * functional.silu(gate)),),
    }

    def arrays(results: Any) -> tuple[Array, ...]:
        return tuple(r.view(package.int16).numpy().view(problem.numpy_type) if bfloat16 else r.numpy() for r in results)

    return _called("torch", forms[problem.form], arrays, around=package.inference_mode)


def jax(problem: Problem, threads: int) -> Contestant:
    """A function of jax.numpy under jit; XLA uses every core that the process may use."""
    package = _import("jax")
    if threads != usable_cores():
        raise Absent(f"uses {usable_cores()} threads")
    if problem.element is DType.DOUBLE:
        raise Absent("float64 is switched on for a whole process only")
    numpy = package.numpy

    def normalize(x: Any, scale: Any) -> Any:
        wide = x.astype(numpy.float32)
        root = package.lax.rsqrt(numpy.mean(wide * wide, axis=-1, keepdims=True) + EPSILON)
        return wide * root * scale.astype(numpy.float32)

    def compute(given: dict[str, Any]) -> Any:
        x, dtype = given["X"], given["X"].dtype
        gate = package.nn.silu(given["gate"].astype(numpy.float32)) if "gate" in given else None
        if problem.form == "skip":
            total = x + given["skip"]
            return normalize(total, given["scale"]).astype(dtype), total
        y = normalize(x * gate if problem.form == "pregated" else x, given["scale"])
        return ((y * gate if problem.form == "gated" else y).astype(dtype),)

    compiled = package.jit(compute)
    given = {name: package.device_put(array) for name, array in problem.inputs.items()}
    return _called("jax", lambda: package.block_until_ready(compiled(given)), lambda r: tuple(map(np.asarray, r)))


def numba(problem: Problem, threads: int) -> Contestant:
    """Loops in Python, compiled with fastmath; one thread, and numpy's own float types only."""
    package = _import("numba")
    if threads != 1:
        raise Absent("one thread only")
    if problem.form != "plain" or problem.element not in {DType.FLOAT, DType.DOUBLE}:
        raise Absent("plain float32 and float64 only")
    x, scale, y = problem.inputs["X"], problem.inputs["scale"], np.empty_like(problem.inputs["X"])
    number = problem.numpy_type.type
    width, epsilon, one, zero = number(problem.width), number(EPSILON), number(1), number(0)

    def loops(x: Any, scale: Any, y: Any) -> None:
        for row in range(x.shape[0]):
            total = zero
            for i in range(x.shape[1]):
                total += x[row, i] * x[row, i]
            factor = one / np.sqrt(total / width + epsilon)
            for i in range(x.shape[1]):
                y[row, i] = x[row, i] * factor * scale[i]

    compiled = package.njit(fastmath=True)(loops)
    return _called("numba", lambda: compiled(x, scale, y), lambda _: (y,))


def openvino(problem: Problem, threads: int) -> Contestant:
    """The norm as an exporter writes it, which OpenVINO fuses into its own."""
    package = _import("openvino")
    if problem.form not in {"plain", "skip"}:
        raise Absent("plain and skip only")
    if problem.element is not DType.FLOAT:
        raise Absent("float32 only")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    core = package.Core()
    compiled = core.compile_model(core.read_model(_decomposed(problem)), "CPU", settings)
    request = compiled.create_infer_request()
    inputs = {name: package.Tensor(array, shared_memory=True) for name, array in problem.inputs.items()}
    for name in ("X", "skip"):
        if name in inputs:
            request.set_tensor(name, inputs[name])
    outputs = [np.empty_like(problem.inputs["X"]) for _ in compiled.outputs]
    for index, array in enumerate(outputs):
        request.set_output_tensor(index, package.Tensor(array, shared_memory=True))
    alive = (core, inputs)
    return _called("openvino", request.infer, lambda _: tuple(outputs) if alive else ())


def _decomposed(problem: Problem) -> bytes:
    shape = (problem.rows, problem.width)

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, problem.element, shape)

    nodes, x = [], "X"
    if problem.form == "skip":
        nodes, x = [helper.make_node("Add", ["X", "skip"], ["sum"])], "sum"
    nodes += [
        helper.make_node("Pow", [x, "two"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Div", [x, "root"], ["normalized"]),
        helper.make_node("Mul", ["normalized", "scale"], ["Y"]),
    ]
    constants = [
        helper.make_tensor("two", problem.element, [], [2.0]),
        helper.make_tensor("epsilon", problem.element, [], [EPSILON]),
        helper.make_tensor("scale", problem.element, [problem.width], problem.inputs["scale"].tolist()),
    ]
    inputs = [value(name) for name in problem.op.inputs[:-1]]
    graph = helper.make_graph(nodes, "norm", inputs, [value(name) for name in problem.op.outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


def _called(
    name: str, call: Callable[[], Any], arrays: Callable[[Any], tuple[Array, ...]], around: Any = None
) -> Contestant:
    last: list[Any] = [None]

    def repeat(times: int) -> None:
        if around is None:
            for _ in range(times):
                last[0] = call()
            return
        with around():
            for _ in range(times):
                last[0] = call()

    return Contestant(name, Group.PEER, repeat, lambda: arrays(last[0]))


#: By name; each may raise Absent.
PEERS: Final[dict[str, Callable[[Problem, int], Contestant]]] = {
    "torch": torch,
    "openvino": openvino,
    "jax": jax,
    "numba": numba,
}
