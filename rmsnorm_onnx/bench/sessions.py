"""Contestants that are onnxruntime sessions of a few nodes: ours, onnxruntime's own, and its copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper

from rmsnorm_onnx import spec
from rmsnorm_onnx.bench.contestant import Absent, Contestant, Group
from rmsnorm_onnx.bench.ort import open_session, to_ortvalue
from rmsnorm_onnx.bench.problem import EPSILON, Array, Problem
from rmsnorm_onnx.errors import CannotRun, LibraryMissing
from rmsnorm_onnx.spec import DType

_MICROSOFT: Final = "com.microsoft"
_OPSET: Final = 23
#: A run of a session costs microseconds besides its nodes; with this many bytes per run that is a few percent.
_BYTES_PER_RUN: Final = 8 << 20
_MOST_COPIES: Final = 64

#: Writes the nodes of one copy, given a function that makes names of its own for values; returns the outputs.
_Writer = Callable[[list[onnx.NodeProto], Callable[[str], str]], tuple[str, ...]]


def copies_of(problem: Problem) -> int:
    """Nodes in one session: several where the tensor is small."""
    return max(1, min(_MOST_COPIES, _BYTES_PER_RUN // problem.moved_bytes))


def ours(problem: Problem, threads: int) -> Contestant:
    """The operator of this package."""
    stash = DType.DOUBLE if problem.element is DType.DOUBLE else DType.FLOAT
    attributes: dict[str, Any] = {"epsilon": EPSILON, "stash_type": int(stash), "normalized_type": int(stash)}
    if problem.op is spec.GATED:
        attributes["scaled_type"] = int(stash)

    def write(nodes: list[onnx.NodeProto], own: Callable[[str], str]) -> tuple[str, ...]:
        outputs = tuple(own(name) for name in problem.op.outputs)
        nodes.append(
            helper.make_node(problem.op.name, list(problem.op.inputs), outputs, domain=spec.DOMAIN, **attributes)
        )
        return outputs

    return _contestant("rmsnorm-onnx", Group.OURS, problem, threads, write)


def onnxruntimes(problem: Problem) -> dict[str, Callable[[int], Contestant]]:
    """Every way of saying the problem with onnxruntime's own operators, by name; each takes the threads."""
    ways: dict[str, _Writer] = {}
    for norm in ("RMSNormalization", "SimplifiedLayerNormalization"):
        ways[_title(problem, norm)] = _around(problem, norm)
    if problem.op is spec.SKIP:
        ways["ort SkipSimplifiedLayerNorm."] = _skip
    if problem.op is spec.GATED:
        ways["ort GatedRMSNorm"] = _gated
    return {name: partial(_of_onnxruntime, name, problem, write) for name, write in ways.items()}


def identity(problem: Problem, threads: int) -> Contestant:
    """Identity of onnxruntime, moving as many bytes as the problem; it copies with one thread."""
    elements = problem.moved_bytes // 2 // problem.numpy_type.itemsize
    source = {"X": np.ones(elements, problem.numpy_type)}

    def write(nodes: list[onnx.NodeProto], own: Callable[[str], str]) -> tuple[str, ...]:
        nodes.append(helper.make_node("Identity", ["X"], [own("Y")]))
        return (own("Y"),)

    model = _model(problem, source, (elements,), copies_of(problem), write)
    repeat, _ = _bind(model, source, 1, threads, problem, (elements,))
    return Contestant("ort Identity", Group.COPY, repeat, tuple, copies_of(problem))


def _title(problem: Problem, norm: str) -> str:
    short = norm.replace("SimplifiedLayerNormalization", "SimplifiedLayerNorm.").replace("Normalization", "Norm.")
    before = {"skip": "Add + ", "pregated": "silu + "}.get(problem.form, "")
    return f"ort {before}{short}" + (" + silu" if problem.form == "gated" else "")


