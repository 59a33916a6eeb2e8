"""The verbs of the package: paths or models in, results out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Generic, TypeVar

import onnx
import onnx_ir as ir

from rmsnorm_onnx import bench, modelfile, runtime, spec
from rmsnorm_onnx.bench import benchmark_kernels
from rmsnorm_onnx.errors import CannotRun, InvalidInput, LibraryMissing
from rmsnorm_onnx.parity import verify
from rmsnorm_onnx.passes import Fused, LeftAlone, Options, Outcome, fuse, plan
from rmsnorm_onnx.report import Case, Report, Status, Table

__all__ = ["InspectResult", "OptimizeResult", "benchmark", "benchmark_kernels", "inspect", "optimize", "verify"]

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
    result = graph_model if isinstance(model, ir.Model) else ir.to_proto(graph_model)
    return OptimizeResult(result, target, outcome.fused, outcome.near_misses)


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


def benchmark(
    *models: runtime.Model,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int | None = None,
    seconds: float = 10.0,
    drop_in: bool = False,
    progress: bench.Progress = bench.silent,
) -> bench.ModelBenchmark:
    """Time models on the same inputs, in turns; first check that their outputs equal those of the first.

    One model alone is compared with itself after ``optimize``. The first is timed twice, the second time as "again":
    how far that is from equally fast is what the measurement cannot tell.

    Args:
        models: path, ModelProto or onnx_ir.Model; none is changed.
        dims: values of free dimensions by name; see ``verify``.
        inputs: arrays by name, an .npz file, or an ONNX test data folder, instead of seeded values.
        seed: of inputs and of the check.
        threads: inside one operator; every core that this process may use when None.
        seconds: of timed runs per model, roughly; never fewer than 21 runs.
        drop_in: also run the first model, as it is, with our kernels in place of onnxruntime's.
        progress: told what is being done.

    Raises:
        InvalidInput: no model, a file, dimension or input that does not fit, or models with different inputs.
        CannotRun: onnxruntime is missing, or cannot load or run one of them. LibraryMissing: the library was not built.
    """
    if not models:
        raise InvalidInput("expected at least one model")
    if (threads is not None and threads < 1) or not seconds > 0:
        raise InvalidInput(f"threads and seconds must be positive, got {threads} and {seconds}")
    threads = threads or bench.usable_cores()
    sides = _sides(models)
    original = sides[0][1]
    feeds = runtime.make_feeds(original.model, dims=dims, inputs=inputs, seed=seed)
    candidates: list[bench.Candidate] = []
    for name, loaded in sides:
        progress(f"checking {name}")
        equal, check = (True, "the first") if not candidates else _check(original, loaded, feeds, seed, threads)
        library: bench.Library = "ours" if _holds_ours(loaded.model) else "none"
        candidates.append(bench.Candidate(name, loaded, library, _norm_nodes(loaded.model), equal, check))
    first = replace(candidates[0], equal=None)
    if drop_in:
        check = "the same file; whether our kernels are right is what verify and the tests ask"
        candidates.append(replace(first, name=f"{first.name}, drop-in", library="drop-in", check=check))
    check = "the first once more: what its ratio is off 1 is noise, also where the interval says otherwise"
    candidates.append(replace(first, name=f"{first.name}, again", check=check))
    return bench.time_models(candidates, feeds, threads=threads, budget_s=seconds, progress=progress)


def _sides(models: Sequence[runtime.Model]) -> list[tuple[str, runtime.LoadedModel]]:
    loaded = [runtime.load(model) for model in models]
    short = [model.path.name if model.path else model.name for model in loaded]
    names = short if len(set(short)) == len(short) else [f"{n + 1}: {model.name}" for n, model in enumerate(loaded)]
    if len(loaded) > 1:
        return list(zip(names, loaded, strict=True))
    fused = loaded[0].model.clone()
    fuse(fused)
    # Both without a path: loaded the same way, so that loading is comparable too.
    return [(names[0], replace(loaded[0], path=None)), (f"{names[0]}, optimized", runtime.load(fused))]


def _holds_ours(model: ir.Model) -> bool:
    imports = [model.graph.opset_imports, *(function.opset_imports for function in model.functions.values())]
    return any(spec.DOMAIN in domains for domains in imports)


def _norm_nodes(model: ir.Model) -> frozenset[str]:
    return frozenset(name for record in plan(model).fused for name in record.replaced)


def _check(
    original: runtime.LoadedModel, other: runtime.LoadedModel, feeds: runtime.Feeds, seed: int, threads: int
) -> tuple[bool | None, str]:
    try:
        parity = verify(original.model, other.model, inputs=feeds.arrays, seed=seed, threads=threads)
    except LibraryMissing:
        raise
    except CannotRun as error:
        return None, f"outputs were not checked: {error}"
    different = [f"{output.name} ({output.detail})" for output in parity.outputs if not output.verdict.ok]
    if different:
        return False, f"outputs DIFFER from the first: {', '.join(different)}"
    return True, f"{len(parity.outputs)} outputs equal those of the first"


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
        rows = tuple((r.op, r.output, str(len(r.replaced)), r.pattern) for r in outcome.fused)
        tables.append(Table(verb.capitalize(), ("operator", "output", "nodes", "from"), rows))
    if outcome.near_misses:
        misses = tuple((m.why.value, "\n".join((f"{m.why.text}: {m.detail}", *m.tree))) for m in outcome.near_misses)
        tables.append(Table("Near misses", ("reason", "what was seen"), misses))
    return tuple(tables)
