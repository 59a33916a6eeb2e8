"""What a verification says: one record per output, and everything needed to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1


class Verdict(Enum):
    """Whether an output of the fused model equals the original's, and if not, in what it differs."""

    IDENTICAL = "identical"
    WITHIN_BOUND = "equal within the derived bound"
    MISSING = "missing"
    DTYPE = "another element type"
    SHAPE = "another shape"
    VALUES = "different values where there is no rounding"
    NON_FINITE = "NaN or inf in one model only"
    FUNCTION = "another function: the models differ even without rounding"
    ROUNDING = "further from the exact result than the original's rounding explains"

    @property
    def ok(self) -> bool:
        """Whether this is a yes."""
        return self in {Verdict.IDENTICAL, Verdict.WITHIN_BOUND}


@dataclass(frozen=True, slots=True)
class Worst:
    """The element with the largest error relative to its bound.

    Attributes:
        index: in the output.
        got: value in the fused model.
        expected: value in the original.
        exact: value in the float64 run of the original, or None where there is none.
        ulps: |got - expected| in units in the last place of the output's type at ``expected``.
        share: error divided by its bound; more than 1 is a mismatch.
    """

    index: tuple[int, ...]
    got: float
    expected: float
    exact: float | None
    ulps: float
    share: float


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output.

    Attributes:
        name: of the output.
        dtype: element type in the original.
        shape: in the original.
        verdict: equal or not.
        max_abs_error: largest |fused - original|; inf if a NaN or inf is in one only, None if not comparable.
        worst: the worst element; None if there are no elements or the arrays cannot be compared.
        original_error: rms of original minus exact, in units of roundoff of the dtype at the output's rms.
        fused_error: the same for fused minus exact.
        noise: the same for the largest of the original's own sampled rounding errors.
        function_share: largest difference of the two float64 runs divided by its bound; None if not computed.
        detail: what differs, in words; empty for a yes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    verdict: Verdict
    max_abs_error: float | None = None
    worst: Worst | None = None
    original_error: float | None = None
    fused_error: float | None = None
    noise: float | None = None
    function_share: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: its name, the hash of its file or bytes, who ran it, and why no plainer way worked."""

    name: str
    sha256: str
    how: str
    passed_over: tuple[str, ...]
    exact: str


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Answer of ``verify``.

    Attributes:
        outputs: one record per output of either model, and per quantizer whose input differs (``runtime.steps``).
        original: how the original ran.
        fused: how the fused model ran.
        dims: the value of each free dimension.
        feeds: where the inputs come from.
        seed: of everything random.
        samples: number of sampled rounding runs (0 if none was needed).
        versions: of the packages that matter.
        notes: what a reader should know about the comparison itself.
    """

    outputs: tuple[OutputParity, ...]
    original: Side
    fused: Side
    dims: Mapping[str, int]
    feeds: str
    seed: int
    samples: int
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every output is equal."""
        return all(output.verdict.ok for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values (non-finite numbers are left to the writer)."""
        document = {"schema_version": SCHEMA_VERSION, "ok": self.ok, **asdict(self)}
        for record, output in zip(document["outputs"], self.outputs, strict=True):
            record["verdict"] = output.verdict.name.lower().replace("_", "-")
            record["ok"] = output.verdict.ok
        return document

    def report(self) -> Report:
        """The report in the form that every renderer takes."""
        wrong = sum(not output.verdict.ok for output in self.outputs)
        text = (
            f"equal: {len(self.outputs)} of {len(self.outputs)} outputs"
            if self.ok
            else f"NOT equal: {wrong} of {len(self.outputs)} outputs differ"
        )
        return Report(
            title="Parity of original and fused model",
            status=Status.PASSED if self.ok else Status.FAILED,
            verdict=text,
            facts=self._facts(),
            tables=(_verdicts(self.outputs), _worst_elements(self.outputs)),
            cases=tuple(
                Case(o.name, Status.PASSED if o.verdict.ok else Status.FAILED, o.detail or o.verdict.value)
                for o in self.outputs
            ),
            document=self.to_dict(),
        )

    def _facts(self) -> tuple[tuple[str, str], ...]:
        dims = ", ".join(f"{name}={value}" for name, value in self.dims.items())
        facts = [
            ("original", f"{self.original.name} ({self.original.sha256[:12]}), run by {self.original.how}"),
            ("fused", f"{self.fused.name} ({self.fused.sha256[:12]}), run by {self.fused.how}"),
            ("exact runs", f"original: {self.original.exact}; fused: {self.fused.exact}"),
            ("dimensions", dims or "all fixed"),
            ("inputs", self.feeds),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
        ]
        return (*facts, *(("note", note) for note in self.notes))


def _verdicts(outputs: tuple[OutputParity, ...]) -> Table:
    columns = ("output", "type and shape", "verdict", "max abs error", "ulps", "error / bound")
    rows = tuple(
        (
            o.name,
            f"{o.dtype}[{', '.join(map(str, o.shape))}]",
            o.verdict.value,
            _number(o.max_abs_error),
            _number(o.worst.ulps if o.worst else None),
            _number(o.worst.share if o.worst else None),
        )
        for o in outputs
    )
    return Table("outputs", columns, rows)


def _worst_elements(outputs: tuple[OutputParity, ...]) -> Table:
    columns = ("output", "worst at", "fused", "original", "float64", "rms error: original", "rms error: fused")
    rows = tuple(
        (
            o.name,
            str(list(o.worst.index)),
            _number(o.worst.got, 9),
            _number(o.worst.expected, 9),
            _number(o.worst.exact, 9),
            _number(o.original_error, unit=" u"),
            _number(o.fused_error, unit=" u"),
        )
        for o in outputs
        if o.worst is not None
    )
    return Table("worst elements, and errors against float64 in roundoffs u of the type", columns, rows)


def _number(value: float | None, digits: int = 3, unit: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}g}{unit}"
