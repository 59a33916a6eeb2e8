"""What fuzzing found, each as the smallest model that showed it.

``make fuzz`` runs the fuzzers, ``tests/fuzz`` says how to repeat what they find.
"""

from __future__ import annotations

import resource
import time

import kernels_abi as abi
import numpy as np
import onnx
import pytest
from fuzz.plain import FLOAT, HELD, INT64, fused, model, norm, plain, value
from norm_models import one_norm, session
from onnx import TensorProto, helper

import rmsnorm_onnx
from rmsnorm_onnx import library, runtime, spec
from rmsnorm_onnx.errors import InvalidInput

BF16 = TensorProto.BFLOAT16


def _inputs(index, names):
    def change(proto):
        proto.graph.node[index].input[:] = names

    return change


def _attribute(index, attribute, clear=False):
    def change(proto):
        node = proto.graph.node[index]
        if clear:
            del node.attribute[:]
        node.attribute.append(attribute)

    return change


def _first_tensor(change):
    return lambda proto: change(proto.graph.initializer[0])


def _cast_to(proto):
    proto.graph.node[5].CopyFrom(helper.make_node("Cast", ["normalized"], ["y"], name="scale", to=-2))


def _circle(proto):
    proto.graph.node[2].input[1] = "normalized"


def _no_output(proto):
    proto.graph.output[0].name = "nothing"


def _text(tensor):
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.STRING))


def _version(number):
    def change(proto):
        proto.opset_import[0].version = number

    return change


def _nameless_devices(proto):
    proto.graph.node[0].device_configurations.add()


def _no_import(proto):
    proto.opset_import[0].domain = "y"


def _too_many_parts(proto):
    proto.graph.node.append(helper.make_node("Split", ["x"], ["a", "b", "c"], num_outputs=2))


