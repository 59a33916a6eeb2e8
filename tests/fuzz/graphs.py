"""Mutations that know what a graph is: they leave more models valid than blind ones, and come closer to norms."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .edit import (
    FLOATS,
    TYPES,
    Scope,
    add_constant,
    add_number,
    fresh_name,
    home_type,
    names_in,
    opset_of,
    pick_edge,
    scopes_of,
)
from .protobuf import NUMBERS
from .wrap import wrap

UNARY = (
    *("Identity", "Identity", "Neg", "Abs", "Sqrt", "Reciprocal", "Relu", "Sigmoid", "Tanh", "Exp", "Dropout", "Cast"),
    *("Softmax", "Shape", "Size", "Transpose", "Floor", "Sign", "Swish", "LpNormalization", "Erf", "Not", "Clip"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "MatMul", "Mod", "CastLike", "Equal", "Sum", "Mean")
SHAPED = ("Reshape", "Unsqueeze", "Squeeze", "Expand", "Tile", "Gather", "Slice", "Split", "Concat", "Flatten")
REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceProd", "GlobalAveragePool")
NORMS = (
    *("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "GatedRMSNorm"),
    *("LayerNormalization", "SkipRMSNormalization", "GatedRMSNormalization", "PreGatedRMSNormalization"),
)
DOMAINS = ("", "ai.onnx", "com.microsoft", "pkg.rmsnorm_onnx", "ai.onnx.ml", "pkg.onnxscript.torch_lib", "x")
_LENGTHS = (0, 1, 2, 3, 5, 8, -1, 1 << 40, "B", "D", None)


def mutate(model: onnx.ModelProto, dice: random.Random) -> str:
    """Change one thing; says what, for people."""
    mutation = dice.choices(list(_MUTATIONS), list(_MUTATIONS.values()))[0]
    scope = dice.choice(scopes_of(model)) if dice.random() < 0.5 else model.graph
    if not scope.node:
        scope = model.graph
    if not scope.node:
        return "nothing: no nodes"
    mutation(model, scope, dice)
    return mutation.__name__.strip("_")


def _insert(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    edge = pick_edge(scope, dice)
    if edge is None:
        return
    node, position = scope.node[edge[0]], edge[1]
    source, made = node.input[position], fresh_name(model, dice)
    node.input[position] = made
    if dice.random() < 0.2:  # for every reader
        for other in scope.node:
            other.input[:] = [made if name == source else name for name in other.input]
    before = len(scope.node)
    op = dice.choice([*UNARY, *BINARY, *BINARY, *SHAPED, *REDUCTIONS, *NORMS])
    fresh = _node(model, scope, op, source, made, dice)
    at = edge[0] + len(scope.node) - before
    scope.node.insert(at, fresh)


def _node(model: onnx.ModelProto, scope: Scope, op: str, source: str, made: str, dice: random.Random) -> onnx.NodeProto:
    opset = opset_of(model)
    ints = [dice.choice([-1, -1, 0, 1, 2, 1, -2]) for _ in range(dice.choice([1, 1, 1, 2, 0]))]
    if op == "Cast":
        return helper.make_node(op, [source], [made], to=dice.choice(TYPES))
    if op in BINARY:
        other = add_number(model, scope, dice) if dice.random() < 0.6 else dice.choice(names_in(scope))
        return helper.make_node(op, [source, other] if dice.random() < 0.5 else [other, source], [made])
    if op in REDUCTIONS and op != "GlobalAveragePool":
        keep = dice.choice([1, 1, 0])
        if opset >= 18 or (op == "ReduceSum" and opset >= 13):
            return helper.make_node(
                op, [source, add_constant(model, scope, ints, TensorProto.INT64, dice)], [made], keepdims=keep
            )
        return helper.make_node(op, [source], [made], axes=ints, keepdims=keep)
    if op in ("Squeeze", "Unsqueeze") and opset < 13:
        return helper.make_node(op, [source], [made], axes=ints)
    if op in SHAPED:
        lengths = [dice.choice([-1, 0, 1, 2, 3, 5, 8]) for _ in range(dice.choice([0, 1, 2, 3, 4]))]
        values = ints if op in ("Squeeze", "Unsqueeze", "Gather", "Slice") else lengths
        others = [
            add_constant(model, scope, values, TensorProto.INT64, dice) for _ in range(dice.choice([1, 1, 2, 4, 0]))
        ]
        return helper.make_node(op, [source, *others], [made])
    if op in NORMS:
        others = [dice.choice(names_in(scope)) for _ in range(dice.choice([1, 1, 2, 3, 0]))]
        domain = dice.choice(["", "com.microsoft", "pkg.rmsnorm_onnx"])
        return helper.make_node(op, [source, *others], [made], domain=domain, epsilon=dice.choice(NUMBERS[:16]))
    return helper.make_node(op, [source], [made])


def _rewire(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    edge = pick_edge(scope, dice)
    if edge is not None:
        scope.node[edge[0]].input[edge[1]] = dice.choice(names_in(scope))


def _rewire_back(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """To a value that is there earlier: no cycle."""
    edge = pick_edge(scope, dice)
    if edge is not None:
        earlier = names_in(scope)[: -sum(len(n.output) for n in list(scope.node)[edge[0] :]) or None]
        scope.node[edge[0]].input[edge[1]] = dice.choice(earlier[-12:] or ["x"])


def _bypass(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    node = dice.choice(scope.node)
    if node.input and node.output:
        old, new = node.output[0], node.input[0]
        for other in scope.node:
            other.input[:] = [new if name == old else name for name in other.input]
        if old not in [o if isinstance(o, str) else o.name for o in scope.output]:
            scope.node.remove(node)


def _drop(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    scope.node.remove(dice.choice(scope.node))


def _twin(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """The same node once more, for some of the readers."""
    index = dice.randrange(len(scope.node))
    node = onnx.NodeProto.FromString(scope.node[index].SerializeToString())
    names = {o: fresh_name(model, dice) for o in node.output if o}
    node.output[:] = [names.get(o, o) for o in node.output]
    for reader in scope.node:
        if dice.random() < 0.5:
            reader.input[:] = [names.get(i, i) for i in reader.input]
    scope.node.insert(index, node)


def _commute(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    node = dice.choice([n for n in scope.node if len(n.input) > 1] or scope.node)
    node.input[:] = reversed(node.input)


def _operator(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    node = dice.choice(scope.node)
    family = next((f for f in (BINARY, REDUCTIONS, UNARY, NORMS) if node.op_type in f), (*UNARY, *BINARY))
    node.op_type = dice.choice(family)


def _domain(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    node, domain = dice.choice(scope.node), dice.choice(DOMAINS)
    node.domain = domain
    if dice.random() < 0.7:
        model.opset_import.append(helper.make_opsetid(domain, dice.choice([1, 1, 13, 18, 23])))


def _attribute(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    node = dice.choice([n for n in scope.node if n.attribute] or scope.node)
    name = dice.choice(["axis", "axes", "keepdims", "to", "perm", "epsilon", "stash_type", "noop_with_empty_axes"])
    if node.attribute and dice.random() < 0.8:
        name = dice.choice(node.attribute).name
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    value = dice.choice([0, 1, -1, 2, -2, 11, 16, [-1], [0], [1, -1], [0, 0], [5], 1e-5, -1.0, "silu", None])
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def _tensors(scope: Scope) -> list[onnx.TensorProto]:
    values = [a.t for n in scope.node if n.op_type == "Constant" for a in n.attribute if a.type == a.TENSOR]
    return [t for t in (*getattr(scope, "initializer", ()), *values) if np.prod(t.dims, initial=1) <= 64]


def _value(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """Of a small constant: an epsilon, an exponent, axes, a scale."""
    tensors = _tensors(scope)
    if not tensors:
        return
    tensor = dice.choice(tensors)
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # what an earlier mutation has left
        return
    if array.dtype.kind in "SUO":
        return
    what, dtype = dice.choice(["set", "set", "one", "scale", "negate", "shape", "type"]), array.dtype
    number = dice.choice(NUMBERS) if dtype.kind not in "iub" else dice.choice([0, 1, -1, 2, 3, -2, 5, 1 << 40])
    with np.errstate(all="ignore"):
        if what == "set":
            array = np.full(array.shape, number).astype(dtype)
        elif what == "one" and array.size:
            array = array.copy()
            array.reshape(-1)[dice.randrange(array.size)] = np.asarray(number).astype(dtype)
        elif what == "scale":
            array = (array.astype(np.float64) * dice.choice([2, 0.5, 1.001, 0.999, 3, 1e6])).astype(dtype)
        elif what == "negate":
            array = (-array.astype(np.float64)).astype(dtype)
        elif what == "shape":
            first = array.reshape(-1)[:1] if array.size else np.ones(1, dtype)
            array = np.resize(first, dice.choice([(), (1,), (1, 1), (2,), (8,), (1, 1, 1, 1, 1)]))
        elif what == "type":
            array = array.astype(helper.tensor_dtype_to_np_dtype(dice.choice(TYPES)))
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), tensor.name))


def _dims(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """Of a declared shape: a length, the rank, or all of it."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    tensor = dice.choice(infos).type.tensor_type
    what = dice.choice(["length", "length", "length", "more", "fewer", "none"])
    if what == "none":
        tensor.ClearField("shape")
        return
    dims = list(tensor.shape.dim)
    length = dice.choice(_LENGTHS)
    fresh = onnx.TensorShapeProto.Dimension()
    if isinstance(length, int):
        fresh.dim_value = length
    elif length:
        fresh.dim_param = length
    if what == "more":
        dims.insert(dice.randrange(len(dims) + 1), fresh)
    elif dims and what == "fewer":
        del dims[dice.randrange(len(dims))]
    elif dims:
        dims[dice.randrange(len(dims))] = fresh
    copies = [onnx.TensorShapeProto.Dimension.FromString(d.SerializeToString()) for d in dims]
    tensor.ClearField("shape")
    tensor.shape.SetInParent()
    tensor.shape.dim.extend(copies)


