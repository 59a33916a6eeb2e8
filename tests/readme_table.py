"""The README's table of exports and docs/refusals.md; run as a script, it writes both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from exports import exports, fused
from zoo import CASES

from rmsnorm_onnx import spec

README = Path(__file__).parent.parent / "README.md"
REFUSALS = README.parent / "docs" / "refusals.md"
BEGIN, END = "<!-- exports -->\n", "<!-- /exports -->"


def executions(model: onnx.ModelProto) -> Counter[str]:
    """How many norm nodes run in one pass, by operator: those of a function count once per call."""
    functions = {(f.domain, f.name): f for f in model.functions if f.domain != spec.DOMAIN}

    def count(nodes) -> Counter[str]:
        total: Counter[str] = Counter()
        for node in nodes:
            if node.domain == spec.DOMAIN:
                total[node.op_type] += 1
            if (node.domain, node.op_type) in functions:
                total += count(functions[node.domain, node.op_type].node)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += count(graph.node)
        return total

    return count(model.graph.node)


def in_words(counts: Counter[str]) -> str:
    """Counts by operator, in short: '1 RMS, 4 Skip'."""
    return ", ".join(f"{n} {op.removesuffix('RMSNormalization') or 'RMS'}" for op, n in sorted(counts.items()))


def table() -> str:
    """One row per export; that the last two columns are true is what test_exports shows."""
    lines = ["| export | norms | fused | with library | by bodies |", "|---|---|---|---|---|"]
    for export in exports():
        counts = executions(fused(export.path))
        lines.append(f"| {export.name} | {export.facts['norms']} | {in_words(counts)} | equal | equal |")
    return "\n".join(lines) + "\n"


def refusals() -> str:
    """Every reason for leaving something alone, with the graphs of the zoo that show it."""
    lines = [
        "# What is left alone, and why",
        "",
        "Written from the graph zoo by `python tests/readme_table.py`; each graph is a test.",
    ]
    for why in spec.Why:
        shown = [f"- `{case.id}`: {case.shows}" for case in CASES if case.why is why]
        lines += ["", f"## {why.value}", "", f"{why.text[0].upper()}{why.text[1:]}.", "", *shown]
        if not shown:
            lines.append("No graph alone shows it: the chosen target decides (`tests/test_targets.py`).")
    return "\n".join(lines) + "\n"


def section() -> str:
    """The table as it stands in the README."""
    return README.read_text().split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    text = README.read_text()
    README.write_text(text.replace(BEGIN + section() + END, BEGIN + table() + END))
    REFUSALS.write_text(refusals())
