"""Norms in If branches, Loop and Scan bodies and model-local functions, and norm nodes that are there already."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from rmsnorm_onnx.spec import RMS, SKIP, Why

from .case import Case, case
from .spelling import Spelling
from .structures import DYNAMO, PLAIN, X
from .tape import Tape, Value


def _condition(g: Tape) -> Value:
    return g.input("condition", (), TensorProto.BOOL)


def in_branch(g: Tape) -> None:
    x, condition = g.input("x", X), _condition(g)
    g.output(g.branch(condition, lambda: g.norm(x, PLAIN), lambda: g.op("Tanh", x)), "y", shape=X)


def in_both_branches(g: Tape) -> None:
    x, condition = g.op("Tanh", g.input("x", X)), _condition(g)
    second = g.weight("second", (8,))
    g.output(g.branch(condition, lambda: g.norm(x, PLAIN), lambda: g.norm(x, DYNAMO, second)), "y", shape=X)


def in_nested_branch(g: Tape) -> None:
    x, condition = g.input("x", X), _condition(g)
    inner = lambda: g.branch(condition, lambda: g.norm(x, DYNAMO), lambda: g.op("Abs", x))  # noqa: E731
    g.output(g.branch(condition, inner, lambda: g.op("Tanh", x)), "y", shape=X)


def inside_and_outside(g: Tape) -> None:
    """The branch captures a norm of the main graph and normalizes its double."""
    x, condition = g.input("x", X), _condition(g)
    first = g.norm(x, PLAIN)
    g.output(
        g.branch(condition, lambda: g.norm(g.op("Add", first, x), PLAIN), lambda: g.op("Tanh", first)), "y", shape=X
    )


def in_loop(g: Tape) -> None:
    """Three layers that share their weights."""
    x, bias = g.input("x", X), g.weight("bias", (8,))
    g.output(g.loop(3, lambda carried: g.op("Add", g.norm(carried, DYNAMO), bias), x, X), "y", shape=X)


def in_scan(g: Tape) -> None:
    """Row by row over the first axis."""
    g.output(g.scan(lambda row: g.norm(row, PLAIN), g.input("x", (4, 3, 8))), "y", shape=(4, 3, 8))


def _module(g: Tape) -> Callable[[Value, Value], Value]:
    """A function body, in which every constant is a node."""
    s = Spelling(quotient="reciprocal", power_kind="constant", epsilon_kind="constant", axes_kind="constant")
    return lambda x, weight: g.norm(x, s, weight)


def in_function(g: Tape) -> None:
    """What dynamo exports for a module: called twice, with two weights."""
    y = g.call("RMSNorm", _module(g), g.input("x", X), g.weight("first", (8,)))
    g.output(g.call("RMSNorm", _module(g), g.op("Tanh", y), g.weight("second", (8,))), "y")


def in_function_in_branch(g: Tape) -> None:
    x, weight, condition = g.input("x", X), g.weight("first", (8,)), _condition(g)
    then = lambda: g.call("RMSNorm", _module(g), x, weight)  # noqa: E731
    g.output(g.branch(condition, then, lambda: g.op("Tanh", x)), "y")


# norm nodes that are there already


def adopt_onnx_23(g: Tape) -> None:
    x = g.input("x", X)
    g.output(g.op("RMSNormalization", x, g.weight("scale", (8,)), epsilon=1e-6, axis=-1), "y")


def adopt_onnx_23_two_axes(g: Tape) -> None:
    x = g.input("x", ("B", 3, 8))
    g.output(g.op("RMSNormalization", x, g.weight("scale", (3, 8)), epsilon=1e-6, axis=1), "y")


def adopt_onnx_23_skip(g: Tape) -> None:
    total = g.op("Add", g.input("x", X), g.input("z", X))
    y = g.op("RMSNormalization", total, g.weight("scale", (8,)), epsilon=1e-6)
    g.output(y, "y")
    g.output(total, "sum")


def adopt_simplified(g: Tape) -> None:
    x = g.input("x", X)
    g.output(g.op("SimplifiedLayerNormalization", x, g.weight("scale", (8,)), epsilon=1e-6, axis=-1), "y", shape=X)


def adopt_skip_simplified(g: Tape) -> None:
    x, z, scale = g.input("x", X), g.input("z", X), g.weight("scale", (8,))
    g.output(g.op("SkipSimplifiedLayerNormalization", x, z, scale, domain="com.microsoft", epsilon=1e-6), "y", shape=X)


def adopt_skip_simplified_bias(g: Tape) -> None:
    """As onnxruntime's offline optimizer writes it, with the bias of the projection in front."""
    x, z, scale, bias = g.input("x", X), g.input("z", X), g.weight("scale", (8,)), g.weight("bias", (8,))
    y = g.op("SkipSimplifiedLayerNormalization", x, z, scale, bias, domain="com.microsoft", epsilon=1e-6)
    g.output(y, "y", shape=X)


def adopt_negative_epsilon(g: Tape) -> None:
    g.output(g.op("RMSNormalization", g.input("x", X), g.weight("scale", (8,)), epsilon=-1e-6), "y")


#: (program, nodes per operator, opset, what it shows)
_TABLE = (
    (in_branch, {RMS.name: 1}, 18, "in an If branch, x captured"),
    (in_both_branches, {RMS.name: 2}, 18, "in both branches of an If"),
    (in_nested_branch, {RMS.name: 1}, 17, "in an If in an If"),
    (inside_and_outside, {RMS.name: 1, SKIP.name: 1}, 18, "in the graph and in a branch that reads it"),
    (in_loop, {RMS.name: 1}, 18, "in a Loop body"),
    (in_scan, {RMS.name: 1}, 18, "in a Scan body"),
    (in_function, {RMS.name: 1}, 18, "in a model-local function that is called twice"),
    (in_function_in_branch, {RMS.name: 1}, 18, "in a function called from a branch"),
    (adopt_onnx_23, {RMS.name: 1}, 23, "ONNX-23 RMSNormalization"),
    (adopt_onnx_23_two_axes, {RMS.name: 1}, 23, "ONNX-23 RMSNormalization over two axes"),
    (adopt_onnx_23_skip, {SKIP.name: 1}, 23, "Add in front of ONNX-23 RMSNormalization"),
    (adopt_simplified, {RMS.name: 1}, 18, "onnxruntime's SimplifiedLayerNormalization"),
    (adopt_skip_simplified, {SKIP.name: 1}, 18, "onnxruntime's SkipSimplifiedLayerNormalization"),
    (adopt_skip_simplified_bias, {SKIP.name: 1}, 18, "onnxruntime's SkipSimplifiedLayerNormalization with a bias"),
)

SCOPES: tuple[Case, ...] = (
    *(
        case(program, shows, fuses=operators, opset=opset, standard=program is not adopt_simplified)
        for program, operators, opset, shows in _TABLE
    ),
    case(adopt_negative_epsilon, "a norm node with a negative epsilon", why=Why.EPSILON_VALUE, opset=23),
)
