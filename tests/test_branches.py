"""Branches may use one name for different values: what inference says of a value must be of that value."""

from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest

from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.runtime.types import infer_types, values_of

#: ONNX 1.23 takes the numbers in the first t for those in the second. optimum's merged decoders have such names.
MODEL = """
<ir_version: 9, opset_import: ["": 17]>
graph (float[N, M, 8] x, bool b) => (float[N, M, 8] y)
{
    y = If (b) <
        then_branch = lengths () => (float[N, M, 8] z) { t = Shape (x)
                                                         c = ConstantOfShape (t)
                                                         z = Add (x, c) },
        else_branch = lengths_of_lengths () => (float[N, M, 8] z) { s = Shape (x)
                                                                    t = Shape (s)
                                                                    c = ConstantOfShape (t)
                                                                    m = ReduceMean <keepdims = 0> (c)
                                                                    z = Add (x, m) }>
}
"""


def of_facts(model: ir.Model, value: ir.Value) -> object:
    return Facts(model).shape(value)


def of_a_copy(model: ir.Model, value: ir.Value) -> object:
    infer_types(model)
    return value.shape


@pytest.mark.parametrize("shape_of", [of_facts, of_a_copy])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_shape_is_that_of_the_value_in_its_branch(shape_of, swapped):
    proto = onnx.parser.parse_model(MODEL)
    onnx.checker.check_model(proto)
    if swapped:
        then, other = proto.graph.node[0].attribute
        then.name, other.name = other.name, then.name
    model = ir.from_proto(proto)
    names = [value.name for value in values_of(model)]
    found = {
        value.graph.name: tuple(str(length) for length in shape_of(model, value))
        for value in list(values_of(model))
        if value.name == "c"
    }
    assert found == {"lengths": ("N", "M", "8"), "lengths_of_lengths": ("3",)}
    assert [value.name for value in values_of(model)] == names
