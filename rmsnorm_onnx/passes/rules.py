"""The pass as rewrite rules for ``onnxscript.rewriter.rewrite``, alone or beside other rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRule, RewriteRuleSet

# The only way to say "rewritten" to a RewriteRuleSet: what a rule's try_rewrite returns. Not exported by name.
from onnxscript.rewriter._rewrite_rule import ReplacementSubgraph

from rmsnorm_onnx import spec
from rmsnorm_onnx.passes.fuse import Options, fuse

_MARKER: Final = f"{spec.DOMAIN}.marker"


class RmsNormRules(RewriteRuleSet):
    """``FuseRmsNorm`` as a rule set: one pass over the model, in the main graph, its subgraphs and functions.

    Iterating over it gives one rule, which does the same in a list with others.
    """

    def __init__(self, options: Options) -> None:
        super().__init__([RmsNormRule(options)])
        self._options = options

    def apply_to_model(self, model: ir.Model, *, verbose: int | None = None, tracer: Any = None) -> int:
        """Fuse in place; with a tracer, only other rules have something to trace.

        Returns:
            How many norms were fused.
        """
        return len(fuse(model, self._options).fused) if tracer is None else 0


class RmsNormRule(RewriteRule):
    """The pass as one of several rules.

    A RewriteRuleSet offers it every node of the main graph, of subgraphs and of functions in turn. At the first node
    of the main graph it fuses the whole model, and leaves one marker behind that node for every norm; when it is
    offered a marker, the rewriting it asks for is to remove it. So every norm counts once, and no node is kept from
    other rules. Opsets are not raised: that would replace the graph being walked over.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(lambda op, x: op.Identity(x), lambda op, x: x, name="FuseRmsNorm")
        self._options = replace(options, convert=False)
        self._starts = False
        self.graph_pre_visitor = self._at_start

    def _at_start(self) -> None:
        self._starts = True

    def try_rewrite(
        self,
        model: ir.Model,
        graph_or_function: ir.Graph | ir.Function,
        node: ir.Node,
        *,
        verbose: int | None = None,
        tracer: Any = None,
    ) -> ReplacementSubgraph | None:
        """Fuse at the first node; afterwards only count."""
        if tracer is not None:
            return None
        if self._starts:
            self._starts = False
            if graph_or_function is model.graph:
                self._fuse(model, node)
        if _MARKER not in node.meta:
            return None
        match = MatchResult()
        match.add_node(node)
        return ReplacementSubgraph(match, [], [], [], set())

    def _fuse(self, model: ir.Model, first: ir.Node) -> None:
        # The first marker is there before the pass runs, because that may remove the node it stands behind.
        marker = _marker()
        model.graph.insert_after(first, marker)
        fused = fuse(model, self._options).fused
        model.graph.insert_after(marker, [_marker() for _ in fused[1:]])
        if not fused:
            model.graph.remove(marker)

    def commute(self) -> list[RewriteRule]:
        """It reads either order of operands by itself."""
        return [self]


def _marker() -> ir.Node:
    node = ir.Node("", "Constant", [], [ir.AttrInt64("value_int", 0)])
    node.meta[_MARKER] = True
    return node


def rewrite_rules(*, target: str = "rmsnorm", adopt: bool = True, body: bool = True) -> RewriteRuleSet:
    """The pass for ``onnxscript.rewriter.rewrite(model, pattern_rewrite_rules=rmsnorm_onnx.rewrite_rules())``.

    Beside other rules it goes into one list: ``[*others, *rmsnorm_onnx.rewrite_rules()]``. Norms are then fused
    when the walk over the model begins, in the form they have before the other rules come to them.

    Args:
        target: which operators to write: "rmsnorm", "onnx" or "ort".
        adopt: also take over nodes that are RMS norms already.
        body: store function bodies, so that the model also runs where the library is not registered.

    Raises:
        InvalidInput: there is no such target.
    """
    return RmsNormRules(Options(target, adopt, body))
