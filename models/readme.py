"""Writes the table of README.md from the facts.json files."""

from __future__ import annotations

import json
from pathlib import Path

_FOLDER = Path(__file__).parent
_START = "<!-- table -->"
_END = "<!-- /table -->"


def write_table() -> None:
    """Replace what stands between the two markers of README.md."""
    readme = _FOLDER / "README.md"
    before, _, rest = readme.read_text().partition(_START)
    _, _, after = rest.partition(_END)
    readme.write_text(f"{before}{_START}\n{_table()}\n{_END}{after}")


def _table() -> str:
    rows = [json.loads(path.read_text()) for path in sorted(_FOLDER.glob("*/facts.json"))]
    lines = [
        "| Model | Shows | Source | Exporter | Opset | Type | Norms | onnxruntime |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for facts in rows:
        gated = f" ({facts['gated']} gated)" if facts["gated"] else ""
        by = facts["exporter"] + (f", then {facts['after']}" if "after" in facts else "")
        lines.append(
            f"| `{facts['name']}` | {facts['shows']} | `{facts['source']}` | {by} "
            f"| {facts['opset']} | {facts['dtype']} | {facts['norms']}{gated} "
            f"| {facts['onnxruntime'].partition(':')[0]} |"
        )
    return "\n".join(lines)
