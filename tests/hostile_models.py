"""Models whose content is broken in every way that it can be, and the reason to be given for each."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from changed_models import (
    Change,
    append,
    both,
    branch,
    clear,
    condition,
    data,
    field,
    functions,
    nested,
    node,
    opset,
    set_field,
    wire,
)
from onnx import TensorProto, helper, numpy_helper


def _external(location: str) -> TensorProto:
    tensor = TensorProto(name="t", dims=[8], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def _sparse() -> onnx.SparseTensorProto:
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.zeros(1, int))
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[8])


_OUTSIDE = _external("../secret")
_BIG_CALLS = ["F{0} F{0}".format(n + 1) for n in range(39)] + ["Neg"]
_SECOND = numpy_helper.from_array(np.zeros(8, np.float32), "scale")
_WITH_TENSOR = helper.make_graph(
    [helper.make_node("Neg", ["t"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, [8])], [_OUTSIDE]
)

#: What is done to the model, and what the message must say.
REFUSED: Final[dict[str, tuple[Change, str]]] = {
    # Tensors that are not what they say.
    "raw data too short": (
        data(raw_data=b"12345"),
        r"'scale' of graph 'g': FLOAT of shape \[8\] takes 32 bytes.*got 5",
    ),
    "raw data too long": (data(raw_data=bytes(64)), "takes 32 bytes of data, got 64"),
    "no data": (data(), "takes 32 bytes of data, got 0"),
    "data twice": (field("raw_data", bytes(32)), "data twice, in raw_data and float_data"),
    "entries missing": (data(float_data=[1, 2]), "8 entries of float_data, got 2"),
    "entries too many": (data(float_data=[1] * 9), "8 entries of float_data, got 9"),
    "data of another type": (data(int32_data=[1] * 8), "belongs in float_data.*not in int32_data"),
    "half of an epsilon": (data("epsilon", raw_data=b"ab"), "'epsilon'.*takes 4 bytes of data, got 2"),
    "strings missing": (data("epsilon", data_type=8), "1 entries of string_data, got 0"),
    "raw strings": (data("epsilon", data_type=8, raw_data=b"abcd"), "STRING belongs in string_data"),
    "strings in another file": (data("epsilon", data_type=8, data_location=1), "strings cannot be in another file"),
    "complex halved": (data(data_type=14, float_data=[1] * 8), "COMPLEX64.*takes 16 entries of float_data, got 8"),
    "four bits": (data(data_type=22, raw_data=bytes(8)), r"INT4 of shape \[8\] takes 4 bytes of data, got 8"),
    "negative length": (data(dims=[-8], raw_data=bytes(32)), r"none is negative, got \[-8\]"),
    "negative lengths": (data(dims=[-2, -4], raw_data=bytes(32)), "none is negative"),
    "shape beyond 64 bits": (data(dims=[2**32, 2**32]), "larger than any memory"),
    "bytes beyond 64 bits": (data(dims=[2**61]), "larger than any memory"),
    "empty and endless": (data(dims=[2**62, 2**62, 0]), "larger than any memory"),
    "gigabytes of nothing": (data(dims=[10**9]), "takes 4000000000 bytes of data, got 0"),
    "1,000 axes": (data(dims=[1] * 1000, raw_data=bytes(4)), "at most 32 axes.*got 1000 axes"),
    "no element type": (data(data_type=0, raw_data=bytes(32)), "no element type has the number 0"),
    "unknown element type": (data(data_type=99, raw_data=bytes(32)), "no element type has the number 99"),
    "a segment": (field("segment", TensorProto.Segment(begin=0, end=8)), "segment of a larger tensor"),
    "unknown type of an input": (set_field("graph.input.0.type.tensor_type.elem_type", 99), "cannot read it: 99"),
    "tensor of a constant": (
        node("Constant", [], ["k"], value=TensorProto(dims=[1], data_type=1, raw_data=b"a")),
        r"attribute 'value' of node 'Constant' of graph 'g': FLOAT of shape \[1\] takes 4 bytes of data, got 1",
    ),
    # Data in other files, wherever a tensor can stand; a model without a file has no folder to leave either.
    "outside, of a constant": (
        node("Constant", [], ["k"], value=_OUTSIDE),
        "'../secret' is absolute, or goes up",
    ),
    "outside, in a branch": (condition(_WITH_TENSOR), "graph 'b' of .*'../secret' is absolute, or goes up"),
    "outside, in a list": (
        node("Own", ["x"], ["k"], domain="own", ts=[_OUTSIDE]),
        "'../secret' is absolute, or goes up",
    ),
    "outside, in a function": (
        both(functions("Neg"), lambda m: m.functions[0].node[0].attribute.add(name="t", type=4, t=_OUTSIDE) and None),
        "'../secret' is absolute, or goes up",
    ),
    "outside, a default": (
        both(functions("Neg"), lambda m: m.functions[0].attribute_proto.add(name="t", type=4, t=_OUTSIDE) and None),
        "'../secret' is absolute, or goes up",
    ),
    # What onnx_ir would drop.
    "sparse weights": (append("graph.sparse_initializer", _sparse()), "sparse tensors are not supported"),
    "sparse constant": (node("Constant", [], ["k"], sparse_value=_sparse()), "sparse tensors are not supported"),
    "maps": (
        append("graph.input", onnx.ValueInfoProto(name="m", type=onnx.TypeProto(map_type={"key_type": 7}))),
        "value 'm' of graph 'g': maps are not supported",
    ),
    "sequence of nothing": (
        append("graph.input", onnx.ValueInfoProto(name="s", type=onnx.TypeProto(sequence_type={}))),
        "onnx_ir .* cannot read it: .*must have elem_type",
    ),
    "training": (append("training_info", onnx.TrainingInfoProto()), "training information"),
    # Names and order.
    "initializers differ": (append("graph.initializer", _SECOND), "two initializers differ.*'scale'"),
    "initializer without a name": (clear("graph.initializer.0.name"), "an initializer has no name"),
    "output given twice": (node("Neg", ["x"], ["square"]), "its output 'square' is the name of another value"),
    "two outputs of one name": (node("Split", ["x"], ["a", "a"]), "its output 'a' is the name of another"),
    "weight given anew": (node("Neg", ["x"], ["scale"]), "its output 'scale' is the name of another"),
    "input given anew": (node("Neg", ["y"], ["x"]), "its output 'x' is the name of another"),
    "input twice": (append("graph.input", helper.make_tensor_value_info("x", 1, [])), "its input 'x' is the name of"),
    "input without a name": (append("graph.input", onnx.ValueInfoProto()), "one input has no name"),
    "output that nothing gives": (
        append("graph.output", onnx.ValueInfoProto(name="q")),
        "output 'q' is given by nothing",
    ),
    "branch that gives nothing": (condition(branch(output="q")), "graph 'branch' of .*output 'q' is given by nothing"),
    "value that nothing gives": (node("Neg", ["q"], ["z"]), "node 'Neg' of graph 'g': it reads 'q', which nothing"),
    "value of another branch": (condition(branch("inner")), "it reads 'inner', which nothing gives"),
    "no nodes": (clear("graph.node"), "output 'y' is given by nothing"),
    "no outputs": (clear("graph.output"), "no graph with outputs"),
    "no graph": (clear("graph"), "no graph with outputs"),
    "circle": (set_field("graph.node.0.input.0", "y"), "wait for each other in a circle"),
    "circle of one": (set_field("graph.node.0.input.0", "square"), "wait for each other in a circle"),
    "circle beside the model": (both(node("Neg", ["p"], ["q"]), node("Neg", ["q"], ["p"])), "in a circle"),
    "circle through a branch": (condition(branch("z")), "in a circle"),
    "branches 1,000 deep": (nested(1000), "nested deeper than protobuf's 100|does not hold an ONNX model"),
    # Functions.
    "function twice": (
        both(functions("Neg"), lambda m: m.functions.append(m.functions[0])),
        "'F0': it has no name, or",
    ),
    "function without a name": (both(functions("Neg"), set_field("functions.0.name", "")), "it has no name"),
    "function calls itself": (functions("F0"), "functions call each other in a circle: 'F0'"),
    "functions in a circle": (functions("F1", "Neg F2", "F0"), "circle: 'F0', 'F1', 'F2'"),
    "function of a branch in a circle": (
        both(functions("Neg"), lambda m: m.functions[0].node[0].CopyFrom(_calling_branch())),
        "functions call each other in a circle: 'F0'",
    ),
    "functions of 2**39 nodes": (functions(*_BIG_CALLS), "written out, it has over 1,000,000 nodes"),
    "functions 1,000 deep": (functions(*(f"F{n + 1}" for n in range(999)), "Neg"), "more than 500 deep"),
    "function output that nothing gives": (
        both(functions("Neg"), set_field("functions.0.output.0", "q")),
        "'q' is given by",
    ),
    "function input twice": (
        both(functions("Neg"), set_field("functions.0.input.0", "v1")),
        "'v1' is the name of another",
    ),
    "function without imports": (both(functions("Neg"), clear("functions.0.opset_import")), "no opset of ONNX's own"),
    "function in place of an operator": (
        both(functions("Neg"), set_field("functions.0.name", "Sqrt"), set_field("functions.0.domain", "ai.onnx")),
        "function 'Sqrt': it gives an operator of ONNX's own another meaning",
    ),
    # Versions.
    **{f"opset {n}": (opset(n), f"versions 1 to .*domain '', got {n}") for n in (0, -1, 10**9, 2**62)},
    "no opset": (clear("opset_import"), "no opset of ONNX's own"),
    "two opsets": (append("opset_import", helper.make_opsetid("", 18)), "two versions of the domain ''"),
    "two opsets by two names": (opset(18, "ai.onnx"), "two versions of the domain ''"),
    "a later version of our operators": (opset(9, "pkg.rmsnorm_onnx"), "this package knows versions 1 to 1"),
    **{f"IR {n}": (set_field("ir_version", n), f"IR versions 1 to .*, got {n}") for n in (0, -3, 99, 2**40)},
    # Nodes and attributes.
    "no operator": (clear("graph.node.3.op_type"), "it names no operator"),
    "no inputs": (clear("graph.node.0.input"), "Pow takes 2 inputs, got 0"),
    "first input left out": (set_field("graph.node.0.input.0", ""), "Pow takes 2 inputs, got 1"),
    "inputs too many": (set_field("graph.node.3.op_type", "If"), "needs the attribute 'else_branch'"),
    "our operator without a scale": (
        node("RMSNormalization", ["x"], ["z"], domain="pkg.rmsnorm_onnx"),
        "takes 2 inputs",
    ),
    "our operator's epsilon": (
        node("RMSNormalization", ["x", "scale"], ["z"], domain="pkg.rmsnorm_onnx", epsilon="1"),
        "'epsilon' of RMSNormalization is of type FLOAT, got STRING",
    ),
    "onnxruntime's without a scale": (node("SimplifiedLayerNormalization", ["x"], ["z"]), "takes 2 to 3 inputs, got 1"),
    "onnxruntime's epsilon": (
        node("SimplifiedLayerNormalization", ["x", "scale"], ["z"], epsilon="1"),
        "is of type FLOAT, got STRING",
    ),
    "attribute of another type": (
        both(clear("graph.node.1.attribute.0.ints"), set_field("graph.node.1.attribute.0.type", 1)),
        "'axes' of ReduceMean is of type INTS, got FLOAT",
    ),
    "attribute without a type": (clear("graph.node.1.attribute.0.type"), "'axes' of node 'ReduceMean'.*has no type"),
    "attribute of an unknown type": (wire(b"\xa0\x01\x07", b"\xa0\x01\x63"), "has no type, or one that this onnx"),
    "attribute of two values": (set_field("graph.node.1.attribute.0.f", 1.0), "type INTS has its value in ints, got f"),
    "attribute without a graph": (
        set_field("graph.node.1.attribute.0.type", 5),
        "type GRAPH has its value in g, got ints",
    ),
    "attribute without a tensor": (
        both(clear("graph.node.1.attribute.0.ints"), set_field("graph.node.1.attribute.0.type", 4)),
        "type TENSOR has its value in t, got none",
    ),
    "attribute without a name": (clear("graph.node.1.attribute.0.name"), "it has no name"),
    "attribute twice": (
        lambda m: m.graph.node[1].attribute.append(m.graph.node[1].attribute[0]),
        "two attributes of one",
    ),
    "attribute of no function": (set_field("graph.node.1.attribute.0.ref_attr_name", "a"), "is not in one"),
    "constant of two values": (
        node("Constant", [], ["k"], value_int=1, value_float=1.0),
        "Constant needs one value, got 2",
    ),
    "constant of no value": (node("Constant", [], ["k"]), "Constant needs one value, got 0"),
    "negative batches": (
        node("GatherND", ["x", "axes"], ["k"], batch_dims=-2),
        "batch_dims of GatherND is 0 or more, got -2",
    ),
    "cast to nothing": (node("Cast", ["epsilon"], ["k"]), "Cast needs the attribute 'to'"),
    "cast to an unknown type": (node("Cast", ["epsilon"], ["k"], to=99), "no element type has the number 99"),
    "cast to a text": (node("Cast", ["epsilon"], ["k"], to="float"), "'to' of Cast is of type INT, got STRING"),
    # Text.
    **{
        f"{what} that is not UTF-8": (
            both(change, wire(b"QQQQ", b"\xff\xfe\xc0\x80")),
            rf"the {name} .* is not valid UTF-8",
        )
        for what, name, change in (
            (
                "value",
                "output",
                both(set_field("graph.node.0.output.0", "QQQQ"), set_field("graph.node.1.input.0", "QQQQ")),
            ),
            ("node name", "name", set_field("graph.node.0.name", "QQQQ")),
            ("operator", "op_type", set_field("graph.node.0.op_type", "QQQQ")),
            ("description", "doc_string", set_field("doc_string", "QQQQ")),
            ("dimension", "dim_param", set_field("graph.input.0.type.tensor_type.shape.dim.0.dim_param", "QQQQ")),
        )
    },
    "half of a surrogate": (
        both(set_field("graph.node.0.name", "QQQ"), wire(b"QQQ", b"\xed\xa0\x80")),
        "is not valid UTF-8",
    ),
}


def _calling_branch() -> onnx.NodeProto:
    """An If in F0, one of whose branches calls F0."""
    then = helper.make_graph(
        [helper.make_node("F0", ["v0"], ["o"], domain="own")], "b", [], [helper.make_tensor_value_info("o", 1, [])]
    )
    return helper.make_node("If", ["v0"], ["v1"], then_branch=then, else_branch=branch("v0"))
