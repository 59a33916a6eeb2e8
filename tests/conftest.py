"""Prints, after the tests, what the exports showed: norms that ran, nodes fused, parity in both ways of running."""

from __future__ import annotations

from collections import defaultdict

import pytest

PARITY = "parity"


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
