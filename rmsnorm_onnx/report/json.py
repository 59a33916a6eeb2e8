"""A report as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from rmsnorm_onnx.report.content import Report


def to_json(report: Report) -> str:
    """The document as one JSON text of ASCII characters, which every encoding has.

    NaN and inf, which JSON lacks, become the strings "nan", "inf" and "-inf".

    Raises:
        ValueError: the document has no ``schema_version``.
        TypeError: it holds something that has no place in JSON.
    """
    if "schema_version" not in report.document:
        raise ValueError(f"the document of {report.title!r} has no schema_version")
    return json.dumps(_plain(report.document), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        # File names that are no UTF-8 come with surrogates, which no encoder writes.
        return value.encode(errors="replace").decode()
    return value
