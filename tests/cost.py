"""What fusing costs: seconds of matching and rewriting a graph of 27,208 nodes with 1,601 norms, loading apart.

Run as a script: ``python tests/cost.py``.
"""

from __future__ import annotations

import gc
import statistics
import time

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

import rmsnorm_onnx.function.definition  # noqa: F401 - onnxscript takes half a second to import
from rmsnorm_onnx.passes import fuse, plan

ROUNDS = 5
LAYERS = 800
FILLER = 8
NORM = (("Pow", "two"), ("ReduceMean", "axes"), ("Add", "epsilon"), ("Sqrt",), ("Reciprocal",))


def graph() -> onnx.ModelProto:
    """A deep residual stack: two norms a layer, as torch's exporter spells them, and small operators between."""
    nodes: list[onnx.NodeProto] = []

    def add(op_type: str, *inputs: str, **attributes: int) -> str:
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], name=f"n{len(nodes)}", **attributes))
        return name

    def norm(x: str) -> str:
        value = wide = add("Cast", x, to=1)
        for op_type, *constants in NORM:
            value = add(op_type, value, *constants)
        return add("Mul", "scale", add("Mul", wide, value))

    x = "x"
    for _ in range(2 * LAYERS):
        y = norm(x)
        for index in range(FILLER):
            y = add("Relu" if index % 2 else "Neg", y)
        x = add("Add", x, y)
    y = norm(x)
    constants = {"two": np.float32(2), "epsilon": np.float32(1e-6), "axes": np.array([-1]), "scale": np.ones(64, "f4")}
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    io = [helper.make_tensor_value_info(name, 1, ["batch", "sequence", 64]) for name in ("x", y)]
    made = helper.make_graph(nodes, "deep", io[:1], io[1:], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def seconds(proto: onnx.ModelProto) -> float:
    """Of one run of the pass on a model of its own."""
    model = ir.from_proto(proto)
    gc.collect()
    start = time.perf_counter()
    fuse(model)
    return time.perf_counter() - start


def main() -> None:
    """Print medians: types and shapes stated in the model, not stated, and needing ONNX's inference of the whole."""
    bare = graph()
    opaque = graph()
    # How much Compress leaves is for ONNX to name.
    opaque.graph.node[0].CopyFrom(helper.make_node("Compress", ["x", "kept"], ["v0"], axis=0))
    opaque.graph.input.append(helper.make_tensor_value_info("kept", 9, ["batch"]))
    models = {"stated": onnx.shape_inference.infer_shapes(bare), "not stated": bare, "inferred as a whole": opaque}
    took: dict[str, list[float]] = {label: [] for label in models}
    for _ in range(ROUNDS):
        for label, proto in models.items():
            took[label].append(seconds(proto))
    norms = len(plan(ir.from_proto(bare)).fused)
    for label, times in took.items():
        print(
            f"{len(bare.graph.node)} nodes, {norms} norms, types and shapes {label}: {statistics.median(times):.2f} s"
        )


if __name__ == "__main__":
    main()
