"""How much of a graph's result hangs on the last bit of its scalar constants.

A scalar such as sqrt(d) or 1 / d is the rounding of the number that was meant, so a rewriter that recognizes the
number and computes with it is right, although the float64 readings of both graphs then differ by that rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference
from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.types import nodes_of, set_type
from rmsnorm_onnx.runtime.widen import ORIGINAL_TYPE, widen_to_float64

#: The extra input: one factor per constant.
FACTORS: Final = "constant_factors"
#: 16-bit constants are taken at face value: half their ulp would hide too much, and nothing needs it.
_SLACK_TYPES: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True, slots=True)
class SlackModel:
    """A float64 graph whose scalar constants an input scales.

    Attributes:
        model: takes the original's inputs (floats as float64) and ``FACTORS``, float64 of shape [constants].
        roundoffs: relative half ulp of each constant.
    """

    model: ir.Model
    roundoffs: tuple[float, ...]

    def factors(self, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Every constant half an ulp up or down, at random."""
        signs = generator.choice([-1.0, 1.0], len(self.roundoffs))
        return np.asarray(1.0 + signs * np.asarray(self.roundoffs))


def with_constant_slack(model: ir.Model) -> SlackModel:
    """The float64 reading of ``model`` with a factor at each float32 or float64 scalar that is no short number.

    Short numbers (2, 0.5, 1000: at most half the bits of the significand in use) are what they say.

    Raises:
        InvalidInput: functions cannot be inlined.
    """
    copy = widen_to_float64(model)
    factors = ir.Value(name=FACTORS, type=ir.TensorType(ir.DataType.DOUBLE))
    constants = [output for node in nodes_of(copy) for output in node.outputs if _is_inexact(output)]
    for graph in copy.graphs():
        constants += [value for value in graph.initializers.values() if _is_inexact(value)]
    for index, value in enumerate(constants):
        _scale(value, factors, index)
    factors.shape = ir.Shape([len(constants)])
    copy.graph.inputs.append(factors)
    return SlackModel(copy, tuple(reference.roundoff(v.meta[ORIGINAL_TYPE].numpy()) for v in constants))


def _is_inexact(value: ir.Value) -> bool:
    if value.is_graph_input() or value.meta.get(ORIGINAL_TYPE) not in _SLACK_TYPES:
        return False
    tensor: Any = ir.convenience.get_const_tensor(value)
    if tensor is None or math.prod(tensor.shape.numpy()) != 1:
        return False
    number = float(tensor.numpy().reshape(()))
    if not math.isfinite(number):
        return False
    bits = -math.log2(reference.roundoff(value.meta[ORIGINAL_TYPE].numpy()))
    return not (math.frexp(number)[0] * 2.0 ** (bits // 2)).is_integer()


def _scale(value: ir.Value, factors: ir.Value, index: int) -> None:
    position = ir.node("Constant", [], {"value": ir.tensor(np.asarray(index, dtype=np.int64))})
    factor = ir.node("Gather", [factors, position.outputs[0]], {"axis": 0})
    scaled = ir.node("Mul", [value, factor.outputs[0]])
    new = [position, factor, scaled]
    for part, node in enumerate(new):
        node.outputs[0].name = f"{value.name}_slack{part}"
        set_type(node.outputs[0], ir.DataType.INT64 if node is position else ir.DataType.DOUBLE)
    producer = value.producer()
    if producer is not None:
        assert producer.graph is not None
        substitute(value, scaled.outputs[0])
        scaled.replace_input_with(0, value)
        producer.graph.insert_after(producer, new)
        return
    uses = list(value.uses())
    for user, place in uses:
        if user is not scaled:
            user.replace_input_with(place, scaled.outputs[0])
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(graph[0], new)
