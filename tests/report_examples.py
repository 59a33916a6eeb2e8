"""The examples of docs/reports.md; run as a script, it writes them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from command import run
from exports import MODELS
from schemas import schemas

from rmsnorm_onnx import optimize, spec

PAGE = Path(__file__).parent.parent / "docs" / "reports.md"
MODEL = MODELS / "gated-dynamo18-f16" / "model.onnx"


def examples() -> dict[str, str]:
    """Every example by its name, as it stands in the page."""
    with folder():
        fused = optimize("model.onnx").model
        onnx.save(fused, "fused.onnx")
        node = next(node for node in fused.graph.node if node.domain == spec.DOMAIN)
        next(a for a in node.attribute if a.name == "epsilon").f = 0.1
        onnx.save(fused, "wrong.onnx")
        files = ("--junit", "parity.xml", "--markdown", "parity.md")
        text = run("verify", "model.onnx", "fused.onnx", "--per-node", *files).stdout
        failed = run("verify", "model.onnx", "wrong.onnx", code=1).stdout
        document = run("verify", "model.onnx", "fused.onnx", "--json").stdout
        return {
            "text": fenced("text", f"$ rmsnorm-onnx verify model.onnx fused.onnx --per-node\n{text}"),
            "failed": fenced("text", f"$ rmsnorm-onnx verify model.onnx wrong.onnx\n{failed}"),
            "fields": fields(),
            "json": fenced("json", compact(document)),
            "junit": fenced("xml", Path("parity.xml").read_text()),
            "markdown": fenced("markdown", Path("parity.md").read_text(), fence="````"),
        }


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """A folder of its own to work in, with the model."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(MODEL, name)
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def fields() -> str:
    """The fields of the document of ``verify``, with what the schema says of them."""
    properties = schemas()["verify.json"]["properties"]
    told = {"ok": "whether all is equal", "verdict": "the same in a sentence"}
    rows = [f"| `{name}` | {about.get('description', told.get(name, ''))} |" for name, about in properties.items()]
    return "\n".join(["| field | meaning |", "|---|---|", *rows]).replace("``", "`") + "\n"


def fenced(language: str, text: str, fence: str = "```") -> str:
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def compact(document: str) -> str:
    """The same document with lists of numbers and words on one line."""
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", document)
    assert json.loads(text) == json.loads(document)
    return text


def block(name: str, page: str) -> str:
    """What stands in the page between the marks of this name."""
    return page.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


if __name__ == "__main__":
    page = PAGE.read_text()
    for name, text in examples().items():
        old = f"<!-- {name} -->\n{block(name, page)}<!-- /{name} -->"
        page = page.replace(old, f"<!-- {name} -->\n{text}<!-- /{name} -->")
    PAGE.write_text(page)
