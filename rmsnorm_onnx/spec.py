"""What the operators are called, take and mean: the one place where that is written down.

The onnxscript functions, the rewriter and (through ``custom_ops/generate_spec.py``) the C++ library
read it from here. Only the standard library is imported, because the build reads this file before
anything is installed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

DOMAIN: Final = "pkg.rmsnorm_onnx"
VERSION: Final = 1

#: Lowest onnxruntime C API that has all the library needs (shape inference, in-place, ParallelFor).
ORT_API_VERSION: Final = 18

#: Environment variable that forces an instruction set of the CPU kernels.
ISA_VARIABLE: Final = "RMSNORM_ONNX_ISA"

#: Lowest opset a function body can be written at (float16 and bfloat16 arithmetic, CastLike's forerunner).
MINIMUM_OPSET: Final = 13

#: Lowest IR version of a model that holds functions.
FUNCTION_IR_VERSION: Final = 8


class DType(IntEnum):
    """Element types of X, scale and Y, numbered as in onnx.TensorProto."""

    FLOAT = 1
    FLOAT16 = 10
    DOUBLE = 11
    BFLOAT16 = 16

    @property
    def bits_of_precision(self) -> int:
        """Length of the significand, the implicit bit included."""
        return {"FLOAT": 24, "FLOAT16": 11, "DOUBLE": 53, "BFLOAT16": 8}[self.name]


#: Types the statistics may be computed in.
STASH_TYPES: Final = (DType.FLOAT, DType.DOUBLE)


class AttributeKind(Enum):
    """ONNX attribute types the operators use; the value is the name onnx.AttributeProto gives it."""

    INT = "INT"
    INTS = "INTS"
    FLOAT = "FLOAT"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; ``default`` None means that a node must write it."""

    name: str
    kind: AttributeKind
    default: int | float | tuple[int, ...] | None
    doc: str


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: names of its inputs and outputs in order; ``optional_outputs`` of the last may be left out."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    formula: str
    optional_outputs: int = 0


_COMMON: Final = (
    Attribute("axes", AttributeKind.INTS, (-1,), "axes reduced together; negative counts from the end"),
    Attribute("epsilon", AttributeKind.FLOAT, None, "added to the mean square, inside the root"),
    Attribute(
        "epsilon_low",
        AttributeKind.FLOAT,
        0.0,
        "added to epsilon: what a float64 epsilon loses by being written as float32",
    ),
    Attribute("epsilon_outside", AttributeKind.FLOAT, 0.0, "added to the root"),
    Attribute("floor", AttributeKind.FLOAT, 0.0, "lower bound of the mean square"),
    Attribute(
        "stash_type",
        AttributeKind.INT,
        int(DType.FLOAT),
        "precision of the statistics and of all arithmetic: FLOAT (1) or DOUBLE (11)",
    ),
    Attribute(
        "normalized_type",
        AttributeKind.INT,
        int(DType.FLOAT),
        "type the normalized value is rounded to before the scale is applied",
    ),
)
_SCALED_TYPE: Final = Attribute(
    "scaled_type",
    AttributeKind.INT,
    int(DType.FLOAT),
    "type the scaled value is rounded to before the gate is applied",
)

RMS: Final = Op("RMSNormalization", ("X", "scale"), ("Y",), _COMMON, "norm(X) * scale")
SKIP: Final = Op(
    "SkipRMSNormalization",
    ("X", "skip", "scale"),
    ("Y", "sum"),
    _COMMON,
    "sum = X + skip rounded to T; Y = norm(sum) * scale",
    optional_outputs=1,
)
GATED: Final = Op(
    "GatedRMSNormalization",
    ("X", "gate", "scale"),
    ("Y",),
    (*_COMMON, _SCALED_TYPE),
    "norm(X) * scale * silu(gate)",
)
PRE_GATED: Final = Op(
    "PreGatedRMSNormalization",
    ("X", "gate", "scale"),
    ("Y",),
    _COMMON,
    "norm(X * silu(gate)) * scale",
)
OPS: Final = {op.name: op for op in (RMS, SKIP, GATED, PRE_GATED)}


class LeftOut(str):
    """The name of an output that nobody reads: empty, yet true.

    A node of a function with two outputs must list both, the second as an empty name; onnx_ir drops
    trailing outputs whose name is false, which onnx.checker and onnxruntime then refuse.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        """Count as a name."""
        return True


def float32_pair(number: float) -> tuple[float, float]:
    """``number`` as the sum of two float32: the attributes epsilon and epsilon_low."""
    coarse = struct.unpack("f", struct.pack("f", number))[0]
    return coarse, struct.unpack("f", struct.pack("f", number - coarse))[0]


class Why(Enum):
    """Why something that looks like an RMS norm was left alone; ``text`` says it in words."""

    MEAN_SUBTRACTED = "mean-subtracted"
    EXPONENT = "exponent"
    EPSILON_NOT_CONSTANT = "epsilon-not-constant"
    EPSILON_NOT_SINGLE = "epsilon-not-single"
    EPSILON_VALUE = "epsilon-value"
    AXES_NOT_CONSTANT = "axes-not-constant"
    KEEPDIMS = "keepdims"
    NOT_A_MEAN = "not-a-mean"
    DIFFERENT_VALUE = "different-value"
    SCALE_WIDENS = "scale-widens"
    NOT_FLOAT = "not-float"
    UNKNOWN_TYPE = "unknown-type"
    PRECISION = "precision"
    OPSET = "opset"
    TARGET = "target"

    @property
    def text(self) -> str:
        """One clause, fit for a report."""
        return _REASONS[self]


_REASONS: Final = {
    Why.MEAN_SUBTRACTED: "the normalized value has its mean subtracted, so this is LayerNorm, not RMS norm",
    Why.EXPONENT: "the exponent is not 2 (or not 0.5 / -0.5 for the root), or not one constant",
    Why.EPSILON_NOT_CONSTANT: "epsilon is not a constant: it is computed, a graph input, or can be overridden by one",
    Why.EPSILON_NOT_SINGLE: "epsilon holds more than one value",
    Why.EPSILON_VALUE: "epsilon is negative, infinite or NaN",
    Why.AXES_NOT_CONSTANT: "the axes of the mean are not constant",
    Why.KEEPDIMS: "the mean drops its axes (keepdims=0), so it broadcasts against other axes than it averaged",
    Why.NOT_A_MEAN: "the sum of squares is not divided by the number of summed elements",
    Why.DIFFERENT_VALUE: "the value that is squared is not the value that is divided",
    Why.SCALE_WIDENS: "the scale has more elements along an axis than the normalized value, so the product is wider",
    Why.NOT_FLOAT: "the element type is not float32, float16, bfloat16 or float64",
    Why.UNKNOWN_TYPE: "the element type is not known, even after shape inference",
    Why.PRECISION: "a float64 constant cannot be written as the float32 attribute of the operator",
    Why.OPSET: "the model's opset is too low for these operators, and the official converter cannot raise it",
    Why.TARGET: "the chosen target operator cannot express this form",
}
