"""What fuzzing found about fixed points, shapes and runs: one optimize does it all, and believes no loop that errs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fuzz.plain import FLOAT, HELD, INT64, fused, model, norm, value
from onnx import TensorProto, helper, numpy_helper
from zoo import CASES

import rmsnorm_onnx
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.parity import Verdict

BF16 = TensorProto.BFLOAT16


def same_again(once, **options):
    """Whether a second run gives the model as it is, byte for byte."""
    again = rmsnorm_onnx.optimize(once.model, **options)
    return again.model.SerializeToString(deterministic=True) == once.model.SerializeToString(deterministic=True)


def test_a_second_run_changes_nothing():
    """A reshaped scale of no stated type was given a shape, which cannot be written without one."""
    proto = next(case for case in CASES if case.id == "grouped-computed-scale").build()
    proto.graph.node[-1].input[:] = reversed(proto.graph.node[-1].input)
    once = rmsnorm_onnx.optimize(proto)
    assert once.fused
    assert same_again(once)


def test_a_shape_that_nobody_reads_keeps_the_value_it_is_of():
    """The norm went on behind the Reshape, and what Shape read was left to a second run."""
    proto = next(case for case in CASES if case.id == "result-reshaped-to-its-shape").build()
    (node,) = (node for node in proto.graph.node if node.op_type == "Shape")
    proto.graph.node.insert(len(proto.graph.node) - 1, helper.make_node("Shape", node.input, ["unread"]))
    once = rmsnorm_onnx.optimize(proto)
    assert len(once.fused) == 1
    assert same_again(once)


def test_a_type_that_is_not_read_again_is_not_written():
    """Of a constant made in a function, whose name in a file of IR 8 has one slash too many."""
    held = [(name, np.asarray(HELD[name])) for name in ("two", "last", "eps")]
    nodes = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(array)) for n, array in held]
    nodes += norm("/x", "/y")[:-1]
    nodes[-1].output[0] = "/y"
    imports = [helper.make_opsetid("", 18)]
    proto = model([helper.make_node("Norm", ["x"], ["y"], domain="own")], domains=["own"])
    proto.functions.append(helper.make_function("own", "Norm", ["/x"], ["/y"], nodes, imports))
    once = rmsnorm_onnx.optimize(proto)
    assert once.fused
    assert same_again(once)


def flat_norm(x, y):
    """The nodes of a norm that drops the axis and puts it back as the third: it takes three axes to be one."""
    nodes = norm(x, y)
    nodes[1] = helper.make_node("ReduceMean", ["squares", "last"], ["dropped"], keepdims=0)
    nodes.insert(2, helper.make_node("Unsqueeze", ["dropped", "third"], ["mean"]))
    return renamed(nodes, f"_{y}")


def renamed(nodes, suffix):
    """With other names for all values that are made and read here."""
    made = {name for node in nodes for name in node.output[:1] if node is not nodes[-1]}
    for node in nodes:
        node.input[:] = [name + suffix if name in made else name for name in node.input]
        node.output[:] = [name + suffix if name in made else name for name in node.output]
    return nodes


@pytest.mark.parametrize("inside", [False, True], ids=["in the graph", "in a branch"])
@pytest.mark.parametrize("expands", [False, True], ids=["as it is", "expanded"])
@pytest.mark.parametrize("target", ["rmsnorm", "ort"])
def test_one_run_finds_what_its_own_nodes_tell(target, expands, inside):
    """Onnx's inference does not see through computed axes, nor anybody through what is expanded to a computed shape."""

    def first(y):
        nodes = [helper.make_node("Reshape", ["axes", "last"], ["computed"]), *norm(y=y)]
        nodes[2].input[1] = "computed"
        if expands:
            nodes[5].input[1] = "column"
            nodes[5:5] = [
                helper.make_node("Shape", ["x"], ["lengths"]),
                helper.make_node("Expand", ["root", "lengths"], ["column"]),
            ]
        return renamed(nodes, f"_{y}")

    nodes = first("n")
    if inside:
        bodies = {b: helper.make_graph(first(b), b, [], [onnx.ValueInfoProto(name=b)]) for b in ("then", "else")}
        nodes = [helper.make_node("If", ["c"], ["n"], **{f"{name}_branch": body for name, body in bodies.items()})]
    part = helper.make_node("Slice", ["n", "begin", "end"], ["part"])
    held = {**HELD, "axes": np.array(-1), "begin": np.array([0]), "end": np.array([1]), "third": np.array([2])}
    given = [value("c", (), TensorProto.BOOL)] if inside else []
    proto = model([*nodes, part, *flat_norm("part", "y")], given, held, [value("y", None)])
    proto.graph.input[0].CopyFrom(value("x", (2, "S", 8)))
    once = rmsnorm_onnx.optimize(proto, target=target)
    assert {record.output for record in once.fused} == ({"then", "else", "y"} if inside else {"n", "y"})
    assert rmsnorm_onnx.inspect(proto, target=target).fused == once.fused
    assert same_again(once, target=target)


