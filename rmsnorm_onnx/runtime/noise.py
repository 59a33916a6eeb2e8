"""Rounding noise, sampled: the float64 reading with the graph's own roundings, each on a random grid.

In the spirit of Monte Carlo arithmetic (Parker 1997) and CESTAC (Vignes 1974): where the graph rounds a value v to a
type, the copy computes round(v * s) / s in that type, with s drawn per rounding and run. The error has the size and
the distribution of a true rounding, subnormal numbers included, but is drawn anew in every run. Runs differ from the
exact one by what the graph's own roundings may do, however the graph amplifies or damps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference
from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.types import CONTROL_FLOW, is_sequence, nodes_of, set_type
from rmsnorm_onnx.runtime.widen import ORIGINAL_TYPE, widen_to_float64

_DOUBLE: Final = ir.DataType.DOUBLE
#: The extra input: one scale per rounding.
SCALES: Final = "rounding_scales"

#: Operators that move, select or negate values and therefore round nothing.
_EXACT: Final = frozenset(
    {
        *("Abs", "Clip", "Max", "MaxPool", "Min", "Neg", "ReduceMax", "ReduceMin", "Relu", "Sign", "TopK", "Where"),
        *("Ceil", "Floor", "Round", "Constant", "ConstantOfShape", "OneHot", "Pad", "Trilu", "Tile", "Expand"),
        *("Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
        *("Compress", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"),
        *("DepthToSpace", "SpaceToDepth", "SequenceAt", "ConcatFromSequence"),
    }
)


@dataclass(frozen=True, slots=True)
class NoisyModel:
    """A float64 graph that rounds like the original, on a grid that an input moves.

    Attributes:
        model: takes the original's inputs (floats as float64) and ``SCALES``, float64 of shape [roundings].
        roundings: number of values that are rounded.
    """

    model: ir.Model
    roundings: int

    def scales(self, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """A random grid for every rounding; at most 1, so that the largest finite numbers stay finite."""
        return generator.uniform(0.5, 1.0, self.roundings)


def with_rounding_noise(model: ir.Model) -> NoisyModel:
    """The float64 reading of ``model`` plus a rounding wherever the original rounds.

    Args:
        model: the original, in its own types; not changed.

    Raises:
        InvalidInput: functions cannot be inlined.
    """
    noisy = widen_to_float64(model)
    scales = ir.Value(name=SCALES, type=ir.TensorType(_DOUBLE))
    roundings = [
        (output, output.meta[ORIGINAL_TYPE])
        for node in nodes_of(noisy)
        if node.op_type not in CONTROL_FLOW and (node.domain or node.op_type not in _EXACT)
        for output in node.outputs
        if ORIGINAL_TYPE in output.meta and not is_sequence(output)
        if not _is_widening(node, output.meta[ORIGINAL_TYPE])
    ]
    for index, (output, dtype) in enumerate(roundings):
        _round(output, dtype, scales, index)
    scales.shape = ir.Shape([len(roundings)])
    noisy.graph.inputs.append(scales)
    return NoisyModel(noisy, len(roundings))


def _precision(dtype: ir.DataType) -> float:
    return reference.roundoff(dtype.numpy())


def _is_widening(node: ir.Node, to: ir.DataType) -> bool:
    if node.op_type != "Cast" or node.domain or node.inputs[0] is None:
        return False
    source = node.inputs[0].meta.get(ORIGINAL_TYPE)
    return source is not None and _precision(source) >= _precision(to)


def _round(value: ir.Value, dtype: ir.DataType, scales: ir.Value, index: int) -> None:
    """Put ``Cast(value * scale) / scale`` in the place of ``value``."""
    node = value.producer()
    assert node is not None
    assert node.graph is not None
    position = ir.node("Constant", [], {"value": ir.tensor(np.asarray(index, dtype=np.int64))})
    scale = ir.node("Gather", [scales, position.outputs[0]], {"axis": 0})
    scaled = ir.node("Mul", [value, scale.outputs[0]])
    rounded = ir.node("Cast", [scaled.outputs[0]], {"to": int(dtype)})
    widened = ir.node("Cast", [rounded.outputs[0]], {"to": int(_DOUBLE)})
    noisy = ir.node("Div", [widened.outputs[0], scale.outputs[0]])
    new = [position, scale, scaled, rounded, widened, noisy]
    for part, added in enumerate(new):
        added.outputs[0].name = f"{value.name}_rounding{part}"
        set_type(added.outputs[0], _DOUBLE)
    set_type(position.outputs[0], ir.DataType.INT64)
    set_type(rounded.outputs[0], dtype)
    noisy.outputs[0].meta[ORIGINAL_TYPE] = dtype
    substitute(value, noisy.outputs[0])
    scaled.replace_input_with(0, value)
    node.graph.insert_after(node, new)
