"""What every reading rule may ask: types, shapes, constants, what values mean, where they come from."""

from __future__ import annotations

from typing import Final, TypeAlias

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.match import NearMiss
from rmsnorm_onnx.matcher.normalized import Normalized, Sigmoid, Silu
from rmsnorm_onnx.matcher.statistic import Flaw, Lengths, Squared, Statistic

Meaning: TypeAlias = Lengths | Squared | Statistic | Sigmoid | Silu | Normalized

#: Types whose every value the other type holds as well.
_WIDENINGS: Final = frozenset(
    {
        (spec.DType.FLOAT16, spec.DType.FLOAT),
        (spec.DType.BFLOAT16, spec.DType.FLOAT),
        (spec.DType.FLOAT16, spec.DType.DOUBLE),
        (spec.DType.BFLOAT16, spec.DType.DOUBLE),
        (spec.DType.FLOAT, spec.DType.DOUBLE),
    }
)
CASTS: Final = frozenset({"Cast", "CastLike"})
#: Numbers that change nothing: jax2onnx subtracts the mean that a norm does not have.
_NEUTRAL: Final = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}
_SIGNLESS: Final = frozenset({"Abs", "Neg"})
#: What converters write anew for each reader of a value.
_REPEATED: Final = frozenset({*CASTS, "DequantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
COPIES: Final = frozenset({"Identity", "Dropout"})
#: Elements stay in their order; where the shape stays as well, nothing is done.
RESHAPES: Final = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})