def _type(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """Every float of one type becomes another."""
    old, new = home_type(model), dice.choice(list(FLOATS))
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if info.type.tensor_type.elem_type == old:
            info.type.tensor_type.elem_type = new
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == old:
                attribute.i = new
    constants = [a.t for n in model.graph.node for a in n.attribute if a.type == a.TENSOR]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type == old:
            try:
                array = numpy_helper.to_array(tensor)
            except Exception:  # what an earlier mutation has left
                continue
            with np.errstate(all="ignore"):
                tensor.CopyFrom(numpy_helper.from_array(array.astype(FLOATS[new]), tensor.name))


def _set_opset(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    if model.opset_import:
        dice.choice(model.opset_import).version = dice.choice([*range(28), 99, -1, 1 << 40])


def _ir_version(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    model.ir_version = dice.choice([*range(15), 99, -1])


def _show(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """A value in the middle becomes an output too."""
    name = dice.choice(names_in(model.graph))
    if name not in {o.name for o in model.graph.output}:
        known = {i.name: i for i in model.graph.value_info}
        info = known.get(name) or helper.make_tensor_value_info(name, home_type(model), None)
        model.graph.output.append(info)


def _overridable(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    if model.graph.initializer:
        tensor = dice.choice(model.graph.initializer)
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(info)


def _feed(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """An initializer becomes an input."""
    if model.graph.initializer:
        index = dice.randrange(len(model.graph.initializer))
        tensor = model.graph.initializer[index]
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        del model.graph.initializer[index]
        model.graph.input.append(info)


def _move(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """A node, to where its inputs may not be there yet."""
    nodes = list(scope.node)
    node = nodes.pop(dice.randrange(len(nodes)))
    nodes.insert(dice.randrange(len(nodes) + 1), node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del scope.node[:]
    scope.node.extend(copies)


def _rename(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """A value takes another's name, or a strange one."""
    old, new = dice.choice(names_in(scope)), dice.choice([*names_in(scope), "", "ä", "x" * 300])
    for node in scope.node:
        if dice.random() < 0.7:
            node.output[:] = [new if o == old else o for o in node.output]
            node.input[:] = [new if i == old else i for i in node.input]


_MUTATIONS: dict[Callable[[onnx.ModelProto, Scope, random.Random], None], float] = {
    _insert: 6,
    _rewire: 2,
    _rewire_back: 4,
    _bypass: 4,
    _drop: 1,
    _twin: 2,
    _commute: 2,
    _operator: 3,
    _domain: 1,
    _attribute: 3,
    _value: 5,
    _dims: 4,
    _type: 2,
    _set_opset: 2,
    _ir_version: 0.5,
    _show: 2,
    _overridable: 1,
    _feed: 1,
    _move: 1,
    _rename: 1,
    wrap: 4,
}
