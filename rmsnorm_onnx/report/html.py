"""A report as one HTML file that needs no network."""

from __future__ import annotations

from typing import Final

from rmsnorm_onnx.report.content import Report

_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: #666; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .7rem; text-align: left; vertical-align: top; }
.verdict { border-left: .4rem solid; font-weight: 600; padding: .4rem .8rem; }
.passed { border-color: #1a7f37; } .failed { border-color: #cf222e; } .skipped { border-color: #9a6700; }
</style>
</head>
<body>
<h1>{{ report.title }}</h1>
<p class="verdict {{ report.status.value }}">{{ report.verdict }}</p>
<dl>{% for label, line in report.facts %}
<dt>{{ label }}</dt><dd>{{ line }}</dd>{% endfor %}
</dl>
{% for table in report.tables %}
<h2>{{ table.title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for column in table.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody>
</table></div>
{% endfor %}
</body>
</html>
"""


def to_html(report: Report) -> str:
    """The report as one HTML document; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_TEMPLATE).render(report=report)