MALFORMED = {
    "node 'square' of graph 'graph': Pow takes 2 inputs, got 1": _inputs(0, ["x"]),
    "Add takes 2 inputs, got 3": _inputs(2, ["mean", "eps", "eps"]),
    "Sqrt takes 1 inputs, got 0": _inputs(3, [""]),
    "no element type has the number -2": _cast_to,
    "'keepdims' of ReduceMean is of type INT, got STRING": _attribute(1, helper.make_attribute("keepdims", "yes")),
    "'keepdims' of node 'mean' of graph 'graph': it has no type": _attribute(1, onnx.AttributeProto(name="keepdims")),
    "attribute 'value' of node 'square' of graph 'graph': no element type": _attribute(
        0, onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=TensorProto())
    ),
    "initializer 'two' of graph 'graph': no element type": _first_tensor(lambda t: t.ClearField("data_type")),
    "takes 4 bytes of data, got 3": _first_tensor(lambda t: setattr(t, "raw_data", b"abc")),
    "takes 1 entries of string_data, got 0": _first_tensor(_text),
    "in a circle": _circle,
    "its output 'nothing' is given by nothing": _no_output,
    "got 1099511627776": _version(1 << 40),
    "got -1": _version(-1),
    "no opset of ONNX's own operators is imported": _no_import,
    "a configuration of devices without a name": _nameless_devices,
    "Split gives 2 outputs as its num_outputs says, got 3": _too_many_parts,
}


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_model_is_refused(text, tmp_path):
    proto = plain()
    assert fused(proto)
    MALFORMED[text](proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    for given in (proto, path):
        for verb in (rmsnorm_onnx.optimize, rmsnorm_onnx.inspect):
            with pytest.raises(InvalidInput, match=text):
                verb(given)


def test_what_is_well_formed_is_what_some_version_of_an_operator_allows():
    """Axes as an attribute or as an input, whatever the opset says; operators nobody knows as they are."""
    proto = plain()
    proto.graph.node[1].attribute.append(helper.make_attribute("axes", [-1]))
    proto.graph.node.append(helper.make_node("Whatever", [], [], domain="custom"))
    rmsnorm_onnx.inspect(proto)


def test_nodes_out_of_order_are_put_in_order():
    proto = plain()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(proto.graph.node)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert rmsnorm_onnx.inspect(proto).fused
    result = rmsnorm_onnx.optimize(proto)
    onnx.checker.check_model(result.model, full_check=True)
    assert rmsnorm_onnx.verify(proto, result.model, library=False).ok


def test_the_domain_of_onnx_has_two_names():
    proto = plain()
    proto.opset_import[0].domain = "ai.onnx"
    assert fused(proto)


LONG = np.array([1 << 40])
UNCOMPUTABLE = {
    "Reshape": [helper.make_node("Reshape", ["three", "two_long"], ["eps"])],
    "Expand": [helper.make_node("Expand", ["one", "long"], ["eps"])],
    "ConstantOfShape": [helper.make_node("ConstantOfShape", ["long"], ["eps"])],
    "Range": [
        helper.make_node("Range", ["zero", "end", "step"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["eps"], to=FLOAT),
    ],
}


@pytest.mark.parametrize("op", UNCOMPUTABLE)
def test_a_constant_that_cannot_be_computed_is_none(op):
    numbers = {"zero": np.array(0), "end": np.array(1 << 60), "step": np.array(1), "long": LONG}
    numbers |= {"three": np.ones(3, np.float32), "two_long": np.array([2]), "one": np.float32(1)}
    held = {name: array for name, array in HELD.items() if name != "eps"} | numbers
    assert not fused(model([*UNCOMPUTABLE[op], *norm()], held=held))


@pytest.mark.parametrize("shape", [[1 << 23], [1 << 11, 1 << 12]])
def test_an_absurdly_long_list_costs_neither_time_nor_memory(shape):
    """Onnx's inference, and once ours, lists every element of what is cast, and makes axes of those of a shape."""
    nodes = [
        helper.make_node("Reshape", ["long", "last"], ["row"]),
        helper.make_node("Cast", ["row"], ["numbers"], to=FLOAT),
        helper.make_node("Reshape", ["x", "row" if len(shape) > 1 else "long"], ["shaped"]),
        helper.make_node("Floor", ["x"], ["rounded"]),  # only onnx's inference knows its type
    ]
    proto = model([*nodes, *norm("rounded")], [value("long", shape, INT64)], HELD)
    before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rmsnorm_onnx.optimize(proto)
    assert time.process_time() - before[0] < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1] < 1 << 18  # KiB


def test_a_scale_computed_from_the_sum_inside_a_branch_makes_no_circle():
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node("Abs", ["sum"], [name])], name, [], [value(name, None)])
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("Add", ["x", "z"], ["sum"]),
        *norm("sum", "n"),
        helper.make_node("If", ["c"], ["chosen"], **branches),
        helper.make_node("ReduceMax", ["chosen", "last"], ["largest"]),
        helper.make_node("Mul", ["normalized", "largest"], ["y"]),
    ]
    del nodes[6]  # the scale of the plain norm
    inputs = [value("z"), value("c", (), TensorProto.BOOL)]
    result = rmsnorm_onnx.optimize(model(nodes, inputs, HELD))
    assert [record.op for record in result.fused] == [spec.RMS.name]
    onnx.checker.check_model(result.model)


def test_a_foreign_operator_of_the_same_name_is_not_read():
    nodes = norm()
    nodes[0].domain = "com.microsoft"
    assert not fused(model(nodes, held=HELD, domains=["com.microsoft"]))


@pytest.mark.parametrize("axis", [7, -9])
@pytest.mark.parametrize("op", ["ReduceMean", "LpNormalization", "SimplifiedLayerNormalization"])
def test_an_axis_that_x_lacks_is_no_norm(op, axis):
    nodes = {
        "ReduceMean": norm(),
        "LpNormalization": [helper.make_node(op, ["x"], ["y"], axis=axis)],
        "SimplifiedLayerNormalization": [helper.make_node(op, ["x", "s"], ["y"], axis=axis)],
    }[op]
    assert not fused(model(nodes, held={**HELD, "last": np.array([axis])}))


