"""Skips what an old release cannot do; prints, after the tests, what the exports showed: norms, nodes, parity."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator

import pytest
from versions import lacking

PARITY = "parity"
# Before onnxruntime is imported: models made by tests are not reported by it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo is not None:
        reason = lacking(f"{item.nodeid}\n{_words(call.excinfo.value)}")
        if reason is not None:
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {reason}")
    return report


def _words(error: BaseException | None) -> str:
    """Of an error and what it came from."""
    return f"{error}\n{_words(error.__cause__ or error.__context__)}" if error is not None else ""


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for key, value in getattr(report, "user_properties", ()):
            if key == PARITY:
                name, column, text = value
                rows[name][column] = text
    if not rows:
        return
    columns = ("norms", "fused", "library", "body")
    terminalreporter.section("exports: norms that ran, nodes fused, parity with the library and by function bodies")
    width = max(map(len, rows))
    terminalreporter.write_line(f"{'':{width}}  " + "  ".join(f"{column:24}" for column in columns))
    for name, row in sorted(rows.items()):
        terminalreporter.write_line(f"{name:{width}}  " + "  ".join(f"{row.get(c, ''):24}" for c in columns))
