"""What there is here, and whether the compiled library answers and is right: the facts that a bug report needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rmsnorm_onnx import library
from rmsnorm_onnx.environment import PACKAGES, machine, versions_of
from rmsnorm_onnx.errors import RmsNormError
from rmsnorm_onnx.report import Case, Report, Status, Table
from rmsnorm_onnx.selftest import Check, self_test


@dataclass(frozen=True, slots=True)
class Info:
    """What there is.

    Attributes:
        versions: of Python and the packages that matter.
        machine: system, architecture, processor.
        providers: onnxruntime's execution providers; none without onnxruntime.
        library: the library's own words, or None.
        self_test: every operator in every type, run once; empty if that could not be.
        problem: why the library does not answer or the test does not run, or what the test found; empty if all is well.
    """

    versions: Mapping[str, str]
    machine: str
    providers: tuple[str, ...]
    library: library.LibraryInfo | None
    self_test: tuple[Check, ...]
    problem: str

    @property
    def ok(self) -> bool:
        """Whether the library answers and the self-test is passed."""
        return not self.problem

    def report(self) -> Report:
        """The result for any renderer; on a terminal it fits one screen of 24 lines."""
        tested = f"{len(self.self_test)} kernels run and are within their bounds"
        return Report(
            title="rmsnorm-onnx info",
            status=Status.PASSED if self.ok else Status.FAILED,
            verdict=f"the compiled library answers; {tested}" if self.ok else self.problem,
            facts=(
                ("machine", self.machine),
                *(_library_facts(self.library) if self.library is not None else ()),
                ("providers", ", ".join(self.providers) or "none: onnxruntime is not installed"),
                ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
            ),
            tables=(_self_test_table(self.self_test),) if self.self_test else (),
            document={
                "schema_version": 1,
                "command": "info",
                "ok": self.ok,
                "versions": dict(self.versions),
                "machine": self.machine,
                "providers": self.providers,
                "library": asdict(self.library) if self.library is not None else None,
                "self_test": [{**asdict(check), "ok": check.ok} for check in self.self_test],
                "problem": self.problem,
            },
            cases=tuple(
                Case(f"{c.op} {c.dtype}", Status.PASSED if c.ok else Status.FAILED, _found(c), group="self-test")
                for c in self.self_test
            ),
        )


def _library_facts(about: library.LibraryInfo) -> list[tuple[str, str]]:
    sets = (f"{isa} (in use)" if isa == about.isa_active else isa for isa in about.isa_supported)
    facts = [("library", f"{about.path} ({about.size_bytes:,} bytes)"), ("instruction sets", ", ".join(sets))]
    if about.cuda is None:
        return [*facts, ("CUDA", "not compiled in")]
    device = about.cuda.device
    text = device if isinstance(device, str) else ", ".join(f"{name} {value}" for name, value in device.items())
    return [*facts, ("CUDA", f"compiled for {', '.join(about.cuda.architectures)}"), ("GPU", text)]


def _self_test_table(checks: tuple[Check, ...]) -> Table:
    """Operators by types; the bound is only told where it is exceeded."""
    types = tuple(dict.fromkeys(check.dtype for check in checks))
    cells = {(check.op, check.dtype): f"{check.max_ulps:.3g}" + ("" if check.ok else " WRONG") for check in checks}
    rows = tuple((op, *(cells[op, dtype] for dtype in types)) for op in dict.fromkeys(check.op for check in checks))
    return Table("Self-test on the CPU: largest error in ulps", ("operator", *types), rows)


def _found(check: Check) -> str:
    return f"up to {check.max_ulps:.3g} ulps from float64, {check.bound_ulps:.3g} are allowed"


def info() -> Info:
    """Look around, and run the self-test; nothing that is missing raises."""
    answer: library.LibraryInfo | None = None
    checks: tuple[Check, ...] = ()
    try:
        answer = library.info()
        checks = self_test()
        wrong = [f"{check.op} in {check.dtype}" for check in checks if not check.ok]
        problem = f"the library is WRONG, the self-test failed: {', '.join(wrong)}" if wrong else ""
    except RmsNormError as error:
        problem = str(error)
    return Info(versions_of(PACKAGES), machine(), _providers(), answer, checks, problem)


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime
    except ImportError:
        return ()
    return tuple(onnxruntime.get_available_providers())