class Context:
    """The state of reading one model: grows value by value, and is never taken back."""

    def __init__(self, model: ir.Model) -> None:
        self.facts = Facts(model)
        self.constants = self.facts.constants
        self.meanings: dict[ir.Value, Meaning] = {}
        self._sources: dict[ir.Value, ir.Value | None] = {}
        self._firsts: dict[object, ir.Value] = {}
        self.near_misses: list[NearMiss] = []
        self.refused: set[ir.Value] = set()

    def note_twin(self, node: ir.Node) -> None:
        """Take the output for a copy of an earlier node's, if that node does the same to the same values.

        Tools that convert types or quantize write one such node per reader.
        """
        if node.op_type not in _REPEATED or len(node.outputs) != 1:
            return
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return  # what a caller will say
        inputs = tuple(self.origin(value) if value is not None else None for value in node.inputs)
        attributes = tuple(sorted((a.name, str(a.value)) for a in node.attributes.values()))
        key = (node.graph, node.domain, node.op_type, inputs, attributes)
        first = self._firsts.setdefault(key, node.outputs[0])
        if first is not node.outputs[0]:
            self._sources[node.outputs[0]] = first

    def meaning(self, value: ir.Value | None) -> Meaning | None:
        """What ``value`` means, as far as it was read."""
        return self.meanings.get(value) if value is not None else None

    def report(self, node: ir.Node, flaw: Flaw) -> None:
        """Keep a near miss that shows at ``node``."""
        at = "" if flaw.node is node else f" (at {describe(flaw.node)})"
        self.near_misses.append(NearMiss(node, flaw.why, flaw.detail + at))

    def is_copy(self, node: ir.Node) -> bool:
        """Whether the first output is the first input, unchanged, in inference."""
        if node.op_type == "Identity":
            return True
        if node.op_type != "Dropout":
            return False
        training = node.inputs[2] if len(node.inputs) > 2 else None
        return training is None or self.constants.single(training) == 0

    def exact_source(self, value: ir.Value) -> ir.Value | None:
        """The value that ``value`` is an exact copy of, one node back (a widening Cast counts)."""
        # Asked five times per value on average.
        if value not in self._sources:
            self._sources[value] = self._exact_source(value)
        return self._sources[value]

    def _exact_source(self, value: ir.Value) -> ir.Value | None:
        node = value.producer()
        if node is None or node.domain not in DEFAULT_DOMAINS or not node.inputs or node.inputs[0] is None:
            return None
        if value is not node.outputs[0]:
            return None
        if node.op_type in _NEUTRAL:
            return self._unchanged_operand(node)
        if node.op_type in COPIES:
            return node.inputs[0] if self.is_copy(node) else None
        if node.op_type in RESHAPES:
            return node.inputs[0] if self.facts.same_shape(node.inputs[0], value) else None
        if node.op_type == "Neg":
            inner = node.inputs[0].producer()
            twice = inner is not None and inner.op_type == "Neg" and inner.domain in DEFAULT_DOMAINS
            return inner.inputs[0] if twice and inner is not None else None
        if node.op_type in CASTS:
            source, result = self.facts.float_type(node.inputs[0]), self.facts.float_type(value)
            if source is not None and result is not None and (source is result or (source, result) in _WIDENINGS):
                return node.inputs[0]
            # There and back again.
            home = self.origin(node.inputs[0])
            return home if result is not None and self.facts.float_type(home) is result else None
        return None

    def _unchanged_operand(self, node: ir.Node) -> ir.Value | None:
        """The operand that the node adds 0 to, or multiplies by 1, without making it wider."""
        neutral = _NEUTRAL[node.op_type]
        pairs = (node.inputs, tuple(reversed(node.inputs))) if node.op_type in {"Add", "Mul"} else (node.inputs,)
        for kept, other in pairs:
            # A vector of ones is a weight that was not trained, and a scale like any other.
            zeros = neutral == 0 and self.constants.uniform(other) == 0
            if kept is not None and (zeros or self.constants.single(other) == neutral):
                return kept if self.facts.same_shape(kept, node.outputs[0]) else None
        return None

    def unrounded(self, value: ir.Value) -> ir.Value | None:
        """What a narrowing Cast rounded to give ``value``: a float16 converter puts one beside the statistic's own."""
        node = self.origin(value).producer()
        if node is None or node.op_type not in CASTS or node.domain not in DEFAULT_DOMAINS or node.inputs[0] is None:
            return None
        wide, narrow = self.facts.float_type(node.inputs[0]), self.facts.float_type(node.outputs[0])
        if wide is None or narrow is None or (narrow, wide) not in _WIDENINGS:
            return None
        return self.origin(node.inputs[0])

    def uncast(self, value: ir.Value) -> ir.Value:
        """The earliest value that ``value`` equals but for roundings."""
        value = self.origin(value)
        node = value.producer()
        while node is not None and node.op_type in CASTS and node.domain in DEFAULT_DOMAINS:
            assert node.inputs[0] is not None
            value = self.origin(node.inputs[0])
            node = value.producer()
        return value

    def unsigned_origin(self, value: ir.Value) -> ir.Value:
        """The earliest value that has the same squares: also before Abs and Neg."""
        value = self.origin(value)
        node = value.producer()
        while node is not None and node.op_type in _SIGNLESS | CASTS and node.domain in DEFAULT_DOMAINS:
            assert node.inputs[0] is not None
            before = self.origin(node.inputs[0])
            if node.op_type in CASTS:
                # Sign and widening round nothing, so neither does the Cast back.
                before, dtype = self.unsigned_origin(before), self.facts.float_type(value)
                if dtype is None or self.facts.float_type(before) is not dtype:
                    return value
            value = before
            node = value.producer()
        return value

    def origin(self, value: ir.Value) -> ir.Value:
        """The earliest value that ``value`` is an exact copy of."""
        source = self.exact_source(value)
        while source is not None:
            value, source = source, self.exact_source(source)
        return value


def widens(narrow: spec.DType, wide: spec.DType) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``, and the types differ."""
    return (narrow, wide) in _WIDENINGS


def describe(node: ir.Node) -> str:
    """A node as people look for it: operator, name, output."""
    output = node.outputs[0].name if node.outputs else ""
    return f"{node.op_type} '{node.name or output}'"