def _around(problem: Problem, norm: str) -> _Writer:
    """The norm alone, with standard operators for the rest of the form."""

    def write(nodes: list[onnx.NodeProto], own: Callable[[str], str]) -> tuple[str, ...]:
        def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(op, inputs, [output], **attributes))
            return output

        def silu() -> str:
            return node("Mul", ["gate", node("Sigmoid", ["gate"], own("sigmoid"))], own("silu"))

        x = "X"
        if problem.op is spec.SKIP:
            x = node("Add", ["X", "skip"], own("sum"))
        if problem.op is spec.PRE_GATED:
            x = node("Mul", ["X", silu()], own("gated"))
        gated = problem.op is spec.GATED
        y = node(norm, [x, "scale"], own("normalized" if gated else "Y"), axis=-1, epsilon=EPSILON)
        if gated:
            y = node("Mul", [y, silu()], own("Y"))
        return (y, x) if problem.op is spec.SKIP else (y,)

    return write


def _skip(nodes: list[onnx.NodeProto], own: Callable[[str], str]) -> tuple[str, ...]:
    op = "SkipSimplifiedLayerNormalization"
    outputs = [own("Y"), "", "", own("sum")]
    nodes.append(helper.make_node(op, ["X", "skip", "scale"], outputs, domain=_MICROSOFT, epsilon=EPSILON))
    return own("Y"), own("sum")


def _gated(nodes: list[onnx.NodeProto], own: Callable[[str], str]) -> tuple[str, ...]:
    node = helper.make_node("GatedRMSNorm", ["X", "scale", "gate"], [own("Y")], domain=_MICROSOFT, epsilon=EPSILON)
    nodes.append(node)
    return (own("Y"),)


def _of_onnxruntime(name: str, problem: Problem, write: _Writer, threads: int) -> Contestant:
    return _contestant(name, Group.ONNXRUNTIME, problem, threads, write)


def _contestant(name: str, group: Group, problem: Problem, threads: int, write: _Writer) -> Contestant:
    copies = copies_of(problem)
    shape = (problem.rows, problem.width)
    model = _model(problem, problem.inputs, shape, copies, write)
    written: list[onnx.NodeProto] = []
    repeat, arrays = _bind(model, problem.inputs, len(write(written, str)), threads, problem, shape)
    return Contestant(name, group, repeat, lambda: tuple(_numpy(a, problem) for a in arrays), copies)


def _model(
    problem: Problem, inputs: dict[str, Array], shape: tuple[int, ...], copies: int, write: _Writer
) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    outputs: list[str] = []
    for copy in range(copies):
        outputs += write(nodes, lambda name, copy=copy: f"{name}_{copy}")  # type: ignore[misc]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(name, problem.element, array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info(name, problem.element, shape) for name in outputs],
    )
    opsets = [("", _OPSET), (_MICROSOFT, 1), (spec.DOMAIN, spec.VERSION)]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets], ir_version=10)


def _bind(
    model: onnx.ModelProto, inputs: dict[str, Array], per_copy: int, threads: int, problem: Problem, shape: Any
) -> tuple[Callable[[int], None], list[Any]]:
    """A function that runs the model, and the memory it writes, which all copies share (as they share inputs)."""
    session = _session(model, threads)
    binding = session.io_binding()
    kept = []
    for name, array in inputs.items():
        kept.append(to_ortvalue(array))
        binding.bind_ortvalue_input(name, kept[-1])
    empty = [to_ortvalue(np.zeros(shape, problem.numpy_type)) for _ in range(per_copy)]
    for number, output in enumerate(session.get_outputs()):
        binding.bind_ortvalue_output(output.name, empty[number % per_copy])

    def repeat(times: int) -> None:
        for _ in range(times):
            session.run_with_iobinding(binding)

    return repeat, empty


def _session(model: onnx.ModelProto, threads: int) -> Any:
    try:
        return open_session(model.SerializeToString(), threads, optimization="disable", library="ours")
    except LibraryMissing:
        raise
    except CannotRun as error:
        raise Absent(str(error)[:200]) from error


def _numpy(value: Any, problem: Problem) -> Array:
    if problem.element is not DType.BFLOAT16:
        return np.asarray(value.numpy())
    raw = (ctypes.c_uint16 * (problem.rows * problem.width)).from_address(value.data_ptr())
    return np.ctypeslib.as_array(raw).view(problem.numpy_type)
