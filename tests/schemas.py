"""JSON Schemas of what ``--json`` prints, from the dataclasses; run as a script, it writes them into the package."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Union

import rmsnorm_onnx
from rmsnorm_onnx import bench, parity, spec
from rmsnorm_onnx.api import _optimize
from rmsnorm_onnx.bench import kernel_records, kernel_summary, model_records
from rmsnorm_onnx.info import Info
from rmsnorm_onnx.parity import records
from rmsnorm_onnx.passes import Fused
from rmsnorm_onnx.passes.target import TARGETS
from rmsnorm_onnx.selftest import Check

#: Where the package under test has them, and where they are written.
FOLDER = Path(rmsnorm_onnx.__file__).parent / "report" / "schemas"
SOURCE = Path(__file__).parent.parent / "rmsnorm_onnx" / "report" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BOOLEAN, STRING, STRINGS = {"type": "boolean"}, {"type": "string"}, {"type": "array", "items": {"type": "string"}}
#: JSON has no words for these; the writer puts strings in their place.
NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}
PLAIN = {bool: BOOLEAN, int: {"type": "integer"}, float: NUMBER, str: STRING, type(None): {"type": "null"}, Any: {}}


def of_type(kind: Any, changes: Mapping[type, Mapping[str, Any]]) -> dict[str, Any]:
    """Schema of a value of the type as it stands in JSON."""
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return of_record(kind, changes)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [of_type(one, changes) for one in arguments]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [of_type(one, changes) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is tuple:
        return {"type": "array", "items": of_type(arguments[0], changes)}
    return {"type": "object", "additionalProperties": of_type(arguments[1], changes)}


def of_record(kind: type, changes: Mapping[type, Mapping[str, Any]]) -> dict[str, Any]:
    """Schema of a dataclass; ``changes`` says which fields its JSON has besides or instead, None for those it lacks."""
    hints, told = typing.get_type_hints(kind), descriptions(kind)
    fields = {field.name: of_type(hints[field.name], changes) for field in dataclasses.fields(kind)}
    fields = {
        name: {**schema, "description": told[name]} if name in told else schema for name, schema in fields.items()
    }
    fields |= changes.get(kind, {})
    return an_object({name: schema for name, schema in fields.items() if schema is not None})


def an_object(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An object that has all these fields, and in later versions perhaps more."""
    return {"type": "object", "properties": dict(fields), "required": list(fields)}


def descriptions(kind: type) -> dict[str, str]:
    """What the docstring says of each field."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        start = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
        for name in names:
            found[name] = f"{found.get(name, '')} {start[2] if start else line.strip()}".strip()
    return found


def document(command: str, version: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Schema of a whole document."""
    head = {"schema_version": {"const": version}, "command": {"const": command}}
    title = f"rmsnorm-onnx {command} --json, version {version}"
    return {"$schema": DIALECT, "title": title, **an_object({**head, **fields})}


def schemas() -> dict[str, dict[str, Any]]:
    """Every document's schema, by file name."""
    verdicts = [verdict.name.lower().replace("_", "-") for verdict in records.Verdict if verdict.name != "NODE"]
    nearer = {"enum": ["original", "fused", "neither", None], "description": doc(records.OutputParity.nearer)}
    verify = {
        records.OutputParity: {"verdict": {"enum": verdicts}, "ok": BOOLEAN, "nearer": nearer},
        parity.ParityReport: {"seconds": None},
        records.NodeParity: {"ok": {**BOOLEAN, "description": doc(records.NodeParity.ok)}},
    }
    whole = of_record(parity.ParityReport, verify)["properties"]
    miss = {"node": STRING, "why": {"enum": [w.value for w in spec.Why]}, "reason": STRING, "detail": STRING}
    norms = {
        "target": {"enum": list(TARGETS)},
        "fused": {"type": "array", "items": of_record(Fused, {})},
        "near_misses": {"type": "array", "items": an_object({**miss, "tree": STRINGS})},
    }
    info = of_record(Info, {Check: {"ok": BOOLEAN}})["properties"]
    ratios = {"type": "object", "additionalProperties": NUMBER}
    ratio = {"anyOf": [NUMBER, {"type": "null"}]}
    cell = {
        bench.Cell: {
            "absent": {"type": "object", "additionalProperties": STRING},
            "times_as_fast_as_onnxruntime": ratio,
            "times_as_fast_as_peers": ratio,
            "times_as_fast_as": ratios,
        }
    }
    machine = of_record(bench.Machine, {})
    kernels = {
        "ok": BOOLEAN,
        "machine": machine,
        "summaries": {"type": "array", "items": of_record(kernel_summary.Summary, {})},
        "cells": {"type": "array", "items": of_record(bench.Cell, cell)},
    }
    times = {field.name: NUMBER for field in dataclasses.fields(bench.Times) if field.name != "samples"}
    timed = {"times": None, "runs": PLAIN[int], "ms": an_object(times), "norm_ms": NUMBER, "norm_share": NUMBER}
    models = of_record(bench.ModelBenchmark, {bench.Timed: timed})["properties"]
    return {
        "verify.json": document("verify", records.SCHEMA_VERSION, {"ok": BOOLEAN, "verdict": STRING, **whole}),
        "optimize.json": document("optimize", _optimize.SCHEMA_VERSION, norms),
        "inspect.json": document("inspect", _optimize.SCHEMA_VERSION, norms),
        "info.json": document("info", 1, {"ok": BOOLEAN, **info}),
        "benchmark-kernels.json": document("benchmark kernels", kernel_records.SCHEMA_VERSION, kernels),
        "benchmark-model.json": document("benchmark model", model_records.SCHEMA_VERSION, {"ok": BOOLEAN, **models}),
    }


def doc(member: property) -> str:
    return member.__doc__ or ""


def in_words(schema: Mapping[str, Any]) -> str:
    """The file."""
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    SOURCE.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (SOURCE / name).write_text(in_words(schema))
