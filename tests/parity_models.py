"""Small models that the tests of ``verify`` compare."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from rmsnorm_onnx import spec
from rmsnorm_onnx.function import Form, function_proto
from rmsnorm_onnx.parity import verify

WIDTH, ROWS, LAYERS = 16, 11, 3
TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16, "f64": TensorProto.DOUBLE}


class Network:
    """A small decoder: embedding, LAYERS times (norm, attention, residual), last norm, logits and next token."""

    def __init__(self, dtype="f32", *, fused=False, epsilon=1e-6, axis=-1, scales=lambda s: s, bodies=True):
        self.type, self.fused, self.epsilon, self.axis, self.scales = TYPES[dtype], fused, epsilon, axis, scales
        self.stash = TensorProto.DOUBLE if dtype == "f64" else TensorProto.FLOAT
        self.nodes, self.weights, self.bodies = [], [], bodies
        self.generator = np.random.default_rng(7)

    def weight(self, *shape, center=0.0, size=0.3):
        return self.constant((center + size * self.generator.standard_normal(shape)), self.type)

    def constant(self, array, dtype):
        name = f"w{len(self.weights)}"
        values = np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(dtype))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def __call__(self, op, *inputs, name=None, domain="", **attributes):
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, name=f"node_{name}", **attributes))
        return name

    def norm(self, x, name=None):
        scale = self.scales(1 + 0.1 * self.generator.standard_normal(WIDTH))
        if self.fused:
            return self(
                "RMSNormalization", x, self.constant(scale, self.type), name=name, domain=spec.DOMAIN,
                axes=[self.axis], epsilon=self.epsilon, epsilon_low=0.0, epsilon_outside=0.0, floor=0.0,
                stash_type=self.stash, normalized_type=self.type,
            )  # fmt: skip
        wide = self("Cast", x, to=self.stash)
        square = self("Pow", wide, self.constant(2.0, self.stash))
        mean = self("ReduceMean", square, self.constant([self.axis], TensorProto.INT64), keepdims=1)
        root = self("Sqrt", self("Add", mean, self.constant(np.float32(self.epsilon), self.stash)))
        normalized = self("Cast", self("Mul", wide, self("Reciprocal", root)), to=self.type)
        return normalized if scale is None else self("Mul", self.constant(scale, self.type), normalized, name=name)

    def build(self):
        x = self("Gather", self.weight(ROWS, WIDTH, size=1.0), "ids")
        for _ in range(LAYERS):
            h = self.norm(x)
            query, key, value = (self("MatMul", h, self.weight(WIDTH, WIDTH)) for _ in range(3))
            scores = self("MatMul", query, self("Transpose", key, perm=[0, 2, 1]))
            attention = self("MatMul", self("Softmax", scores, axis=-1), value)
            x = self("Add", x, self("MatMul", attention, self.weight(WIDTH, WIDTH)))
        last = self.norm(x, name="hidden")
        self("MatMul", last, self.weight(WIDTH, ROWS), name="logits")
        self("ArgMax", "logits", name="token", axis=-1, keepdims=0)
        outputs = [
            helper.make_tensor_value_info("hidden", self.type, ["batch", "sequence", WIDTH]),
            helper.make_tensor_value_info("logits", self.type, ["batch", "sequence", ROWS]),
            helper.make_tensor_value_info("token", TensorProto.INT64, ["batch", "sequence"]),
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
        graph = helper.make_graph(self.nodes, "network", [ids], outputs, self.weights)
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        if self.fused:
            model.opset_import.append(helper.make_opsetid(spec.DOMAIN, 1))
            if self.bodies:
                model.functions.append(function_proto("RMSNormalization", Form(18)))
        return model


def parity(original, fused, **options):
    return verify(original, fused, library=False, threads=1, **options)


def verdicts(result):
    return {output.name: output.verdict for output in result.outputs}


def elementwise(op_type, constants=(), dtype=TensorProto.FLOAT, to=None, name="y", **attributes):
    """Y = op(x, constants...)."""
    inputs = ["x", *(f"c{i}" for i in range(len(constants)))]
    values = [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants)]
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, [name], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", dtype, ["n", 4])],
        [helper.make_tensor_value_info(name, to or dtype, None)],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def add(*values):
    return elementwise("Add", [np.array(values, np.float32)])