def loop(declared, initial, factor, op="Loop"):
    """A norm in a body that declares the shape of its x, is given ``initial`` and gives back a product with it."""
    given = [value("inner", declared)]
    results = [value("back", None)]
    if op == "Loop":
        given = [value("step", (), INT64), value("going", (), TensorProto.BOOL), *given]
        results = [given[1], *results]
    product = helper.make_node("Mul", ["given", factor], ["back"])
    body = helper.make_graph([*flat_norm("inner", "given"), product], "body", given, results)
    inputs, attributes = (["steps", "", initial], {}) if op == "Loop" else ([initial], {"num_scan_inputs": 0})
    shapes = {"narrow": (3, 8), "other": (2, 3, 4), "whole": (2, 3, 8), "wider": (5, 1, 1, 1)}
    held = {**HELD, "third": np.array([2]), "half": np.float32(0.5), "steps": np.array(2)}
    held |= {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return model([helper.make_node(op, inputs, ["y"], body=body, **attributes)], held=held, outputs=[value("y", None)])


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_a_loop_is_not_believed_that_declares_what_it_is_not_given(op):
    for shape in (2, 3, 8), ("A", "B", 8):
        assert fused(loop(shape, "whole", "half", op))
        assert not fused(loop(shape, "narrow", "half", op))
    # The values of a Scan keep their shape.
    assert not fused(loop((2, 3, 8), "whole", "wider"))
    assert not fused(loop((2, 3, 8), "other", "half"))


def test_what_stands_behind_a_loop_is_not_believed_of_another_shape():
    for shape, outputs in (((2, 3, 8), ["given", "y"]), ((1, 2, 3, 8), [])):
        proto = loop((2, 3, 8), "whole", "half")
        proto.graph.node[0].output[0] = "behind"
        proto.graph.node.extend(flat_norm("behind", "y"))
        proto.graph.value_info.append(value("behind", shape))
        assert [record.output for record in fused(proto)] == outputs


def test_an_output_that_is_not_of_the_type_it_declares_has_no_float64_run():
    """What it is there was no float, and had no bounds: KeyError."""
    proto = model([*norm(), helper.make_node("Constant", [], ["c"], value_int=1)], held=HELD)
    for tensor in proto.graph.initializer:
        if tensor.data_type == FLOAT:
            number = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, BF16, number.shape, number.ravel()))
    proto.graph.input[0].CopyFrom(value("x", dtype=BF16))
    del proto.graph.output[:]
    proto.graph.output.extend([value("y", dtype=BF16), value("c", (), BF16)])
    with pytest.raises(CannotRun, match=r"'c' of floats .* int64 there, .* declares a type that is not so"):
        rmsnorm_onnx.verify(proto, rmsnorm_onnx.optimize(proto).model, library=False)


def rounded_away(factor, kept):
    """Of 2^24 + 1 - 2^24, which is 0 in float32: as many columns as x has elements, where that is ``kept``."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "large"], ["a"]),
        helper.make_node("Add", ["a", "one"], ["b"]),
        helper.make_node("Sub", ["b", "large"], ["c"]),
        helper.make_node("Equal", ["c", "zero" if kept else "one"], ["found"]),
        helper.make_node("NonZero", ["found"], ["indices"]),
        helper.make_node("Cast", ["indices"], ["columns"], to=FLOAT),
        helper.make_node("Add", ["columns", "factor"], ["y"]),
    ]
    numbers = {"zero": 0, "one": 1, "large": 2**24, "factor": factor}
    held = {name: np.float32(number) for name, number in numbers.items()}
    return model(nodes, held=held, outputs=[value("y", ("axes", "found"))])


def test_a_shape_that_rounding_decides_gives_no_float64_run():
    """Shapes of the runs were not compared: numpy's own error came out."""
    first, second = rounded_away(3, kept=True), rounded_away(np.nextafter(np.float32(3), np.float32(4)), kept=True)
    with pytest.raises(CannotRun, match=r"expected output 'y' of shape \(3, 0\), .* it is \(3, 48\).*onnx.checker"):
        rmsnorm_onnx.verify(first, second, library=False)
    assert rmsnorm_onnx.verify(first, first, library=False).outputs[0].verdict is Verdict.IDENTICAL


