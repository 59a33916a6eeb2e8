"""One norm in plain operators, for tests to change."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import rmsnorm_onnx

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape=(2, 3, 8), dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs=(), held=(), outputs=None, opset=18, domains=()):
    """A graph of x; ``held`` are its initializers by name."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(held).items()]
    given = [value("x"), *inputs]
    graph = helper.make_graph(nodes, "graph", given, outputs or [value("y")], tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


HELD = {"two": np.float32(2), "last": np.array([-1]), "eps": np.float32(1e-5), "s": np.ones(8, np.float32)}


def norm(x="x", y="y", scale="s"):
    """The nodes of one norm."""
    node = helper.make_node
    return [
        node("Pow", [x, "two"], ["squares"], name="square"),
        node("ReduceMean", ["squares", "last"], ["mean"], name="mean"),
        node("Add", ["mean", "eps"], ["shifted"], name="shift"),
        node("Sqrt", ["shifted"], ["root"], name="root"),
        node("Div", [x, "root"], ["normalized"], name="divide"),
        node("Mul", ["normalized", scale], [y], name="scale"),
    ]


def plain():
    return model(norm(), held=HELD)


def fused(proto, **options):
    """The records of what ``optimize`` fuses."""
    return rmsnorm_onnx.optimize(proto, **options).fused
