"""Any result as text table, JSON, Markdown, JUnit or HTML; producers offer ``report()``."""

from rmsnorm_onnx.report.content import BarChart, Case, Report, Reportable, Status, Table
from rmsnorm_onnx.report.html import to_html
from rmsnorm_onnx.report.json import to_json
from rmsnorm_onnx.report.junit import to_junit
from rmsnorm_onnx.report.markdown import to_markdown
from rmsnorm_onnx.report.text import print_text

__all__ = [
    "BarChart",
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
