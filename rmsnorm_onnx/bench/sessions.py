"""Contestants that are onnxruntime sessions of a few nodes: ours, onnxruntime's own, and its copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rmsnorm_onnx import spec
from rmsnorm_onnx.bench.contestant import Absent, Contestant, Group
from rmsnorm_onnx.bench.ort import open_session, to_ortvalue
from rmsnorm_onnx.bench.problem import EPSILON, Array, Problem
from rmsnorm_onnx.errors import CannotRun, LibraryMissing
from rmsnorm_onnx.spec import DType

_MICROSOFT: Final = "com.microsoft"
#: Any onnxruntime knows the first, and only newer ones RMSNormalization's.
_OPSET: Final = 18
_OPSET_OF_RMS_NORMALIZATION: Final = 23
#: A run of a session costs microseconds besides its nodes; with this many bytes per run that is one percent. Norms that
#: move less than half a megabyte do not get there with the most copies.
_BYTES_PER_RUN: Final = 32 << 20
_MOST_COPIES: Final = 64

#: Nodes that compute the problem's outputs from its inputs, under the names that the operator gives both.
_Nodes: TypeAlias = list[onnx.NodeProto]


def copies_of(problem: Problem) -> int:
    """Norms in one session: those of a chain, or several on the same inputs where the tensor is small."""
    if problem.chain > 1:
        return problem.chain
    return max(1, min(_MOST_COPIES, _BYTES_PER_RUN // problem.moved_bytes))


def ours(problem: Problem, threads: int) -> Contestant:
    """The operator of this package."""
    stash = DType.DOUBLE if problem.element is DType.DOUBLE else DType.FLOAT
    attributes: dict[str, Any] = {"epsilon": EPSILON, "stash_type": int(stash), "normalized_type": int(stash)}
    if problem.op is spec.GATED:
        attributes["scaled_type"] = int(stash)
    op = problem.op
    node = helper.make_node(op.name, op.inputs, op.outputs, domain=spec.DOMAIN, **attributes)
    return _contestant("rmsnorm-onnx", Group.OURS, problem, [node], threads)


def onnxruntimes(problem: Problem) -> dict[str, Callable[[int], Contestant]]:
    """Every way of saying the problem with onnxruntime's own operators, by name; each takes the threads."""
    around = {"skip": "Add + {}", "gated": "{} + silu", "pregated": "silu + {}"}.get(problem.form, "{}").format
    ways = {around("SimplifiedLayerNorm."): _around(problem, "SimplifiedLayerNormalization")}
    if problem.op is spec.SKIP:
        ways["SkipSimplifiedLayerNorm."] = [_skip()]
    if problem.op is spec.GATED:
        ways["GatedRMSNorm"] = [_gated()]
    if problem.element is DType.BFLOAT16:  # most have no kernel for it, and the others a slow one
        ways |= {f"Cast, {name}": _between_casts(problem, nodes) for name, nodes in ways.items()}
    ways[around("RMSNorm.")] = _around(problem, "RMSNormalization")
    return {
        f"ort {name}": partial(_contestant, f"ort {name}", Group.ONNXRUNTIME, problem, nodes)
        for name, nodes in ways.items()
    }


def identity(problem: Problem, threads: int) -> Contestant:
    """Identity of onnxruntime, moving as many bytes as the problem; it copies with one thread."""
    elements = problem.moved_bytes // 2 // problem.numpy_type.itemsize
    source = {"X": np.ones(elements, problem.numpy_type)}
    copies = copies_of(problem)
    nodes = [helper.make_node("Identity", ["X"], [f"Y_{copy}"]) for copy in range(copies)]
    written = {node.output[0]: 0 for node in nodes}
    repeat, _ = _bind(problem, nodes, source, {}, written, (elements,), threads)
    return Contestant("ort Identity", Group.COPY, repeat, tuple, copies)


def _around(problem: Problem, norm: str) -> _Nodes:
    """The norm alone, with standard operators for the rest of the form."""
    silu = [helper.make_node("Sigmoid", ["gate"], ["sigmoid"]), helper.make_node("Mul", ["gate", "sigmoid"], ["silu"])]
    before, x, y, after = [], "X", "Y", []
    if problem.op is spec.SKIP:
        before, x = [helper.make_node("Add", ["X", "skip"], ["sum"])], "sum"
    if problem.op is spec.PRE_GATED:
        before, x = [*silu, helper.make_node("Mul", ["X", "silu"], ["product"])], "product"
    if problem.op is spec.GATED:
        y, after = "normalized", [*silu, helper.make_node("Mul", ["normalized", "silu"], ["Y"])]
    return [*before, helper.make_node(norm, [x, "scale"], [y], axis=-1, epsilon=EPSILON), *after]


