"""Any result as text table, JSON, Markdown, JUnit or HTML; producers offer ``report()``."""

from rmsnorm_onnx.report.content import Case, Report, Reportable, Status, Table
from rmsnorm_onnx.report.html import to_html
from rmsnorm_onnx.report.render import print_text, to_json, to_junit, to_markdown

__all__ = [
    "Case",
    "Report",
    "Reportable",
    "Status",
    "Table",
    "print_text",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
]
