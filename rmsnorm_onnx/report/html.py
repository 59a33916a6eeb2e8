"""A report as one HTML file that needs no network, runs no script, and is fit for a phone, paper and the dark."""

from __future__ import annotations

from typing import Final

from rmsnorm_onnx.report.characters import printable
from rmsnorm_onnx.report.content import Report, Status
from rmsnorm_onnx.report.svg import to_svg

#: Of one table; the JSON document has all.
_ROWS: Final = 1000
_CHARTS: Final = 24

#: Colours have a contrast of at least 4.5 to their background as text, and 3 as bars.
_STYLE: Final = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --back: #fff; --line: #d1d9e0; --band: #f6f8fa;
  --passed: #1a7f37; --failed: #cf222e; --skipped: #9a6700; --series0: #57606a; --series1: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #f0f6fc; --soft: #9198a1; --back: #0d1117; --line: #3d444d;
  --band: #151b23; --passed: #3fb950; --failed: #f85149; --skipped: #d29922; --series0: #9198a1; --series1: #4493f8; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .4rem solid; font-size: 1.1rem; font-weight: 600; padding: .5rem .8rem;
  background: var(--band); overflow-wrap: anywhere; }
.passed { border-color: var(--passed); } .failed { border-color: var(--failed); }
.skipped { border-color: var(--skipped); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.failure { border-left: .2rem solid var(--failed); padding-left: .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: max-content; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; max-width: 9rem; vertical-align: bottom; }
td { white-space: pre-wrap; overflow-wrap: anywhere; max-width: min(24rem, 50vw); }
td.lines { max-width: min(52rem, 90vw); }
td.number, th.number { text-align: right; } td.number { white-space: nowrap; }
tr.failed td:first-child { border-left: .2rem solid var(--failed); padding-left: .5rem; }
tr.failed td { color: var(--failed); }
pre { background: var(--band); padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; break-inside: avoid; } figcaption { overflow-wrap: anywhere; }
svg { width: 100%; height: auto; max-width: 34rem; } svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.series0 { fill: var(--series0); } .series1 { fill: var(--series1); } .series2 { fill: var(--skipped); }
@media (max-width: 40rem) { dl { display: block; } dd { margin-bottom: .5rem; } th, td { padding-right: .6rem; } }
@media print { body { max-width: none; font-size: 10pt; } tr { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { min-width: 0; width: 100%; font-size: 8pt; } th, td { padding-right: .4rem; } }
"""

_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title | shown }}: {{ report.verdict | shown }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>{{ report.title | shown }}</h1>
<p class="verdict {{ report.status.value }}">{{ report.verdict | shown }}</p>
{% if report.facts %}{{ pairs(report.facts) }}{% endif %}
{% for case in failed %}<p class="failure"><strong>{{ case.name | shown }}{% if case.group %} ({{ case.group | shown
}}){% endif %}</strong>: {{ case.message | shown }}</p>
{% endfor %}
{% for table in report.tables if not table.detail %}{{ drawn(table) }}{% endfor %}
{% if report.charts %}<h2>How large the errors are</h2>
<div class="charts">{% for chart in report.charts[:most_charts] %}
<figure><figcaption>{{ chart.title | shown }}</figcaption>
{{ chart | svg | safe }}</figure>{% endfor %}
</div>{{ more(report.charts, most_charts) }}{% endif %}
{% for table in report.tables if table.detail %}{{ drawn(table) }}{% endfor %}
{% if report.command or report.repeat %}<h2>How to repeat it</h2>
{% if report.command %}<pre><code>{{ report.command | shown }}</code></pre>{% endif %}
{{ pairs(report.repeat) }}{% endif %}
</main>
</body>
</html>
"""

_MACROS: Final = """
{% macro pairs(all) %}<dl>{% for label, line in all %}
<dt>{{ label | shown }}</dt><dd>{{ line | shown }}</dd>{% endfor %}
</dl>{% endmacro %}
{% macro more(all, most) %}{% if all | length > most %}
<p>and {{ all | length - most }} more; the JSON document has all</p>{% endif %}{% endmacro %}
{% macro drawn(table) %}{% set numbers = table.number_columns %}
<h2>{{ table.title | shown }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title | shown }}"><table>
<thead><tr>{% for column in table.columns %}<th scope="col"{% if numbers[loop.index0] %} class="number"{% endif
%}>{{ column | shown }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows[:most_rows] %}
<tr{% if loop.index0 < table.failed %} class="failed"{% endif %}>{% for cell in row %}<td{% if numbers[loop.index0]
%} class="number"{% elif "\n" in cell %} class="lines"{% endif %}>{{ cell | shown }}</td>{% endfor %}</tr>{% endfor %}
</tbody>
</table></div>{{ more(table.rows, most_rows) }}{% endmacro %}
"""


def to_html(report: Report) -> str:
    """The report as one HTML document; every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(shown=printable, svg=to_svg)
    failed = [case for case in report.cases if case.status is Status.FAILED]
    template = environment.from_string(_MACROS.replace("\n{% macro", "{% macro") + _TEMPLATE)
    limits = {"most_rows": _ROWS, "most_charts": _CHARTS}
    return template.render(report=report, failed=failed[:_ROWS], style=_STYLE, **limits).lstrip()
