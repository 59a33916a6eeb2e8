"""Writes one export in the layout of ONNX's backend tests, with the facts beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from case import Case, Exported
from checking import checker_verdict, onnxruntime_verdict, reference_verdict
from stripping import revealing, strip

FOLDER = Path(__file__).parent
_LIMIT = 300_000
_PACKAGES = {
    "transformers.": ("torch", "transformers", "onnxscript", "onnx"),
    "torch.": ("torch", "onnxscript", "onnx"),
    "keras (torch": ("keras", "torch", "onnxscript", "onnx"),
    "keras (tensorflow": ("keras", "tensorflow-cpu", "tf2onnx", "onnx"),
    "keras (jax": ("keras", "jax", "jax2onnx", "onnx"),
    "jax2onnx": ("jax", "flax", "jax2onnx", "onnx"),
    "tf2onnx": ("tensorflow-cpu", "tf2onnx", "onnx"),
}


def save(case: Case, exported: Exported) -> dict[str, Any]:
    """Strip, check and write; returns the facts."""
    strip(exported.model)
    facts = _facts(case, exported)
    write(exported.model, exported.inputs, exported.outputs, facts)
    return facts


def write(
    model: onnx.ModelProto,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[np.ndarray],
    facts: Mapping[str, Any],
) -> None:
    """Write a folder named after the facts, unless the model is too large or names a path."""
    name = facts["name"]
    data = model.SerializeToString(deterministic=True)
    if len(data) > _LIMIT:
        raise ValueError(f"{name}: {len(data)} bytes, at most {_LIMIT} are allowed")
    if fragments := revealing(data):
        raise ValueError(f"{name} names a path: {fragments}")
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    test_data = folder / "test_data_set_0"
    test_data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    for i, value in enumerate(model.graph.input):
        _write(test_data / f"input_{i}.pb", value.name, inputs[value.name])
    for i, (value, array) in enumerate(zip(model.graph.output, outputs, strict=True)):
        _write(test_data / f"output_{i}.pb", value.name, array)
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")


def arrays(folder: Path, kind: str, values: Sequence[onnx.ValueInfoProto]) -> dict[str, np.ndarray]:
    """The saved inputs or outputs of a folder, by name."""
    files = [folder / "test_data_set_0" / f"{kind}_{i}.pb" for i in range(len(values))]
    return {
        value.name: numpy_helper.to_array(onnx.load_tensor(file))
        for value, file in zip(values, files, strict=True)
    }


def _write(path: Path, name: str, array: Any) -> None:
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString(deterministic=True))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses."""
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _facts(case: Case, exported: Exported) -> dict[str, Any]:
    opset = opset_of(exported.model)
    if case.opset not in (None, opset):
        raise ValueError(f"{case.name}: the exporter wrote opset {opset}")
    prefix = next(p for p in _PACKAGES if (exported.exporter + exported.label).find(p) >= 0)
    return {
        "name": case.name,
        "shows": case.shows,
        "source": exported.label,
        "config": dict(exported.config),
        "exporter": exported.exporter,
        "opset": opset,
        "dtype": case.dtype,
        "dynamic": case.dynamic,
        "norms": exported.count.norms,
        "gated": exported.count.gated,
        "checker": checker_verdict(exported.model),
        "onnxruntime": onnxruntime_verdict(case, exported),
        "reference": reference_verdict(case, exported),
        "versions": {package: metadata.version(package) for package in _PACKAGES[prefix]},
    }
