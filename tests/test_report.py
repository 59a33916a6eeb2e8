"""Renderers: every form of one report, whatever characters and however many rows it holds."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from junitparser import JUnitXml
from rich.console import Console

from rmsnorm_onnx import report
from rmsnorm_onnx.report import BarChart, Case, Report, Status, Table, html

#: Markup of every form, an escape sequence, a mark that turns the writing, and half a character.
NASTY = '<script>alert("|*_`@$~#\'")</script> & [red]x[/red]\x1b[31m\u202e\ud800'
FORBIDDEN = "\x1b\u202e\ud800"
HASH = "0123456789abcdef" * 4
COMMAND = "rmsnorm-onnx verify " + "some/long/folder/" * 6 + "model.onnx fused.onnx"


@pytest.fixture
def result() -> Report:
    return Report(
        title="Parity",
        status=Status.FAILED,
        verdict="1 of 2 outputs differs",
        facts=(("seed", "0"), ("name", NASTY)),
        tables=(
            Table("outputs", ("output", "ulps"), ((NASTY, "1,234.5"), ("logits", "inf")), failed=1),
            Table("worst elements", ("output", "at"), (("logits", "[0, 1]"),), detail=True),
        ),
        document={"schema_version": 1, "worst": float("inf"), "rows": ({"nan": float("nan"), "minus": -0.5},)},
        cases=(
            Case("logits", Status.PASSED, group="set 1.5"),
            Case(NASTY, Status.FAILED, f"too far {NASTY}\nsecond line", group="set 1.5"),
            Case("c", Status.SKIPPED, "why", group="near misses"),
            Case("c", Status.SKIPPED, "why", group="near misses"),
        ),
        charts=(
            BarChart(
                f"errors of {NASTY}", "ulps", ("0.5", "1", ">1"), (("original", (10**6, 3, 0)), (NASTY, (9, 1, 1)))
            ),
        ),
        repeat=(("sha256", HASH),),
        command=COMMAND,
        file=f"fused {NASTY}.onnx",
        seconds=0.25,
    )


def text_of(result: Report, width: int = 80) -> list[str]:
    out = io.StringIO()
    report.print_text(result, Console(file=out, width=width, no_color=True))
    return out.getvalue().splitlines()


def test_a_row_must_have_one_cell_per_column():
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        Table("t", ("a", "b"), (("1",),))
    with pytest.raises(ValueError, match="expected 2 counts, got 1"):
        BarChart("t", "ulps", ("1", "2"), (("a", (1,)),))


def test_number_columns_hold_nothing_but_numbers():
    rows = (("1.5e+10", "inf", "x1", "-", "", "1.2 / 3"), ("-", "1,234.5", "2", "-", "", "-"))
    assert Table("t", tuple("abcdef"), rows).number_columns == (True, True, False, True, False, True)
    assert Table("t", ("a",), ()).number_columns == (False,)


def test_text_shows_what_matters_and_ends_with_the_verdict(result):
    lines = text_of(result)
    assert lines[0] == "Parity"
    assert "seed: 0" in lines
    # Square brackets are rich's markup; in a name they are text.
    assert any("[red]x[/red]" in line for line in lines)
    assert any("too far" in line for line in lines)
    assert "worst elements" not in lines
    assert COMMAND in " ".join(lines)
    assert f"repeat: {COMMAND}" in lines
    assert f"sha256: {HASH[:12]}" in lines
    assert lines[-1] == "1 of 2 outputs differs"


def test_text_fits_80_columns_and_breaks_no_number():
    numbers = tuple(f"-1.234567{n}e-05" for n in range(4))
    table = Table("t", ("name", "a", "b", "c", "d"), (("abcdefghij" * 10, *numbers),))
    lines = text_of(Report("t", Status.PASSED, "v " * 100, (("fact", "word " * 40),), (table,), {}))
    assert max(map(len, lines)) <= 80
    assert all(any(number in line for line in lines) for number in numbers)
    # Names are folded, not cut.
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    assert "abcdefghij" * 10 in "".join(line.split(" ")[0] for line in lines)


def test_a_table_too_wide_for_the_terminal_loses_no_column():
    numbers = tuple(f"-1.2345678{n}e-05" for n in range(8))
    lines = text_of(Report("t", Status.PASSED, "v", (), (Table("t", tuple("abcdefgh"), (numbers,)),), {}))
    assert any(all(number in line for number in numbers) for line in lines)


def test_json_is_one_strict_document(result):
    text = report.to_json(result)
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert document == {"schema_version": 1, "worst": "inf", "rows": [{"nan": "nan", "minus": -0.5}]}
    assert report.to_json(replace(result, document={"schema_version": 1, "name": NASTY})).encode()


def test_json_needs_a_schema_version_and_json_values():
    with pytest.raises(ValueError, match="schema_version"):
        report.to_json(Report("t", Status.PASSED, "v", (), (), {}))
    with pytest.raises(TypeError):
        report.to_json(Report("t", Status.PASSED, "v", (), (), {"schema_version": 1, "x": object()}))


def test_no_form_lets_a_character_through_that_a_terminal_or_a_parser_obeys(result):
    for text in (
        "\n".join(text_of(result)),
        *(f(result) for f in (report.to_markdown, report.to_junit, report.to_html)),
    ):
        assert not set(FORBIDDEN) & set(text)
        assert "\N{REPLACEMENT CHARACTER}" in text
        assert text.encode()


def test_markdown_says_first_what_failed_and_folds_the_rest(result):
    text = report.to_markdown(result)
    places = [text.index(part) for part in ("## Parity", "**1 of 2", "too far", "### outputs", "<details>", COMMAND)]
    assert places == sorted(places)
    assert text.count("<details>") == text.count("</details>") == 2
    assert f"```sh\n{COMMAND}\n```" in text
    assert HASH in text


def test_markdown_tables_survive_any_cell(result):
    rows = [line for line in report.to_markdown(result).splitlines() if line.startswith("| ")]
    assert len(rows) == 7
    for row in rows:
        assert row.replace("\\|", "").count("|") == 3
    assert "<script>" not in report.to_markdown(result).replace("\\<", "")
    assert not re.search(r"(?<!\\)[*_`$~]alert|(?<!&#64;)@", report.to_markdown(result))


def test_a_command_cannot_end_its_block_of_code(result):
    assert "````sh\necho ```\n````\n" in report.to_markdown(replace(result, command="echo ```"))


def test_markdown_fits_a_job_summary_whatever_the_report_holds(result):
    many = Table("many", ("a",), tuple((f"row {number}",) for number in range(5000)), failed=2)
    text = report.to_markdown(replace(result, tables=(many,)))
    assert "row 19 |" in text.partition("<details>")[0]
    assert "row 20 |" not in text.partition("<details>")[0]
    assert "row 219 |" in text
    assert "and 4,780 more" in text
    huge = Table("huge", ("a",) * 9, ((NASTY * 10_000,) * 9,) * 5000)
    text = report.to_markdown(replace(result, verdict=NASTY * 10_000, tables=(huge,) * 5))
    assert len(text.encode()) < 2**20
    assert "parts were too long to be shown here" in text


def test_junit_is_what_viewers_read(result):
    root = ElementTree.fromstring(report.to_junit(result).encode())
    check_junit(root)
    assert [suite.get("name") for suite in root] == ["set 1.5", "near misses"]
    assert root.attrib == {
        "name": "Parity",
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
        "time": "0.250",
    }
    properties = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert properties["seed"] == "0"
    assert properties["sha256"] == HASH
    assert properties["command"] == COMMAND
    (failure,) = root.iter("failure")
    assert failure.get("message").startswith("too far <script>")
    assert "second line" not in failure.get("message")
    assert failure.text.splitlines()[-2:] == ["second line", f"repeat: {COMMAND}"]


def check_junit(root: ElementTree.Element) -> None:
    """The rules of Jenkins' schema, of GitLab (cases unique by class and name) and of whoever adds up the counts."""
    known = {"name", "tests", "failures", "errors", "skipped"}
    assert root.tag == "testsuites"
    assert set(root.attrib) == {*known, "time"}
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) == known
        assert [child.tag for child in suite if child.tag != "testcase"] in ([], ["properties"])
        assert suite.find("properties") in (None, suite[0])
        cases = suite.findall("testcase")
        for tag, count in (("failure", "failures"), ("skipped", "skipped"), ("error", "errors")):
            assert len(list(suite.iter(tag))) == int(suite.get(count))
        assert len(cases) == int(suite.get("tests"))
        for case in cases:
            assert {"name", "classname"} <= set(case.attrib) <= {"name", "classname", "file"}
            assert len(case) <= 1
            assert case.get("classname").count(".") == 1
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names)
    for count in ("tests", "failures", "errors", "skipped"):
        assert int(root.get(count)) == sum(int(suite.get(count)) for suite in root)


