"""What mutations of graphs share: where nodes are, which values there are, new names and constants."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .protobuf import NUMBERS

Scope = onnx.GraphProto | onnx.FunctionProto
FLOATS = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
}
TYPES = (*FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8)


def scopes_of(model: onnx.ModelProto) -> list[Scope]:
    found: list[Scope] = [model.graph, *model.functions]
    for scope in found:
        for node in scope.node:
            found += [g for a in node.attribute for g in (a.g, *a.graphs) if g.node]
    return found


def fresh_name(model: onnx.ModelProto, dice: random.Random) -> str:
    return f"fuzz{dice.randrange(1 << 24)}"


def names_in(scope: Scope) -> list[str]:
    """Values in the order in which they are there."""
    given = [i if isinstance(i, str) else i.name for i in scope.input]
    given += [i.name for i in getattr(scope, "initializer", ())]
    return [*given, *(o for n in scope.node for o in n.output if o)] or ["x"]


def pick_edge(scope: Scope, dice: random.Random) -> tuple[int, int] | None:
    """A node and one of its inputs."""
    edges = [(n, i) for n, node in enumerate(scope.node) for i, name in enumerate(node.input) if name]
    return dice.choice(edges) if edges else None


def home_type(model: onnx.ModelProto) -> int:
    types = [i.type.tensor_type.elem_type for i in model.graph.input] + [i.data_type for i in model.graph.initializer]
    return next((t for t in types if t in FLOATS), TensorProto.FLOAT)


def add_constant(model: onnx.ModelProto, scope: Scope, values: Any, dtype: int, dice: random.Random) -> str:
    name = fresh_name(model, dice)
    array = np.asarray(values)
    with np.errstate(all="ignore"):
        array = array.astype(helper.tensor_dtype_to_np_dtype(dtype))
    tensor = numpy_helper.from_array(array, name)
    if isinstance(scope, onnx.GraphProto) and dice.random() < 0.5:
        scope.initializer.append(tensor)
    else:
        scope.node.insert(0, helper.make_node("Constant", [], [name], value=tensor))
    return name


def add_number(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> str:
    shape = dice.choice([(), (), (), (1,), (1, 1), (2,), (3,), (5,), (8,), (0,)])
    value = np.full(shape, dice.choice(NUMBERS))
    dtype = home_type(model) if dice.random() < 0.8 else dice.choice(TYPES)
    return add_constant(model, scope, value, dtype, dice)


def opset_of(model: onnx.ModelProto) -> int:
    return next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 18)