def test_an_equation_that_is_no_text_is_none():
    """Onnx_ir gives what is not UTF-8 as bytes."""
    proto = next(case for case in CASES if case.id == "einsum-of-itself").build()
    assert fused(proto)
    (equation,) = (a for node in proto.graph.node for a in node.attribute if a.name == "equation")
    equation.s += b"\xff"
    assert not fused(proto)


@pytest.mark.parametrize("number", [1e300, 1e-40])
def test_a_scale_that_float32_cannot_hold_stays_beside_the_norm(number):
    """Statistics in float32, the scale in float64: it was rounded to infinity."""
    double = TensorProto.DOUBLE
    nodes = [helper.make_node("Cast", ["x"], ["single"], to=FLOAT), *norm("single")]
    nodes[-1].input[:] = ["normal", "large"]
    nodes.insert(-1, helper.make_node("Cast", ["normalized"], ["normal"], to=double))
    held = {**HELD, "large": np.full(8, number)}
    proto = model(nodes, held=held, outputs=[value("y", dtype=double)])
    proto.graph.input[0].CopyFrom(value("x", dtype=double))
    once = rmsnorm_onnx.optimize(proto)
    assert len(once.fused) == 1
    assert rmsnorm_onnx.verify(proto, once.model, library=False).ok


def test_an_operator_of_another_domain_is_not_the_one_of_its_name():
    """Abs of nothing, times Abs of nothing, is no square."""
    nodes = [
        helper.make_node("Abs", [], ["a"], domain="own"),
        helper.make_node("Abs", [], ["b"], domain="own"),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ]
    assert not fused(model(nodes, domains=["own"]))


@pytest.mark.parametrize(("parts", "said"), [(3, None), (2, "is 2"), ("other", "is left to 'other'")])
def test_a_split_whose_parts_a_call_counts(parts, said):
    """ONNX's inference ends the process, onnxruntime's too, where they are fewer than its outputs."""
    integer, attribute = onnx.AttributeProto.INT, onnx.AttributeProto
    split = helper.make_node("Split", ["a"], ["p", "q", "r"])
    split.attribute.append(attribute(name="num_outputs", ref_attr_name="count", type=integer))
    call = helper.make_node("Parts", ["y"], ["b", "c", "d"], domain="own")
    refers = isinstance(parts, str)
    call.attribute.append(
        attribute(name="count", ref_attr_name=parts, type=integer) if refers else helper.make_attribute("count", parts)
    )
    proto = model([*norm(), call], held=HELD, domains=["own"])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    proto.functions.append(helper.make_function("own", "Parts", ["a"], ["p", "q", "r"], [split], imports, ["count"]))
    if refers:
        inner = proto.graph.node.pop()
        caller = helper.make_function("own", "Outer", ["y"], ["b", "c", "d"], [inner], imports, [parts])
        proto.functions.append(caller)
        proto.graph.node.append(helper.make_node("Outer", ["y"], ["b", "c", "d"], domain="own", other=3))
    if said is None:
        assert len(fused(proto)) == 1
        return
    with pytest.raises(InvalidInput, match=rf"Split gives 3 outputs, and 'count', their number, {said}"):
        rmsnorm_onnx.optimize(proto)


@pytest.mark.parametrize("back", ["Unsqueeze (r, how)", "Reshape (r, how)"])
@pytest.mark.parametrize(("version", "norms"), [(3, 1), (4, 0), (8, 0)])
def test_a_shape_that_a_feed_may_change_is_no_shape(back, version, norms):
    """ONNX's inference takes the default for it; up to IR 3 every initializer is an input, and nobody feeds it."""
    how = "int64[1] how = {0}" if back.startswith("Unsqueeze") else "int64[3] how = {1, 3, 3}"
    size = "int64[1]" if back.startswith("Unsqueeze") else "int64[3]"
    scalars = {"count": "{3}", "eps": "{0.001}", "half": "{-0.5}"}
    inputs = ", ".join(f"float {name}" for name in scalars) if version == 3 else ""
    text = f"""<ir_version: {version}, opset_import: ["" : 13]>
        main (float[3, 3, 3] x, int64[1] axis, {size} how{", " * bool(inputs)}{inputs}) => (float[3, 3, 3] y)
        <int64[1] axis = {{0}}, {how}, {", ".join(f"float {name} = {number}" for name, number in scalars.items())}>
        {{
            axes = Constant <value_ints = [0]> ()
            m = Mul (x, x)
            r = ReduceSum <keepdims = 0> (m, axes)
            u = {back}
            mean = Div (u, count)
            safe = Add (mean, eps)
            inverse = Pow (safe, half)
            y = Mul (x, inverse)
        }}"""
    assert len(fused(onnx.parser.parse_model(text))) == norms
