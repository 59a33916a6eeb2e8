"""Types and shapes of values: each rule says what ONNX's inference says, and what models state wrongly loses."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from rmsnorm_onnx.matcher import flow
from rmsnorm_onnx.matcher.facts import Facts

X = "float[B, S, 8] x"
AXIS, TWO_AXES = "int64[1] a = {-1}", "int64[2] a = {0, -1}"

#: (opset, inputs, initializers, expression): one node, whose output ONNX's inference knows.
_NODES: list[tuple[int, str, str, str]] = [
    *((18, X, "", f"{op}(x)") for op in ("Abs", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity")),
    *((18, "float16[2, 4] x", "", f"{op}(x)") for op in ("LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu")),
    *((13, "double[B, 1] x", "", f"{op}(x)") for op in ("Selu", "Sigmoid", "Softplus", "Sqrt", "Tanh", "Softmax")),
    (18, X, "float low = {0}", "Clip(x, low)"),
    (18, X, "float low = {0}, float high = {1}", "Clip(x, low, high)"),
    (6, X, "", "Clip <min = 0.0> (x)"),
    (13, X, "", "Dropout(x)"),
    (20, X, "", "Gelu(x)"),
    (24, X, "", "Swish(x)"),
    (22, X, "", "LpNormalization <axis = -1, p = 2> (x)"),
    (17, f"{X}, float[8] scale", "", "LayerNormalization(x, scale)"),
    *((14, f"{X}, float[S, 1] z", "", f"{op}(x, z)") for op in ("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub")),
    (14, f"{X}, float[2, 1, 1, 8] z, float w", "", "Sum(x, z, w)"),
    (14, "float[B, 8] x, float[] z", "", "Sum(x, z)"),
    (14, "float[1, 8] x, float[B, 1] z", "", "Add(x, z)"),
    (14, "float[B, 8] x, float[T, 8] z", "", "Mul(x, z)"),
    (14, "float[B, 8] x, float[4, 8] z", "", "Mul(x, z)"),
    (15, X, "int64 two = {2}", "Pow(x, two)"),
    (18, X, "", "Cast <to = 10> (x)"),
    (19, f"{X}, double[3] z", "", "CastLike(x, z)"),
    *((18, X, AXIS, f"Reduce{op}(x, a)") for op in ("L1", "L2", "Max", "Mean", "Min", "Prod", "SumSquare")),
    *((17, X, "", f"Reduce{op} <axes = [-1], keepdims = 0> (x)") for op in ("Mean", "L2", "SumSquare", "Prod")),
    (13, X, AXIS, "ReduceSum(x, a)"),
    (11, X, "", "ReduceSum <axes = [1]> (x)"),
    (18, X, TWO_AXES, "ReduceMean <keepdims = 0> (x, a)"),
    (18, X, TWO_AXES, "ReduceMean(x, a)"),
    (18, X, "", "ReduceMean(x)"),
    (18, X, "", "ReduceMean <keepdims = 0> (x)"),
    (18, X, "", "ReduceMean <noop_with_empty_axes = 1> (x)"),
    (13, X, "", "GlobalAveragePool(x)"),
    (13, "float[2, 3, 5, H] x", "", "GlobalAveragePool(x)"),
    (13, "float[B, 1, 8] x", "int64[3] n = {2, 3, 1}", "Expand(x, n)"),
    (13, "float[1, 8] x", "int64[3] n = {2, 3, 8}", "Expand(x, n)"),
    (13, "float[B, S, 8] x, float[8, 5] z", "", "MatMul(x, z)"),
    (13, "float16[2, 1, 3, 8] x, float16[4, 8, N] z", "", "MatMul(x, z)"),
    (14, X, "int64[4] n = {0, 0, 2, 4}", "Reshape(x, n)"),
    (14, "float[2, 3, 8] x", "int64[2] n = {-1, 8}", "Reshape(x, n)"),
    (14, "float[2, 3, 8] x", "int64[3] n = {0, -1, 4}", "Reshape(x, n)"),
    (14, "float[2, 3, 8] x", "int64[3] n = {0, -1, 4}", "Reshape <allowzero = 0> (x, n)"),
    (14, "float[2, 3, 8] x", "int64[1] n = {48}", "Reshape <allowzero = 1> (x, n)"),
    (15, X, "", "Shape(x)"),
    (15, X, "", "Shape <start = 1> (x)"),
    (15, X, "", "Shape <start = -2, end = -1> (x)"),
    (13, "float[B, 1, 8, 1] x", "int64[2] a = {1, -1}", "Squeeze(x, a)"),
    (11, "float[B, 1, 8] x", "", "Squeeze <axes = [1]> (x)"),
    (13, X, "int64[2] a = {0, -1}", "Unsqueeze(x, a)"),
    (11, X, "", "Unsqueeze <axes = [3, 1]> (x)"),
    (13, X, "", "Transpose <perm = [2, 0, 1]> (x)"),
    (13, X, "", "Transpose(x)"),
    (17, X, "", "Cos(x)"),
    (14, f"{X}, int64 a", "", "CumSum(x, a)"),
    *((13, X, "", f"{op}(x)") for op in ("Floor", "LogSoftmax", "Round", "Sign", "Sin")),
    (11, "float[B, 4, 6] x, float[4] s, float[4] z", "", "InstanceNormalization(x, s, z)"),
    # those that say a type only
    (13, f"{X}, float[8, 5] z", "", 'Einsum <equation = "bsd,de->bse"> (x, z)'),
    (13, X, "", "Flatten <axis = 2> (x)"),
    (13, "float16[64, 8] x, int64[B, 1] i", "", "GatherND(x, i)"),
    (16, f"{X}, float[8] z", "", "PRelu(x, z)"),
    (13, "float[4, 8] x, int64[1, 8] i, float[1, 8] z", "", "ScatterElements(x, i, z)"),
    (13, "float16[2, 4, 6, 6] x", "", "SpaceToDepth <blocksize = 2> (x)"),
    (16, "bool[B, S, 1] x, float16[B, S, 8] a, float16[] b", "", "Where(x, a, b)"),
    *((13, "float16[2, 4, 6, 6] x", "", f"{op} <kernel_shape = [2, 2]> (x)") for op in ("AveragePool", "MaxPool")),
    (13, f"{X}, float[B, S, 4] z", "", "Concat <axis = -1> (x, z)"),
    (13, "float[2, 4, 6, 6] x, float[3, 4, 1, 1] z", "", "Conv(x, z)"),
    (13, "float[2, 4, 6, 6] x, float[4, 3, 2, 2] z", "", "ConvTranspose(x, z)"),
    (13, "float[2, 4, 6, 6] x", "", "DepthToSpace <blocksize = 2> (x)"),
    (13, "float16[64, 8] x, int64[B, S] i", "", "Gather(x, i)"),
    (13, "float16[4, 8] x, int64[4, 2] i", "", "GatherElements <axis = 1> (x, i)"),
    (13, "double[B, 8] x, double[8, 5] z", "", "Gemm(x, z)"),
    (13, "float[2, 8] x", "int64[4] n = {0, 1, 0, 1}", "Pad(x, n)"),
    (13, "float[2, 4, 6, 6] x", "float[4] n = {1, 1, 2, 2}", "Resize(x, , n)"),
    (13, "float[4, 8] x, int64[1, 1] i, float[1, 8] z", "", "ScatterND(x, i, z)"),
    (13, X, "int64[1] s = {0}, int64[1] e = {4}, int64[1] a = {-1}", "Slice(x, s, e, a)"),
    (13, X, "int64[1] n = {8}", "Split <axis = -1> (x, n)"),
    (13, "float[2, 8] x", "int64[2] n = {3, 1}", "Tile(x, n)"),
    (14, "float[8, 8] x", "", "Trilu(x)"),
]
NAMES = [f"{re.sub(r'[^a-zA-Z0-9]+', '-', node[3]).strip('-')}-{node[0]}-{i}" for i, node in enumerate(_NODES)]

#: The lengths of these are left to ONNX.
TYPE_ONLY = {"AveragePool", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Einsum", "Flatten", "Gather"} | {
    *(
        "GatherElements",
        "GatherND",
        "Gemm",
        "MaxPool",
        "Pad",
        "PRelu",
        "Resize",
        "ScatterElements",
        "ScatterND",
        "Slice",
    ),
    *("SpaceToDepth", "Split", "Tile", "Trilu", "Where"),
}


def model_of(opset: int, inputs: str, initializers: str, body: str, outputs: str = "y") -> onnx.ModelProto:
    constants = f"<{initializers}>" if initializers else ""
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "com.microsoft.nchwc" : 1]>'
        f" g ({inputs}) => ({outputs}) {constants} {{ {body} }}"
    )


def facts_of(proto: onnx.ModelProto) -> tuple[Facts, dict[str, ir.Value]]:
    """What is known of a model, and its values by name, those of subgraphs too."""
    model = ir.from_proto(proto)
    values = {v.name: v for v in (*model.graph.inputs, *model.graph.initializers.values()) if v.name}
    values |= {v.name: v for node in model.graph.all_nodes() for v in node.outputs if v.name}
    return Facts(model), values


def by_onnx(proto: onnx.ModelProto) -> flow.Stated:
    """Type and shape of the first output, without the names that ONNX makes up."""
    told = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph.output[0]
    tensor = told.type.tensor_type
    if not tensor.HasField("shape"):
        return ir.DataType(tensor.elem_type), None
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return ir.DataType(tensor.elem_type), tuple(None if str(d).startswith("unk__") or d == "" else d for d in dims)


@pytest.mark.parametrize("node", _NODES, ids=NAMES)
def test_a_rule_says_what_onnx_says(node):
    opset, inputs, initializers, expression = node
    proto = model_of(opset, inputs, initializers, f"y = {expression}")
    facts, values = facts_of(proto)
    dtype, shape = by_onnx(proto)
    assert flow.has_rule(values["y"])
    assert flow.follow(facts, values["y"]) == (dtype, None if proto.graph.node[0].op_type in TYPE_ONLY else shape)
    assert (facts.dtype(values["y"]), _unnamed(facts.shape(values["y"]))) == (dtype, shape)


def _unnamed(dims: flow.Dims | None) -> flow.Dims | None:
    return dims and tuple(None if str(d).startswith("unk__") else d for d in dims)


def test_every_rule_is_compared_with_onnx():
    assert {onnx.parser.parse_node(f"y = {node[3]}").op_type for node in _NODES} == set(flow._RULES)


@pytest.mark.parametrize(
    ("inputs", "initializers", "expression", "shape"),
    [
        (X, "int64[3] n = {0, -1, 8}", "Reshape(x, n)", ("B", "S", 8)),
        (X, "int64[4] n = {0, 0, -1, 4}", "Reshape(x, n)", ("B", "S", 2, 4)),
        ("float[B, 0] x", "int64[2] n = {0, 5}", "Reshape <allowzero = 1> (x, n)", (None, 5)),
        (f"{X}, int64[3] n", "", "Reshape(x, n)", (None, None, None)),
        ("float[8] x, float[8, 3] z", "", "MatMul(x, z)", None),
        (f"{X}, int64[N] a", "", "ReduceMean(x, a)", None),
        (f"{X}, int64[3] n", "", "Expand(x, n)", None),
        ("float[B, 1, 1] x", "", "Squeeze(x)", None),
    ],
)
def test_a_rule_says_no_more_than_it_knows(inputs, initializers, expression, shape):
    facts, values = facts_of(model_of(18, inputs, initializers, f"y = {expression}"))
    assert flow.follow(facts, values["y"]) == (ir.DataType.FLOAT, shape)


#: How a graph computes a shape from x's lengths, B, S and 8.
_SHAPES = {
    "as-it-is": "n = Shape(x)",
    "cast": "m = Shape(x) n = Cast <to = 7> (m)",
    "gathered": "m = Shape(x) b = Gather(m, zero) r = Unsqueeze(b, zeros) n = Concat <axis = 0> (r, rest)",
    "gathered-together": "m = Shape(x) b = Gather(m, first) n = Concat <axis = 0> (b, rest)",
    "from-the-end": "m = Shape(x) b = Gather(m, last) n = Concat <axis = 0> (rest, b)",
}


@pytest.mark.parametrize("computed", _SHAPES.values(), ids=_SHAPES)
@pytest.mark.parametrize("op", ["Reshape", "Expand"])
def test_computed_shapes_are_followed_below_opset_14_too(op, computed):
    constants = "int64 zero = {0}, int64[1] zeros = {0}, int64[2] first = {0, 1}, int64[1] last = {-1}, int64[1] rest"
    body = f"{computed} y = {op}(h, n)"
    inputs = f"{X}, float[{'B, S, 8' if op == 'Reshape' else '1'}] h"
    models = [model_of(opset, inputs, f"{constants} = {{16}}", body) for opset in (13, 18)]
    facts, values = facts_of(models[0])
    shape = facts.shape(values["y"])
    assert shape == by_onnx(models[1])[1]
    assert shape is not None
    assert None not in shape


def test_lengths_that_nobody_knows_stay_unknown():
    body = "m = Shape(x) b = Gather(m, i) n = Concat <axis = 0> (b, rest) y = Reshape(x, n)"
    facts, values = facts_of(model_of(13, f"{X}, int64[1] i", "int64[1] rest = {16}", body))
    assert facts.shape(values["y"]) == (None, None)


def test_the_indices_of_a_pool_are_integers():
    proto = model_of(13, "float16[2, 4, 6, 6] x", "", "y, i = MaxPool <kernel_shape = [2, 2]> (x)", "y, i")
    facts, values = facts_of(proto)
    assert [facts.dtype(values[name]) for name in "yi"] == [ir.DataType.FLOAT16, ir.DataType.INT64]


def test_both_outputs_of_a_split_have_its_type():
    proto = model_of(13, "float16[B, 8] x", "", "y, z = Split <axis = 1> (x)")
    facts, values = facts_of(proto)
    for name in ("y", "z"):
        assert facts.dtype(values[name]) is ir.DataType.FLOAT16
        assert facts.shape(values[name]) == ("B", 4)


# onnxruntime's operators, at which ONNX's inference stops


@pytest.mark.parametrize(
    ("inputs", "expression", "dtype", "shape"),
    [
        (
            "float16[B, S, 64] x, uint8[24, 2, 16] q, float16[48] s",
            "com.microsoft.MatMulNBits <K = 64, N = 24, bits = 4, block_size = 32> (x, q, s)",
            ir.DataType.FLOAT16,
            ("B", "S", 24),
        ),
        (
            "float[B, S, 64] x, uint8[768] q, float[24] s",
            "com.microsoft.MatMulBnb4 <K = 64, N = 24, block_size = 64, quant_type = 1> (x, q, s)",
            ir.DataType.FLOAT,
            ("B", "S", 24),
        ),
        (
            "uint16[B, 8] x, float16 s, uint16 z",
            "com.microsoft.DequantizeLinear(x, s, z)",
            ir.DataType.FLOAT16,
            ("B", 8),
        ),
        (
            "float[1, 8, 4, 4] x, float[8, 8, 1, 1] w",
            "com.microsoft.FusedConv(x, w)",
            ir.DataType.FLOAT,
            None,
        ),
        ("float[1, 8, 4, 4] x", "com.microsoft.nchwc.ReorderInput(x)", ir.DataType.FLOAT, None),
    ],
)
def test_behind_onnxruntimes_operators_types_are_known(inputs, expression, dtype, shape):
    facts, values = facts_of(model_of(18, inputs, "", f"h = {expression} y = Neg(h)"))
    for name in ("h", "y"):
        assert facts.dtype(values[name]) is dtype
        assert facts.shape(values[name]) == shape


def test_another_domain_has_no_rules():
    proto = model_of(18, X, "", "y = com.microsoft.nchwc.Neg(x)")
    facts, values = facts_of(proto)
    assert not flow.has_rule(values["y"])
    assert (facts.dtype(values["y"]), facts.shape(values["y"])) == (None, None)


# what a model states


@pytest.mark.parametrize("rows", [1, 512], ids=["small", "not-passed-to-onnx"])
@pytest.mark.parametrize("op", ["Neg", "Sin"], ids=["own-rule", "onnx-inference"])
def test_stale_types_beside_an_initializer_lose_against_its_data(rows, op):
    proto = model_of(18, "float16[8] x", "", f"h = {op}(w) y = Add(h, x)")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((rows, 8), np.float16), "w"))
    proto.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (rows, 4)))
    facts, values = facts_of(proto)
    for name in ("w", "h", "y"):
        assert facts.dtype(values[name]) is ir.DataType.FLOAT16, name
        assert facts.shape(values[name]) == (rows, 8), name


@pytest.mark.parametrize(
    "body", ["h = Neg(x)", "h = Sin(x)", "n = Shape(x) h = Expand(zero, n)"], ids=["own-rule", "onnx", "propagated"]
)
def test_made_up_lengths_lose_against_inferred_ones(body):
    proto = model_of(18, X, "float zero = {0}", f"{body} y = Mul(h, x)")
    for name, made_up in (("h", ("unk__0", "unk__1", "unk__2")), ("y", ("unk__3", "unk__4", 8))):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, made_up)
        proto.graph.value_info.append(info)
    facts, values = facts_of(proto)
    assert facts.shape(values["h"]) == ("B", "S", 8)
    assert facts.shape(values["y"]) == ("B", "S", 8)
    assert facts.same_shape(values["x"], values["h"], values["y"])


def test_stated_lengths_are_kept():
    proto = model_of(18, f"{X}, int64[3] n", "", "h = Reshape(x, n) y = Neg(h)")
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ("B", "T", 4)))
    facts, values = facts_of(proto)
    assert facts.shape(values["y"]) == ("B", "T", 4)


# graphs


@pytest.mark.parametrize("first", ["Neg", "Sin"], ids=["own-rules-only", "behind-onnx"])
def test_a_long_chain_is_followed_without_recursion(first):
    length = 5000
    nodes = [helper.make_node("Neg" if i else first, [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    inputs = [helper.make_tensor_value_info("v0", TensorProto.FLOAT16, ("B", 8))]
    graph = helper.make_graph(nodes, "chain", inputs, [onnx.ValueInfoProto(name=f"v{length}")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    facts, values = facts_of(proto)
    assert facts.shape(values[f"v{length}"]) == ("B", 8)
    assert facts.dtype(values[f"v{length}"]) is ir.DataType.FLOAT16


@pytest.mark.parametrize("op", ["Neg", "Sin"], ids=["own-rule", "onnx-inference"])
def test_values_in_branches_know_what_they_capture(op):
    body = f"""
        h = Reshape(x, n)
        y = If(c) <
            then_branch = then () => (t) {{ s = {op}(h) t = ReduceMean <keepdims = 0> (s, a) }},
            else_branch = otherwise () => (e) {{
                e = If(c) <
                    then_branch = inner () => (i) {{ i = {op}(h) }},
                    else_branch = other () => (o) {{ o = Add(h, x) }}
                >
            }}
        >"""
    constants = "int64[3] n = {0, 4, 8}, int64[1] a = {-1}"
    facts, values = facts_of(model_of(18, "float16[B, 4, 8] x, bool c", constants, body))
    wanted = {"s": ("B", 4, 8), "t": ("B", 4), "i": ("B", 4, 8), "o": ("B", 4, 8)}
    assert {name: facts.shape(values[name]) for name in wanted} == wanted
    assert {facts.dtype(values[name]) for name in wanted} == {ir.DataType.FLOAT16}