def test_keepdims_is_kept_at_1_only():
    """Onnxruntime drops the axes at any other number."""
    proto = plain()
    proto.graph.node[1].attribute.append(helper.make_attribute("keepdims", 2))
    assert not fused(proto)
    proto.graph.node[1].attribute[0].i = 1
    assert fused(proto)


def test_axes_that_are_no_integers_and_a_permutation_that_is_none():
    proto = model(norm(), held={**HELD, "last": np.array([np.nan], np.float32)})
    assert not fused(proto)
    turned = helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 7])
    rmsnorm_onnx.inspect(model([turned, *norm("turned")], held=HELD))


def test_an_unknown_operator_of_our_own_domain_has_no_body():
    info = helper.make_node(library.INFO_OP, [], ["json"], domain=spec.DOMAIN)
    result = rmsnorm_onnx.optimize(model([info, *norm()], held=HELD, domains=[spec.DOMAIN]))
    assert [function.name for function in result.model.functions] == [spec.RMS.name]


def test_a_name_that_a_branch_reads_from_outside_and_then_gives_itself_is_refused():
    nodes = norm("x", "y_then")
    nodes.insert(0, helper.make_node("Abs", ["eps"], ["epsilon"]))
    nodes[3].input[1] = "epsilon"
    nodes[4].input[0] = nodes[3].output[0] = "eps"
    branches = {
        "then_branch": helper.make_graph(nodes, "then", [], [onnx.ValueInfoProto(name="y_then")]),
        "else_branch": helper.make_graph(
            [helper.make_node("Abs", ["x"], ["y_else"])], "else", [], [onnx.ValueInfoProto(name="y_else")]
        ),
    }
    proto = model([helper.make_node("If", ["c"], ["y"], **branches)], [value("c", (), TensorProto.BOOL)], HELD)
    for verb in (rmsnorm_onnx.optimize, rmsnorm_onnx.inspect):
        with pytest.raises(InvalidInput, match="reads 'eps', which is given outside, and here only after it"):
            verb(proto)


def test_metadata_of_a_tensor_is_written_once():
    proto = plain()
    proto.graph.initializer[3].metadata_props.add(key="a", value="b")
    (scale,) = rmsnorm_onnx.optimize(proto).model.graph.initializer
    assert len(scale.metadata_props) == 1


def test_a_weight_stated_without_a_type_has_that_of_its_data():
    """A second run saw the data, and wrote another file."""
    proto = plain()
    proto.graph.value_info.add(name="s")
    first = rmsnorm_onnx.optimize(proto).model
    assert rmsnorm_onnx.optimize(first).model == first


def test_a_negative_length_is_unknown():
    """Older converters write -1, and a scale of ones was to be as long."""
    nodes = norm()[:-1]
    nodes[-1].output[0] = "y"
    found = []
    for length in (-1, None):
        proto = model(nodes, held=HELD)
        proto.graph.input[0].CopyFrom(value("x", (2, 3, length)))
        found.append(rmsnorm_onnx.optimize(proto, target="onnx"))
    assert found[0].near_misses == found[1].near_misses
    assert found[0].fused == found[1].fused


def test_what_the_converter_would_make_invalid_is_left_alone():
    """A Dropout of opset 12 in a model of opset 11 got a fourth input."""
    held = {**HELD, "ratio": np.float32(0.5), "training": np.array(False)}
    nodes = norm("dropped")
    del nodes[1].input[1]
    nodes[1].attribute.append(helper.make_attribute("axes", [-1]))
    dropout = helper.make_node("Dropout", ["x", "ratio", "training"], ["dropped"])
    result = rmsnorm_onnx.optimize(model([dropout, *nodes], held=held, opset=11))
    assert [miss.why for miss in result.near_misses] == [spec.Why.OPSET]