def _skip() -> onnx.NodeProto:
    op, outputs = "SkipSimplifiedLayerNormalization", ["Y", "", "", "sum"]
    return helper.make_node(op, ["X", "skip", "scale"], outputs, domain=_MICROSOFT, epsilon=EPSILON)


def _gated() -> onnx.NodeProto:
    return helper.make_node("GatedRMSNorm", ["X", "scale", "gate"], ["Y"], domain=_MICROSOFT, epsilon=EPSILON)


def _between_casts(problem: Problem, nodes: _Nodes) -> _Nodes:
    """The same in float32; the scale is a constant, which onnxruntime casts once, when it loads a model."""
    names = {name: f"{name}_float" for name in (*problem.op.inputs, *problem.op.outputs)}
    before = [helper.make_node("Cast", [x], [names[x]], to=int(DType.FLOAT)) for x in problem.op.inputs[:-1]]
    after = [helper.make_node("Cast", [names[y]], [y], to=int(problem.element)) for y in problem.op.outputs]
    return [*before, *(_renamed(node, lambda name: names.get(name, name)) for node in nodes), *after]


def _renamed(node: onnx.NodeProto, rename: Callable[[str], str]) -> onnx.NodeProto:
    """The node with other names; an empty one stands for no value."""
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    for values in (renamed.input, renamed.output):
        values[:] = [rename(name) if name else "" for name in values]
    return renamed


def _contestant(name: str, group: Group, problem: Problem, nodes: _Nodes, threads: int) -> Contestant:
    copies, outputs = copies_of(problem), problem.op.outputs
    scale = problem.inputs["scale"]
    # A model's scale is a constant.
    constants = {"scale": scale, "scale_float": scale.astype(np.float32)}
    inputs = {name: array for name, array in problem.inputs.items() if name != "scale"}

    def rename(value: str, copy: int) -> str:
        if problem.chain > 1 and copy and value == "X":
            return f"Y_{copy - 1}"
        return value if value in inputs or value in constants else f"{value}_{copy}"

    written = [_renamed(node, partial(rename, copy=copy)) for copy in range(copies) for node in nodes]
    # What the others of a chain give stays inside.
    given = range(copies - 1, copies) if problem.chain > 1 else range(copies)
    places = {f"{output}_{copy}": place for copy in given for place, output in enumerate(outputs)}
    repeat, arrays = _bind(problem, written, inputs, constants, places, (problem.rows, problem.width), threads)
    return Contestant(name, group, repeat, lambda: tuple(_numpy(a, problem) for a in arrays), copies)


def _bind(
    problem: Problem,
    nodes: _Nodes,
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    places: Mapping[str, int],
    shape: tuple[int, ...],
    threads: int,
) -> tuple[Callable[[int], None], list[Any]]:
    """A function that runs the nodes, and the memory they write.

    Args:
        problem: gives the element type.
        nodes: of the model.
        inputs: by name.
        constants: likewise; only those that a node reads go into the model.
        places: of every output, where it is written: copies of a node share their memory, as they share inputs.
        shape: of every output.
        threads: inside one node.
    """
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(name, problem.element, array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info(name, problem.element, shape) for name in places],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read],
    )
    newest = any(node.op_type == "RMSNormalization" and not node.domain for node in nodes)
    opset = _OPSET_OF_RMS_NORMALIZATION if newest else _OPSET
    opsets = [helper.make_opsetid(*one) for one in (("", opset), (_MICROSOFT, 1), (spec.DOMAIN, spec.VERSION))]
    session = _session(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads)
    binding = session.io_binding()
    kept = []
    for name, array in inputs.items():
        kept.append(to_ortvalue(array))
        binding.bind_ortvalue_input(name, kept[-1])
    memory = [to_ortvalue(np.zeros(shape, problem.numpy_type)) for _ in range(1 + max(places.values()))]
    for name, place in places.items():
        binding.bind_ortvalue_output(name, memory[place])

    def repeat(times: int, _held: object = (kept, memory)) -> None:  # before 1.30 a binding holds addresses only
        for _ in range(times):
            session.run_with_iobinding(binding)

    return repeat, memory


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
