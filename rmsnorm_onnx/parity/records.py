"""What a verification says: per set of inputs, per output and per fused node, and how to repeat it all. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rmsnorm_onnx.report import Report

SCHEMA_VERSION: Final = 2


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
    NODE = "outside the bound of the operator"

    @property
    def ok(self) -> bool:
        """Whether this is a yes."""
        return self in {Verdict.IDENTICAL, Verdict.WITHIN_BOUND}


@dataclass(frozen=True, slots=True)
class Worst:
    """One of the elements with the largest errors relative to their bounds.

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
class Histogram:
    """How many elements have which error against the float64 run, in ulps of the output's type at the exact value.

    Attributes:
        edges: ascending; bin i holds errors in (edges[i-1], edges[i]], bin 0 those up to edges[0] = 0.5, which are
            correctly rounded, and one last bin everything above edges[-1], inf included.
        original, fused: elements per bin (len(edges) + 1) for each model.
    """

    edges: tuple[float, ...]
    original: tuple[int, ...]
    fused: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output on one set of inputs.

    Attributes:
        inputs: name of the InputSet.
        name: of the output.
        dtype, shape: in the original.
        verdict: equal or not.
        max_abs_error: largest |fused - original|; inf if a NaN or inf is in one only, None if not comparable.
        worst: at most ten elements, the largest share first; none if the arrays cannot be compared.
        original_error: rms of original minus exact, in roundoffs of the dtype at the output's rms; inf where one has
            a NaN or inf that the other, rounded to the dtype, has not. None without float64 run.
        fused_error: the same for fused minus exact.
        noise: the same for the largest of the original's own sampled rounding errors.
        margin: factor by which the rms errors of two runs of one model may differ by chance (``outputs.margin``).
        function_share: largest difference of the two float64 runs divided by its bound; None if not computed.
        histogram: of the errors; None where there is no float64 run.
        detail: what differs, in words; empty for a yes.
    """

    inputs: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    verdict: Verdict
    max_abs_error: float | None = None
    worst: tuple[Worst, ...] = ()
    original_error: float | None = None
    fused_error: float | None = None
    noise: float | None = None
    margin: float | None = None
    function_share: float | None = None
    histogram: Histogram | None = None
    detail: str = ""

    @property
    def nearer(self) -> str | None:
        """Which model's rms error is smaller: "original", "fused", "neither" by ``margin``; None if it is unknown."""
        left, right, margin = self.original_error, self.fused_error, self.margin
        if left is None or right is None or margin is None:
            return None
        if left == right or max(left, right) <= margin * min(left, right):
            return "neither"
        return "original" if left < right else "fused"


SUBGRAPH, BODY, KERNEL = "original subgraph", "function body", "kernel"


@dataclass(frozen=True, slots=True)
class Reading:
    """One way of computing a fused node on its captured inputs, against the float64 oracle.

    Attributes:
        how: SUBGRAPH, BODY or KERNEL.
        max_ulps: largest error against the oracle in ulps of the output's type; inf where NaN or inf differ.
        rms_ulps: root mean square of the same.
        bound_ulps: what width, types and order of roundings allow (``parity.readings``); None where that is unknown.
        ok: within the bound (True where there is none).
        why_not: why this reading could not be run; empty if it was.
    """

    how: str
    max_ulps: float | None
    rms_ulps: float | None
    bound_ulps: float | None
    ok: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class NodeParity:
    """One fused node on one set of inputs, computed in up to three ways on the inputs that it really got.

    Attributes:
        inputs: name of the InputSet.
        node, op: its name and its operator.
        output: name of the value it gives.
        dtype, shape: of that value.
        width: elements in one mean.
        replaced: nodes of the original subgraph, 0 if unknown.
        readings: in the order original subgraph, function body, kernel.
        worst: worst element of the kernel, else of the body; expected is the original subgraph's value if that ran,
            else the oracle's.
        detail: what is out of bounds, in words; empty for a yes.
        iterations: number of the iteration, the first or last that ran it, of each loop around it, outermost first.
    """

    inputs: str
    node: str
    op: str
    output: str
    dtype: str
    shape: tuple[int, ...]
    width: int
    replaced: int
    readings: tuple[Reading, ...]
    worst: Worst | None = None
    detail: str = ""
    iterations: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether body and kernel are within their bounds; what the old subgraph does is the original's affair."""
        return all(reading.ok for reading in self.readings if reading.how != SUBGRAPH)


@dataclass(frozen=True, slots=True)
class Run:
    """How one model ran on one set of inputs: who ran it, why no plainer way worked, and who ran it in float64."""

    how: str
    passed_over: tuple[str, ...]
    exact: str


@dataclass(frozen=True, slots=True)
class InputSet:
    """What both models were fed.

    Attributes:
        name: short and unique in the report, e.g. "batch=2 seq=7 range [-1000, 1000]", "test_data_set_0".
        dims: value of each free dimension.
        origin: where the values come from: "seed 0", a range, a file's name.
        original, fused: how they ran.
        notes: what a reader should know about the comparison on this set.
    """

    name: str
    dims: Mapping[str, int]
    origin: str
    original: Run
    fused: Run
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model: its path or name, and the hash of its files or bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Fusion:
    """One node of the fused model that stands for an RMS norm, and what the original had there.

    Attributes:
        op, node: the operator, and the node's name.
        output: name of the value it gives.
        pattern, replaced: operators (joined by dashes) and names of what it replaced; empty if the original hides them.
    """

    op: str
    node: str
    output: str
    pattern: str
    replaced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Something in the fused model that only looks like an RMS norm: where, why it is none, and what was found."""

    node: str
    why: str
    reason: str
    detail: str
    tree: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """How to repeat a verification.

    Attributes:
        command: for a POSIX shell; empty when models or inputs were given as objects.
        seed, samples: of everything random, and the number of sampled rounding runs (0 if none was needed).
        versions: of the packages that matter.
        machine: system, architecture, CPU model.
        isa: instruction set that the library used, empty without the library.
        providers: onnxruntime execution providers that ran the models.
    """

    command: str
    seed: int
    samples: int
    versions: Mapping[str, str]
    machine: str
    isa: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Answer of ``verify``.

    Attributes:
        original, fused: the models.
        sets: of inputs.
        outputs: per set, one per output of either model, and per quantizer whose input differs (``runtime.steps``).
        nodes: fused nodes on their own; empty unless asked for.
        fusions, near_misses: nodes of the fused model that stand for an RMS norm, and what only looks like one there.
        repeat: how to repeat it.
        seconds: that the verification took, loading included; None if not measured. Not a part of the document.
    """

    original: ModelFile
    fused: ModelFile
    sets: tuple[InputSet, ...]
    outputs: tuple[OutputParity, ...]
    nodes: tuple[NodeParity, ...]
    fusions: tuple[Fusion, ...]
    near_misses: tuple[NearMiss, ...]
    repeat: Repeat
    seconds: float | None = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """Whether every output is equal and every node within its bound."""
        return all(output.verdict.ok for output in self.outputs) and all(node.ok for node in self.nodes)

    def report(self) -> Report:
        """The report in the form that every renderer takes."""
        from rmsnorm_onnx.parity.present import report

        return report(self)
