"""Means that are written as GlobalAveragePool, where there is nothing to average."""

from fuzz.plain import HELD, fused, model, norm
from onnx import helper


def test_a_pool_over_no_axes_is_no_mean():
    nodes = norm()
    nodes[1].CopyFrom(helper.make_node("GlobalAveragePool", ["squares"], ["mean"]))
    proto = model(nodes, held=HELD)
    assert fused(proto)
    del proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert not fused(proto)
