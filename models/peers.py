"""Compares fusions of RMS norms: `PYTHONPATH=. python models/peers.py` writes docs/peers.md.

Needs what `pip install .[models]` installs. Every fusion runs on every model of this folder and on
every near miss of the graph zoo; rmsnorm_onnx.verify compares what it fused with the original.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import onnx

from peer_runs import FUSIONS, OURS, Finding, Task, executions, run_all
from saving import arrays

_FOLDER = Path(__file__).parent
_PAGE = _FOLDER.parent / "docs" / "peers.md"
_LIMIT = 60.0
_VERSIONS = ("onnxruntime", "onnxscript", "onnx-ir", "onnx")
_MARK = {
    "equal": "",
    "differs": " **differs**",
    "invalid": " **invalid**",
    "unverified": " unverified",
    "fails": " fails",
    "timeout": " timeout",
    "crash": " crash",
}
_INTRODUCTION = """\
# RMS norms: what other fusions find, and what they change

Written by `PYTHONPATH=. python models/peers.py` (after `pip install .[models]`), with {versions}.

- **{ours}**: `rmsnorm_onnx.optimize`.
- **onnxruntime EXTENDED, ALL**: the model that a CPU session saves at `ORT_ENABLE_EXTENDED` and
  `ORT_ENABLE_ALL`.
- **onnxruntime.transformers**: `optimizer.optimize_model(model_type="bert")`, its default, without
  onnxruntime's own passes. On the models tried, the types gpt2, t5, qwen3 and vit fuse the same
  norms, unet none, and phi fails.
- **onnxscript rms_normalization**: the rules that torch's exporter runs at opset 23, after
  `onnxscript.optimizer.optimize` and, below opset 23, onnxscript's version converter.
- **onnxscript optimize_for_ort**: `onnxscript.rewriter.ort_fusions.optimize_for_ort` after
  `onnxscript.optimizer.optimize`.

Norms that ran are counted in the framework that a model comes from. A norm that is one node
already ({ops}) is not counted as fused.

- *Differs*: `rmsnorm_onnx.verify` finds a result outside the bound that the original's own rounding
  gives; and also one outside the bound of what the same tool makes of the original with its fusions
  of norms switched off, so that constants folded in float32, fused GELUs and the like do not count.
  Or the fused model no longer reads a number that the caller may give (an epsilon, say).
- *Invalid*: norms were fused, and onnxruntime refuses or fails to run the result, but not the
  original.
- *Unverified*: norms were fused, but nothing here can run one of the two models: most are bfloat16,
  which onnxruntime does not run on a CPU, with operators that only onnxruntime knows.
