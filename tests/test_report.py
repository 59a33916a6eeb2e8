"""Renderers, and writing files."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest
from junitparser import JUnitXml
from rich.console import Console

from rmsnorm_onnx import report
from rmsnorm_onnx.files import write_atomically
from rmsnorm_onnx.report import Case, Report, Status, Table

NASTY = '<script>alert("|*_`")</script> & [red]x[/red]\x1b'


@pytest.fixture
def result() -> Report:
    return Report(
        title="Parity",
        status=Status.FAILED,
        verdict="1 of 2 outputs differs",
        facts=(("seed", "0"), ("name", NASTY)),
        tables=(Table("outputs", ("output", "ulps"), (("logits", "3.5"), (NASTY, "inf"))),),
        document={"schema_version": 1, "worst": float("inf"), "rows": ({"nan": float("nan"), "minus": -0.5},)},
        cases=(
            Case("logits", Status.PASSED),
            Case(NASTY, Status.FAILED, f"too far {NASTY}"),
            Case("c", Status.SKIPPED, "why"),
        ),
    )


def test_a_row_must_have_one_cell_per_column():
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        Table("t", ("a", "b"), (("1",),))


def test_text_shows_everything_and_ends_with_the_verdict(result):
    out = io.StringIO()
    report.print_text(result, Console(file=out, width=200, no_color=True))
    lines = out.getvalue().splitlines()
    assert lines[0] == "Parity"
    assert "seed: 0" in lines
    assert any("logits" in line and "3.5" in line for line in lines)
    # Square brackets are rich's markup; in a name they are text.
    assert any("[red]x[/red]" in line for line in lines)
    assert lines[-1] == "1 of 2 outputs differs"


def test_text_folds_rather_than_cuts():
    out = io.StringIO()
    table = Table("t", ("name",), (("abcdefghij" * 10,),))
    report.print_text(Report("t", Status.PASSED, "v", (), (table,), {}), Console(file=out, width=40))
    assert "…" not in out.getvalue()
    assert out.getvalue().count("abcdefghij") >= 6


def test_json_is_one_strict_document(result):
    text = report.to_json(result)
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document == {"schema_version": 1, "worst": "inf", "rows": [{"nan": "nan", "minus": -0.5}]}


def test_json_needs_a_schema_version_and_json_values():
    with pytest.raises(ValueError, match="schema_version"):
        report.to_json(Report("t", Status.PASSED, "v", (), (), {}))
    with pytest.raises(TypeError):
        report.to_json(Report("t", Status.PASSED, "v", (), (), {"schema_version": 1, "x": object()}))


def test_markdown_tables_survive_any_cell(result):
    lines = report.to_markdown(result).splitlines()
    assert lines[0] == "## Parity"
    assert "**1 of 2 outputs differs**" in lines
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 4
    for row in rows:
        assert row.replace("\\|", "").count("|") == 3
    assert "<script>" not in report.to_markdown(result).replace("\\<", "")


def test_junit_has_one_case_per_case(result):
    suites = JUnitXml.fromstring(report.to_junit(result).encode())
    (suite,) = suites
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (3, 1, 1, 0)
    cases = list(suite)
    assert cases[0].is_passed
    assert cases[1].result[0].message.startswith("too far <script>")
    assert cases[2].result[0].message == "why"


def test_junit_without_cases_is_the_report_itself():
    (suite,) = JUnitXml.fromstring(report.to_junit(Report("t", Status.FAILED, "no", (), (), {})).encode())
    assert suite.failures == 1
    assert next(iter(suite)).result[0].message == "no"


def test_html_is_one_offline_page_and_escapes(result):
    page = report.to_html(result)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert 'class="verdict failed"' in page


def test_writing_replaces_and_keeps_permissions(tmp_path: Path):
    target = tmp_path / "report.json"
    write_atomically(target, "first")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    target.chmod(0o640)
    write_atomically(target, b"second \xff")
    assert target.read_bytes() == b"second \xff"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "report.json"
    target.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_writing_into_a_missing_folder_fails(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", "x")