def test_a_reader_of_junit_counts_the_same(result):
    first, second = JUnitXml.fromstring(report.to_junit(result).encode())
    assert (first.tests, first.failures, first.skipped, first.errors) == (2, 1, 0, 0)
    assert (second.tests, second.failures, second.skipped, second.errors) == (2, 0, 2, 0)
    assert [case.name for case in second] == ["c", "c (2)"]


def test_junit_without_cases_is_the_report_itself():
    (suite,) = JUnitXml.fromstring(report.to_junit(Report("t", Status.FAILED, "no", (), (), {})).encode())
    assert suite.failures == 1
    assert next(iter(suite)).result[0].message == "no"


class Page(HTMLParser):
    """What a page is made of; raises where a tag is not closed."""

    VOID = ("meta", "rect", "line", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_one_offline_page_and_escapes(result):
    text = report.to_html(result)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert {"script", "link", "img", "iframe", "base"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any({"src", "href", "srcset"} & set(attributes) for _, attributes in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "url(" not in text
    assert "://" not in text
    assert "@import" not in text
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in page.tags)
    assert "<script>alert" in page.text
    assert 'class="verdict failed"' in text
    for part in (COMMAND, HASH, "too far", "worst elements", "second line"):
        assert part in page.text


def test_html_can_be_read_by_a_screen_reader(result):
    page = Page(report.to_html(result))
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")
    tags = [tag for tag, _ in page.tags]
    pictures = [number for number, tag in enumerate(tags) if tag == "svg"]
    assert len(pictures) == 1
    assert tags[pictures[0] + 1 : pictures[0] + 3] == ["title", "desc"]
    assert "original: 0.5 1,000,000, 1 3, >1 0" in page.text
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert set(headings[1:]) == {2}


def luminance(colour: str) -> float:
    full = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(full[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_told_apart_by_day_and_by_night():
    # Contrast as the Web Content Accessibility Guidelines 2.2 have it: 4.5 for text, 3 for graphics.
    themes = re.findall(r":root {(.*?)}", html._STYLE, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        for name, least in {"text": 4.5, "soft": 4.5, "failed": 4.5, "passed": 3, "series0": 3, "series1": 3}.items():
            one, other = sorted((luminance(colours[name]), luminance(colours["back"])))
            assert (other + 0.05) / (one + 0.05) >= least, (name, colours[name])


def test_a_page_of_very_many_rows_stays_readable(result):
    many = Table("many", ("a",), (("x",),) * 5000)
    text = report.to_html(replace(result, tables=(many,), charts=result.charts * 100))
    assert text.count("<td>x</td>") == 1000
    assert "and 4000 more" in text
    assert text.count("<svg") == 24


@pytest.mark.parametrize(("counts", "labels"), [((0, 0), 0), ((1, 0), 1), ((10**12, 7), 4)])
def test_a_chart_of_any_counts_stays_inside_its_frame(counts, labels):
    from rmsnorm_onnx.report.svg import to_svg

    root = ElementTree.fromstring(to_svg(BarChart("t", "ulps", ("a", "b" * 50), (("s", counts),))))
    bars = [bar for bar in root.iter("rect") if bar.find("title") is not None]
    assert len(bars) == sum(count > 0 for count in counts)
    for bar in bars:
        assert 0 <= float(bar.get("y")) <= float(bar.get("y")) + float(bar.get("height")) <= 220
        assert float(bar.get("height")) > 1
    assert len(list(root.iter("line"))) >= labels
