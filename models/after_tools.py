"""Writes what other tools make of some exports: `python models/after_tools.py [NAME--TOOL ...]`.

Needs what `pip install .[models]` installs, and the exports themselves. A tool that keeps the
numbers leaves the source framework's outputs as they are; for one that changes them, the outputs
are those of the converted model, run by onnxruntime without any optimization.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import onnx
import onnxruntime

import tools
from case import Case, Exported, Exporter
from checking import checker_verdict, onnxruntime_verdict, reference_verdict
from counting import Count
from readme import write_table
from running import run
from saving import FOLDER, arrays, opset_of, write
from stripping import strip


@dataclass(frozen=True)
class After:
    """A tool: its function, its package, and what it leaves as it was."""

    run: tools.Tool
    package: str
    shows: str
    keeps_numbers: bool = True
    dtype: str | None = None


def _to_half(run: tools.Tool, package: str, shows: str) -> After:
    return After(run, package, shows, keeps_numbers=False, dtype="f16")


TOOLS: dict[str, After] = {
    "onnxsim": After(tools.simplified, "onnxsim", "simplified"),
    "onnxslim": After(tools.slimmed, "onnxslim", "slimmed"),
    "onnxscript": After(tools.folded, "onnxscript", "constants folded by onnxscript's optimizer"),
    "ort-basic": After(tools.ort_basic, "onnxruntime", "saved at ORT_ENABLE_BASIC"),
    "ort-extended": After(tools.ort_extended, "onnxruntime", "saved at ORT_ENABLE_EXTENDED"),
    "ort-transformers": After(
        tools.ort_transformers, "onnxruntime", "onnxruntime.transformers.optimizer, model type bert"
    ),
    "float16": _to_half(tools.half, "onnxconverter-common", "converted to float16"),
    "float16-norms32": _to_half(
        tools.half_but_norms, "onnxconverter-common", "float16; the norms' operators stay float32"
    ),
    "float16-ort": _to_half(tools.half_by_onnxruntime, "onnxruntime", "converted to float16"),
    "float16-ort-io32": _to_half(
        tools.half_inside, "onnxruntime", "converted to float16 with keep_io_types"
    ),
    "float16-ort-squares32": _to_half(
        tools.half_but_squares, "onnxruntime", "float16; Pow and ReduceMean stay float32"
    ),
    "dynamic8": After(
        tools.quantized, "onnxruntime", "MatMul quantized dynamically", keeps_numbers=False
    ),
    "qdq8": After(
        tools.quantized_qdq, "onnxruntime", "MatMul quantized with QDQ", keeps_numbers=False
    ),
}

PAIRS: list[tuple[str, str]] = [
    ("granite-dynamo21-f32", "onnxsim"),
    ("gemma-torchscript14-f32", "onnxsim"),
    ("keras-axis-1-tf-f32", "onnxsim"),
    ("gemma4-norm-torchscript9-f32", "onnxsim"),
    ("umt5-encoder-torchscript14-f32", "onnxslim"),
    ("granite-dynamo21-f32", "onnxslim"),
    ("tf-rsqrt-tf2onnx13-f32", "onnxslim"),
    ("llama-dynamo-raw18-f32", "onnxscript"),
    ("gemma-torchscript14-f32", "onnxscript"),
    ("nnx-rmsnorm-jax2onnx18-f32", "onnxscript"),
    ("gemma3-dynamo18-f32", "ort-basic"),
    ("keras-axis-1-tf-f32", "ort-basic"),
    ("nnx-rmsnorm-jax2onnx18-f32", "ort-basic"),
    ("qwen2-torchscript11-f32", "ort-extended"),
    ("gemma-torchscript14-f32", "ort-extended"),
    ("bamba-dynamo18-f32", "ort-extended"),
    ("granite-dynamo21-f32", "ort-transformers"),
    ("umt5-encoder-torchscript14-f32", "ort-transformers"),
    ("torch-rmsnorm-dynamo18-f32", "float16"),
    ("tf-rsqrt-tf2onnx13-f32", "float16"),
    ("torch-rmsnorm-dynamo18-f32", "float16-norms32"),
    ("keras-axis-1-tf-f32", "float16-norms32"),
    ("granite-dynamo21-f32", "float16-ort"),
    ("gemma4-norm-torchscript17-f32", "float16-ort-io32"),
    ("umt5-encoder-torchscript14-f32", "float16-ort-io32"),
    ("nnx-rmsnorm-jax2onnx18-f32", "float16-ort-io32"),
    ("gemma-torchscript14-f32", "float16-ort-squares32"),
    ("granite-dynamo21-f32", "dynamic8"),
    ("umt5-encoder-torchscript14-f32", "dynamic8"),
    ("gemma-torchscript14-f32", "qdq8"),
    ("tf-rsqrt-tf2onnx13-f32", "qdq8"),
]


def main() -> int:
    """Write the chosen pairs; the exit status says whether all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="folders to write; all of them if none is given")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    failures = 0
    for source, tool in PAIRS:
        name = f"{source}--{tool}"
        if arguments.names and name not in arguments.names:
            continue
        try:
            facts = _derive(source, tool)
        except Exception:
            failures += 1
            print(f"{name}: failed", flush=True)
            traceback.print_exc()
            continue
        verdicts = "; ".join(f"{k} {facts[k]}" for k in ("checker", "onnxruntime", "reference"))
        print(f"{name}: {facts['norms']} norms; {verdicts}", flush=True)
    write_table()
    return 1 if failures else 0


def _derive(source: str, name: str) -> dict[str, Any]:
    tool = TOOLS[name]
    folder = FOLDER / source
    original = onnx.load(folder / "model.onnx")
    feeds = arrays(folder, "input", original.graph.input)
    model = tool.run(original, feeds)
    strip(model)
    inputs = {i.name: feeds[i.name].astype(_type(i)) for i in model.graph.input}
    outputs = tuple(arrays(folder, "output", original.graph.output).values())
    if not tool.keeps_numbers:
        outputs = run(model, inputs, "ORT_DISABLE_ALL")
    facts = json.loads((folder / "facts.json").read_text())
    described = _described(facts, name, tool, model)
    case = Case(source, Exporter.DYNAMO, None, described["dtype"], facts["dynamic"], "")
    exported = Exported(model, inputs, outputs, Count(), "", {}, "")
    described["checker"] = _checked(model)
    described["onnxruntime"] = onnxruntime_verdict(case, exported)
    described["reference"] = reference_verdict(case, exported)
    write(model, inputs, outputs, described)
    return described


def _described(
    facts: dict[str, Any], name: str, tool: After, model: onnx.ModelProto
) -> dict[str, Any]:
    """The facts of the source, changed where the tool changes them."""
    source = facts["exporter"].partition(" (")[0]
    return {
        **facts,
        "name": f"{facts['name']}--{name}",
        "shows": tool.shows,
        "after": f"{tool.package} {metadata.version(tool.package)}",
        "opset": opset_of(model),
        "dtype": tool.dtype or facts["dtype"],
        "outputs_from": f"the framework behind {source}"
        if tool.keeps_numbers
        else "this model, run by onnxruntime without optimization",
        "versions": {**facts["versions"], tool.package: metadata.version(tool.package)},
    }


def _checked(model: onnx.ModelProto) -> str:
    """Unlike an exporter, a tool may write operators that onnx's checker does not know."""
    try:
        return checker_verdict(model)
    except onnx.checker.ValidationError as error:
        return f"basic check fails: {str(error).splitlines()[0][:300]}"


def _type(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


if __name__ == "__main__":
    sys.exit(main())
