"""For test suites: an assertion that a model and its fused form are equal. Works in any test framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rmsnorm_onnx import runtime
from rmsnorm_onnx.api import optimize, verify
from rmsnorm_onnx.parity import ParityReport
from rmsnorm_onnx.report import Report, Status

#: Failures and near misses told in a message; the report has all.
_TOLD: Final = 5


def assert_parity(
    original: runtime.Model, fused: runtime.Model | None = None, *, require: int = 0, **arguments: Any
) -> ParityReport:
    """Fail unless ``fused`` equals ``original`` on every set of inputs, and holds at least ``require`` RMS norms.

    Args:
        original: path, ``onnx.ModelProto`` or ``onnx_ir.Model``; it is not changed.
        fused: likewise; without it, what ``optimize`` makes of ``original``.
        require: number of norm nodes that the fused model must hold, against the silent "nothing was fused".
        arguments: any other of ``rmsnorm_onnx.verify``, such as ``dims``, ``inputs``, ``seed`` or ``library``.

    Returns:
        The report of the verification.

    Raises:
        AssertionError: they differ, or too few norms are fused; the message says in what, where most, and how to
            repeat it.
        InvalidInput: a file, dimension or input that does not fit, or models with different inputs.
        CannotRun: a model cannot run; LibraryMissing: the library is wanted and missing.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    if fused is None:
        fused = runtime.load(original).model.clone()
        optimize(fused)
    result = verify(original, fused, **arguments)
    problems = list(_too_few(result, require)) if len(result.fusions) < require else []
    if not result.ok or problems:
        raise AssertionError("\n".join([*problems, *_lines(result.report())]))
    return result


def _too_few(result: ParityReport, require: int) -> Iterator[str]:
    yield f"{len(result.fusions)} RMS norms are fused, {require} required; near misses: {len(result.near_misses)}"
    for miss in result.near_misses[:_TOLD]:
        yield f"  {miss.node}: {miss.reason}: {miss.detail}"


def _lines(report: Report) -> Iterator[str]:
    """The report in short."""
    yield report.verdict
    failed = [case for case in report.cases if case.status is Status.FAILED]
    for case in failed[:_TOLD]:
        yield f"{case.name} ({case.group}): {case.message}"
    if len(failed) > _TOLD:
        yield f"and {len(failed) - _TOLD} more"
    for label, line in (*report.facts, *report.repeat):
        yield f"{label}: {line}"
    if report.command:
        yield f"repeat: {report.command}"