- *Fails*: the tool itself raises an error on the model. Time limit: {limit:.0f} s for each.
"""
_OPERATORS = "RMSNormalization, SimplifiedLayerNormalization, GatedRMSNorm"

Findings = Mapping[str, Mapping[str, Finding]]


def main() -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models to print instead of writing the page")
    arguments = parser.parse_args()
    facts = {path.parent.name: json.loads(path.read_text()) for path in _paths()}
    if arguments.names:
        facts = {name: facts[name] for name in arguments.names}
    exports = _run(_exports(facts))
    if arguments.names:
        for name, found in exports.items():
            print(name, *found.items(), sep="\n  ")
        return 0
    near = _run(_near_misses())
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text("\n".join(_page(facts, exports, near)) + "\n")
    return 0


def _paths() -> list[Path]:
    return sorted(_FOLDER.glob("*/facts.json"))


def _exports(facts: Mapping[str, Any]) -> Iterator[Task]:
    for name in facts:
        model = onnx.load(_FOLDER / name / "model.onnx")
        data = arrays(_FOLDER / name, "input", model.graph.input)
        for fusion in FUSIONS:
            yield Task(name, fusion, model, data)


def _near_misses() -> Iterator[Task]:
    sys.path.insert(0, str(_FOLDER.parent / "tests"))
    from zoo import CASES, feeds

    for case in CASES:
        if case.why and not case.fuses:
            for fusion in FUSIONS:
                yield Task(case.id, fusion, case.build(), feeds(case))


def _run(tasks: Iterator[Task]) -> Findings:
    found: dict[str, dict[str, Finding]] = defaultdict(dict)
    for task, finding in run_all(tasks, _LIMIT):
        found[task.name][task.fusion] = finding
        if finding.verdict not in ("equal", "fails"):
            print(task.name, task.fusion, finding, sep=": ", flush=True)
    return found


def _page(facts: Mapping[str, Any], exports: Findings, near: Findings) -> Iterator[str]:
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in _VERSIONS)
    yield _INTRODUCTION.format(versions=versions, ours=OURS, ops=_OPERATORS, limit=_LIMIT)
    already = {name: executions(onnx.load(_FOLDER / name / "model.onnx")) for name in facts}
    yield from _totals(facts, already, exports)
    yield from _refusals(near)
    yield from _table(facts, already, exports)


def _totals(
    facts: Mapping[str, Any], already: Mapping[str, int], exports: Findings
) -> Iterator[str]:
    norms = sum(f["norms"] for f in facts.values())
    yield "## Totals\n"
    without = sum(found["norms"] == 0 for found in facts.values())
    yield f"{len(facts)} models, {without} of them without any RMS norm."
    yield f"{norms} norms ran; {sum(already.values())} of them are one node already.\n"
    yield (
        "| | norms fused | of those to fuse | models fused whole | models it breaks "
        "| norms fused in them | models it fails on | other norms fused |"
    )
    yield "|---" * 8 + "|"
    left = {name: found["norms"] - already[name] for name, found in facts.items()}
    for fusion in FUSIONS:
        row = {name: exports[name][fusion] for name in facts}
        sound = sum(min(f.fused, left[name]) for name, f in row.items() if not f.harmful)
        extra = sum(max(f.fused - left[name], 0) for name, f in row.items() if not f.harmful)
        lost = sum(f.fused for f in row.values() if f.harmful)
        share = sound / sum(left.values())
        whole = sum(f.fused >= left[name] and not f.harmful for name, f in row.items())
        broken = sum(f.harmful for f in row.values())
        failed = sum(f.verdict in ("fails", "timeout", "crash") for f in row.values())
        cells = (fusion, sound, f"{share:.0%}", whole, broken, lost, failed, extra)
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield "Norms fused leaves out the models that it breaks (unverified ones are in). Other norms"
    yield "are LayerNorms: what their subtraction of the mean leaves is normed as RMS norms do."
    yield ""


def _refusals(near: Findings) -> Iterator[str]:
    yield "## Near misses\n"
    yield f"The zoo in `tests/zoo` holds {len(near)} graphs that look like an RMS norm"
    yield "and are none that can be fused.\n"
    yield "| | results changed or invalid | which | results kept | which |"
    yield "|---|---|---|---|---|"
    for fusion in FUSIONS:
        fused = {name: found[fusion] for name, found in near.items() if found[fusion].fused > 0}
        wrong = sorted(name for name, finding in fused.items() if finding.harmful)
        kept = sorted(fused.keys() - set(wrong))
        cells = [fusion, str(len(wrong)), ", ".join(wrong) or "-", str(len(kept))]
        yield f"| {' | '.join(cells)} | {', '.join(kept) or '-'} |"
    yield ""


def _table(
    facts: Mapping[str, Any], already: Mapping[str, int], exports: Findings
) -> Iterator[str]:
    yield "## Every model\n"
    yield "Norms that ran, those that are one node already, and those fused by each.\n"
    yield "| model | norms | already | " + " | ".join(FUSIONS) + " |"
    yield "|---" * (3 + len(FUSIONS)) + "|"
    for name, found in facts.items():
        cells = [f"{exports[name][f].fused}{_MARK[exports[name][f].verdict]}" for f in FUSIONS]
        yield f"| {name} | {found['norms']} | {already[name]} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
