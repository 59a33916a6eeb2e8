"""A report as JUnit XML, as Jenkins, GitLab, Azure, Buildkite and GitHub's reporters read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

from rmsnorm_onnx.report.characters import printable
from rmsnorm_onnx.report.content import Case, Report, Status

_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'


def to_junit(report: Report) -> str:
    """JUnit XML: a suite per group of cases, with counts; facts are properties of the first suite."""
    groups: dict[str, list[Case]] = {}
    for case in report.cases or (Case(report.title, report.status, report.verdict),):
        groups.setdefault(case.group, []).append(case)
    root = ElementTree.Element("testsuites", _attributes(report.title, [c for cases in groups.values() for c in cases]))
    if report.seconds is not None:
        root.set("time", f"{report.seconds:.3f}")
    for number, (group, cases) in enumerate(groups.items()):
        suite = ElementTree.SubElement(root, "testsuite", _attributes(group or report.title, cases))
        if number == 0:
            _add_properties(suite, report)
        seen: Counter[str] = Counter()
        for case in cases:
            seen[case.name] += 1
            # Viewers take two cases of one name and class for one case that ran twice.
            name = case.name if seen[case.name] == 1 else f"{case.name} ({seen[case.name]})"
            _add_case(suite, name, case, report)
    ElementTree.indent(root)
    return _DECLARATION + ElementTree.tostring(root, encoding="unicode") + "\n"


def _attributes(name: str, cases: Sequence[Case]) -> dict[str, str]:
    count = Counter(case.status for case in cases)
    return {
        "name": printable(name),
        "tests": str(len(cases)),
        "failures": str(count[Status.FAILED]),
        "errors": "0",
        "skipped": str(count[Status.SKIPPED]),
    }


def _add_properties(suite: ElementTree.Element, report: Report) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    command = (("command", report.command),) if report.command else ()
    for label, line in (*report.facts, *report.repeat, *command):
        ElementTree.SubElement(properties, "property", {"name": printable(label), "value": printable(line)})


def _add_case(suite: ElementTree.Element, name: str, case: Case, report: Report) -> None:
    # What stands before the last dot is a package to Jenkins.
    classname = ".".join(part.replace(".", "_") for part in (report.title, case.group) if part)
    attributes = {"name": printable(name), "classname": printable(classname)}
    if report.file:
        attributes["file"] = printable(report.file)
    entry = ElementTree.SubElement(suite, "testcase", attributes)
    if case.status is Status.PASSED:
        return
    message = printable(case.message)
    first = {"message": message.partition("\n")[0]}
    if case.status is Status.SKIPPED:
        ElementTree.SubElement(entry, "skipped", first)
        return
    failure = ElementTree.SubElement(entry, "failure", {**first, "type": "mismatch"})
    failure.text = message + (f"\nrepeat: {printable(report.command)}" if report.command else "")
