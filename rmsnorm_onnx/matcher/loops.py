"""Loops whose bodies declare other shapes than they are given.

Nobody checks them: a carried value may change its shape from step to step, so ONNX's inference hands none on, and
onnxruntime runs with the shapes that come. Exporters leave what the first step had, or what they guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, Dims

#: The first carried value among the inputs, and among the outputs, of a body.
_CARRIED: Final = {"Loop": (2, 1), "Scan": (0, 0)}


def is_loop(node: ir.Node) -> bool:
    """Whether the node's body is run again with what it gave."""
    return node.op_type in _CARRIED and node.domain in DEFAULT_DOMAINS


def contradicts_itself(
    loop: ir.Node, declared: Callable[[ir.Value], Dims | None], known: Callable[[ir.Value], Dims | None]
) -> bool:
    """Whether a carried value is declared with a shape that some step does not give it.

    Args:
        loop: a node that ``is_loop``.
        declared: the shape that the model states, if it does.
        known: the shape as it is known, from there or elsewhere.
    """
    return any(_differ(declared(value), known(source)) for value, source in _carried(loop))


def _carried(loop: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Each carried value inside the body and behind the loop, with each that it may be at run time."""
    body = loop.attributes["body"].as_graph() if "body" in loop.attributes else None
    if body is None or len(body.inputs) != len(loop.inputs):
        return  # Scan of opset 8 has one input more, and axes of its own
    first, first_given = _CARRIED[loop.op_type]
    scanned = loop.attributes["num_scan_inputs"].as_int() if "num_scan_inputs" in loop.attributes else 0
    last = len(body.inputs) - scanned
    inner, initial = body.inputs[first:last], loop.inputs[first:last]
    for inside, start, given, behind in zip(inner, initial, body.outputs[first_given:], loop.outputs, strict=False):
        yield from ((inside, source) for source in (start, given) if source is not None)
        yield behind, given


def _differ(declared: Dims | None, known: Dims | None) -> bool:
    if declared is None or known is None:
        return False
    numbers = zip(declared, known, strict=False)
    return len(declared) != len(known) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in numbers)
