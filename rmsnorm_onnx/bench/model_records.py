"""What a benchmark of models says: times by model, where they go, and tables and JSON of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rmsnorm_onnx.bench.machine import Machine
from rmsnorm_onnx.bench.profile import OpTime
from rmsnorm_onnx.bench.timing import Ratio, Times
from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1
#: Operator types shown; the others are summed up.
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Timed:
    """One model.

    Attributes:
        name: of the file, or what it is.
        sha256: of the file and its data, or of the serialized model.
        equal: whether its outputs equal those of the first model; None where that was not, or cannot be, checked.
        check: the same in words.
        load_ms: milliseconds to make the session.
        first_ms: milliseconds of the first run.
        times: of the runs after that, in seconds.
        ratio: how many times as fast it is as the first model.
        profile: where the time of a run goes.
    """

    name: str
    sha256: str
    equal: bool | None
    check: str
    load_ms: float
    first_ms: float
    times: Times
    ratio: Ratio
    profile: tuple[OpTime, ...]

    @property
    def profiled_ms(self) -> float:
        """Milliseconds in all nodes of a run."""
        return sum(op.ms for op in self.profile)

    @property
    def norm_ms(self) -> float:
        """Milliseconds in RMS norms."""
        return sum(op.ms for op in self.profile if op.norm)


@dataclass(frozen=True, slots=True)
class ModelBenchmark:
    """Answer of ``benchmark``.

    Attributes:
        machine: what it ran on.
        models: in the order given; the first is what the others are compared with.
        dims: the value of each free dimension.
        feeds: where the inputs come from.
        threads: inside one operator.
    """

    machine: Machine
    models: tuple[Timed, ...]
    dims: Mapping[str, int]
    feeds: str
    threads: int

    @property
    def ok(self) -> bool:
        """Whether no model's outputs differ from the first model's."""
        return all(model.equal is not False for model in self.models)

    def report(self) -> Report:
        """The result in the form that every renderer takes."""
        dims = ", ".join(f"{name}={value}" for name, value in self.dims.items())
        facts = [
            ("machine", self.machine.line()),
            ("threads", str(self.threads)),
            ("dimensions", dims or "all fixed"),
            ("inputs", self.feeds),
            ("onnxruntime", "all graph optimizations, inputs and outputs bound, runs of all models in turns"),
        ]
        facts += [(model.name, model.check) for model in self.models[1:]]
        return Report(
            title="rmsnorm-onnx benchmark model",
            status=Status.PASSED if self.ok else Status.FAILED,
            verdict=self._verdict(),
            facts=tuple(facts),
            tables=(_times(self.models), _profile(self.models)),
            document={
                "schema_version": SCHEMA_VERSION,
                "command": "benchmark model",
                "ok": self.ok,
                "machine": asdict(self.machine),
                "threads": self.threads,
                "dims": dict(self.dims),
                "feeds": self.feeds,
                "models": [_document(model) for model in self.models],
            },
            cases=tuple(
                Case(m.name, Status.FAILED if m.equal is False else Status.PASSED, m.check) for m in self.models
            ),
        )

    def _verdict(self) -> str:
        different = [model.name for model in self.models if model.equal is False]
        if different:
            return f"outputs DIFFER from those of {self.models[0].name}: {', '.join(different)}"
        parts = [
            f"{model.name}: {_ratio(model.ratio)} times as fast as {self.models[0].name}" for model in self.models[1:]
        ]
        return "; ".join(parts)


def _document(model: Timed) -> dict[str, Any]:
    document = asdict(model)
    times = document.pop("times")
    document["runs"] = times.pop("samples")
    document["ms"] = {name: seconds * 1e3 for name, seconds in times.items()}
    document["norm_ms"] = model.norm_ms
    document["norm_share"] = model.norm_ms / model.profiled_ms if model.profiled_ms else 0.0
    return document


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _times(models: tuple[Timed, ...]) -> Table:
    def row(label: str, text: Callable[[Timed], str]) -> tuple[str, ...]:
        return (label, *(text(model) for model in models))

    rows = (
        row("load", lambda m: f"{m.load_ms:.4g}"),
        row("first run", lambda m: f"{m.first_ms:.4g}"),
        row("p50", lambda m: f"{m.times.p50 * 1e3:.4g}"),
        row("p90", lambda m: f"{m.times.p90 * 1e3:.4g}"),
        row("p99", lambda m: f"{m.times.p99 * 1e3:.4g}"),
        row("mean", lambda m: f"{m.times.mean * 1e3:.4g}"),
        row("runs", lambda m: str(m.times.samples)),
        row("times as fast (95 %)", lambda m: "1" if m is models[0] else _ratio(m.ratio)),
        row("saved in norms, of a run", lambda m: f"{_saved(models[0], m):.1%}"),
        row("outputs", lambda m: "-" if m is models[0] or m.equal is None else "equal" if m.equal else "DIFFERENT"),
    )
    return Table("Runs", ("milliseconds", *(model.name for model in models)), rows)


def _profile(models: tuple[Timed, ...]) -> Table:
    longest: dict[str, float] = {}
    for model in models:
        for op, milliseconds in _rest(model).items():
            longest[op] = max(longest.get(op, 0.0), milliseconds)
    shown = sorted(longest, key=lambda op: -longest[op])[:_SHOWN]
    rows = [("RMS norms", *(_share(m.norm_ms, m) for m in models))]
    rows += [(op, *(_share(_rest(m).get(op, 0.0), m) for m in models)) for op in shown]
    if len(longest) > len(shown):
        rows.append(("others", *(_share(sum(t for o, t in _rest(m).items() if o not in shown), m) for m in models)))
    columns = ("milliseconds in operators", *(model.name for model in models))
    return Table("Where the time goes (by onnxruntime's profiler)", columns, tuple(rows))


def _saved(first: Timed, model: Timed) -> float:
    """The share of a run of the first that the norms of this one take less."""
    return (first.norm_ms - model.norm_ms) / first.profiled_ms if first.profiled_ms else 0.0


def _rest(model: Timed) -> dict[str, float]:
    return {op.op: op.ms for op in model.profile if not op.norm}


def _share(milliseconds: float, model: Timed) -> str:
    return f"{milliseconds:.4g} ({milliseconds / model.profiled_ms:.1%})" if model.profiled_ms else "-"
