"""``optimize`` and ``inspect``: a model in, what was fused out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final, Generic, TypeVar

import onnx
import onnx_ir as ir

from rmsnorm_onnx import modelfile
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.passes import Fused, LeftAlone, Options, Outcome, fuse, plan
from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1

_Model = TypeVar("_Model", onnx.ModelProto, ir.Model)


@dataclass(frozen=True, slots=True)
class InspectResult:
    """What a model holds.

    Attributes:
        target: the target that ``optimize`` would write for.
        fused: what ``optimize`` would fuse.
        near_misses: what only looks like an RMS norm, with the reason.
    """

    target: str
    fused: tuple[Fused, ...]
    near_misses: tuple[LeftAlone, ...]

    def report(self) -> Report:
        """The result for any renderer."""
        return _report(Outcome(self.fused, self.near_misses), self.target, "inspect", "found")


@dataclass(frozen=True, slots=True)
class OptimizeResult(Generic[_Model]):
    """A fused model.

    Attributes:
        model: of the kind that was given; a ModelProto for a path.
        target: the target that it was written for.
        fused: one record per new node.
        near_misses: what only looks like an RMS norm, with the reason.
    """

    model: _Model
    target: str
    fused: tuple[Fused, ...]
    near_misses: tuple[LeftAlone, ...]

    def report(self) -> Report:
        """The result for any renderer."""
        return _report(Outcome(self.fused, self.near_misses), self.target, "optimize", "fused")


def optimize(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model,
    *,
    target: str = "rmsnorm",
    adopt: bool = True,
    body: bool = True,
) -> OptimizeResult[Any]:
    """Replace every RMS norm of ``model`` by one node.

    Args:
        model: a path, an ``onnx.ModelProto`` (not changed) or an ``onnx_ir.Model`` (changed in place).
        target: which nodes to write. "rmsnorm": those of the domain ``pkg.rmsnorm_onnx``, which express every norm.
            "onnx": RMSNormalization of opset 23, to which the model is raised. "ort": onnxruntime's
            SimplifiedLayerNormalization, SkipSimplifiedLayerNormalization and GatedRMSNorm. What the target cannot
            express exactly stays as it is, and is among the near misses.
        adopt: also take over nodes that are RMS norms already: ONNX's RMSNormalization and onnxruntime's
            SimplifiedLayerNormalization.
        body: store function bodies, so that the model also runs where the library is not registered.

    Returns:
        The fused model, of the kind given (a ModelProto for a path), and what was done.

    Raises:
        InvalidInput: the file is missing or not a model, the argument is of another kind, or there is no such target.
    """
    options = Options(target, adopt, body)
    graph_model = modelfile.to_model(model)
    outcome = fuse(graph_model, options)
    result = graph_model if isinstance(model, ir.Model) else _written(graph_model)
    return OptimizeResult(result, target, outcome.fused, outcome.near_misses)


def _written(model: ir.Model) -> onnx.ModelProto:
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        raise InvalidInput(f"the model is invalid, it cannot be written again: {_root(error)}") from error


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)


def inspect(
    model: str | os.PathLike[str] | onnx.ModelProto | ir.Model, *, target: str = "rmsnorm", adopt: bool = True
) -> InspectResult:
    """Say what ``optimize`` would fuse in ``model``, and what it would leave alone and why; change nothing.

    Raises:
        InvalidInput: the file is missing or not a model, the argument is of another kind, or there is no such target.
    """
    options = Options(target, adopt)
    outcome = plan(modelfile.to_model(model), options)
    return InspectResult(target, outcome.fused, outcome.near_misses)


def _report(outcome: Outcome, target: str, command: str, verb: str) -> Report:
    counts = Counter(record.op for record in outcome.fused)
    reasons = Counter(miss.why for miss in outcome.near_misses)
    verdict = f"{len(outcome.fused)} RMS norms {verb}, {len(outcome.near_misses)} near misses"
    if reasons:
        verdict += f", most often: {reasons.most_common(1)[0][0].text}"
    return Report(
        title=f"rmsnorm-onnx {command}",
        status=Status.PASSED,
        verdict=verdict,
        facts=tuple((op, str(count)) for op, count in counts.items()),
        tables=_tables(outcome, verb),
        document={
            "schema_version": SCHEMA_VERSION,
            "command": command,
            "target": target,
            "fused": [asdict(record) for record in outcome.fused],
            "near_misses": [
                {"node": m.node, "why": m.why.value, "reason": m.why.text, "detail": m.detail, "tree": m.tree}
                for m in outcome.near_misses
            ],
        },
        cases=(
            *(Case(f"{r.op} {r.output}", Status.PASSED) for r in outcome.fused),
            *(Case(m.node, Status.SKIPPED, f"{m.why.text}: {m.detail}") for m in outcome.near_misses),
        ),
    )


def _tables(outcome: Outcome, verb: str) -> tuple[Table, ...]:
    tables = []
    if outcome.fused:
        rows = tuple((r.op, r.output, str(len(r.replaced)), r.pattern.replace("-", " ")) for r in outcome.fused)
        tables.append(Table(verb.capitalize(), ("operator", "output", "nodes", "from"), rows))
    if outcome.near_misses:
        misses = tuple((m.why.value, "\n".join((f"{m.why.text}: {m.detail}", *m.tree))) for m in outcome.near_misses)
        tables.append(Table("Near misses", ("reason", "what was seen"), misses))
    return tuple(tables)