@pytest.mark.parametrize(("epsilon", "factor"), [(1e-5, 1e-45), (1e-45, 1e10)])
def test_an_epsilon_that_float32_cannot_hold(epsilon, factor):
    """Over the mean times a constant it is another one: infinite in float32, or gone."""
    nodes = norm("x64", "y64", scale="s64")
    nodes.insert(2, helper.make_node("Mul", ["mean", "factor"], ["small"]))
    nodes[3].input[0] = "small"
    nodes.insert(0, helper.make_node("Cast", ["x"], ["x64"], to=TensorProto.DOUBLE))
    nodes.append(helper.make_node("Cast", ["y64"], ["y"], to=FLOAT))
    held = {"two": 2.0, "eps": epsilon, "factor": factor, "s64": np.ones(8), "last": HELD["last"]}
    result = rmsnorm_onnx.optimize(model(nodes, held=held))
    assert [miss.why for miss in result.near_misses] == [spec.Why.PRECISION]


def test_a_number_near_what_a_multiple_leaves_over_is_another():
    """1.5 x is squared, x divided and multiplied by 1.4765625: in bfloat16 that was taken for 1.5."""
    numbers = {"two": 2, "eps": 1e-3, "multiple": 1.5, "s": 1.4765625}
    nodes = [helper.make_node("Mul", ["x", "multiple"], ["z"]), *norm("z")]
    nodes[5].input[0] = "x"
    proto = model(nodes, held={"last": HELD["last"]}, outputs=[value("y", dtype=BF16)])
    proto.graph.input[0].CopyFrom(value("x", dtype=BF16))
    proto.graph.initializer.extend(helper.make_tensor(name, BF16, (), [n]) for name, n in numbers.items())
    (miss,) = rmsnorm_onnx.optimize(proto).near_misses
    assert (miss.why, miss.detail) == (spec.Why.NOT_A_MEAN, "a factor of 0.984375 is left over")


def test_a_folded_constant_that_is_a_factor_of_another_can_be_widened():
    nodes = [
        helper.make_node("Mul", ["a", "a"], ["b"]),
        helper.make_node("Mul", ["b", "a"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["e"]),
        helper.make_node("Add", ["e", "b"], ["f"]),
        helper.make_node("Add", ["f", "c"], ["y"]),
    ]
    widened = runtime.widen_to_float64(runtime.load(model(nodes, held={"a": np.float32(3)})).model)
    assert [node.op_type for node in widened.graph].count("Add") == 3


@pytest.mark.parametrize("name", ["epsilon_outside", "stash_type"])
def test_a_list_where_the_library_expects_a_number_is_refused(name, monkeypatch):
    """Onnxruntime reads it as if the attribute were not there."""
    monkeypatch.setattr(library, "get_library_path", abi.library_path)
    with pytest.raises(Exception, match=rf"expected attribute {name} of type \w+, got a list"):
        session(one_norm(spec.RMS.name, **{name: [0.5]}))


@pytest.mark.parametrize("x", [FLOAT, BF16])
@pytest.mark.parametrize("root", [["root"], ["", "root"]], ids=["RMS norm", "layer norm"])
def test_norms_that_onnx_has_no_schema_of_have_types(root, x):
    """LayerNormalization before opset 17 is one. Without a type, Mul had no kernel and was given none."""
    op = "LayerNormalization" if len(root) > 1 else "SimplifiedLayerNormalization"
    nodes = [
        helper.make_node(op, ["x", "s"], ["norm", *root]),
        helper.make_node("Mul", ["norm", "norm"], ["square"]),
        helper.make_node("Identity", ["square"], ["y"]),
        helper.make_node("Identity", ["root"], ["r"]),
    ]
    scale = BF16
    outputs = [value("y", dtype=scale), value("r", (2, 3, 1))]
    proto = model(nodes, [value("s", (8,), scale)], outputs=outputs, opset=16)
    proto.graph.input[0].CopyFrom(value("x", dtype=x))
    typed = runtime.typed_copy(runtime.load(proto).model, inline_ours=False)
    assert {v.name: int(v.dtype) for v in typed.graph[0].outputs if v.name} == {"norm": scale, "root": FLOAT}
    if x == scale:  # of mixed ones onnxruntime has no kernel
        assert rmsnorm_onnx.verify(proto, proto, library=False).ok
