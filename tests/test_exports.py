"""The main job on every committed export: all norms fused, nothing changed, with the library and without it."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from conftest import PARITY
from exports import Export, exports, fused
from readme_table import executions, in_words

import rmsnorm_onnx
from rmsnorm_onnx import spec

EXPORTS = exports()
every_export = pytest.mark.parametrize("export", EXPORTS, ids=[e.name for e in EXPORTS])


def test_there_are_enough_exports():
    assert len(EXPORTS) >= 24
    assert sum(f.stat().st_size for e in EXPORTS for f in e.path.parent.rglob("*") if f.is_file()) < 8_000_000
    assert all(e.path.stat().st_size < 300_000 for e in EXPORTS)


@every_export
def test_every_norm_that_ran_is_fused(export: Export, record_property: Callable[[str, object], None]):
    counts = executions(fused(export.path))
    record_property(PARITY, (export.name, "norms", str(export.facts["norms"])))
    record_property(PARITY, (export.name, "fused", in_words(counts)))
    assert counts.total() == export.facts["norms"]


@every_export
def test_fused_equals_original(export: Export, record_property: Callable[[str, object], None]):
    for column, library in (("library", True), ("body", False)):
        # One thread: starting others for every session takes a third of the time, and changes no bit.
        how = {"inputs": str(export.data), "library": library, "threads": 1}
        report = rmsnorm_onnx.verify(str(export.path), fused(export.path), **how)
        verdict = max((output.verdict.value for output in report.outputs), key=len)
        record_property(PARITY, (export.name, column, verdict))
        assert report.ok, f"{column}: {report.report().verdict}"


@every_export
def test_fused_files_are_valid_wherever_the_original_is(export: Export):
    model = fused(export.path)
    # Some exports mix types as onnx's full check does not allow, some tools leave out opset imports.
    if export.facts["checker"] == "passes":
        onnx.checker.check_model(model, full_check=True)
    elif not export.facts["checker"].startswith("basic check fails"):
        onnx.checker.check_model(model)
    assert spec.DOMAIN in {i.domain for i in model.opset_import} or not export.facts["norms"]


def test_a_fused_file_that_was_tampered_with_is_caught():
    export = next(e for e in EXPORTS if e.name == "llama-dynamo18-f32")
    tampered = rmsnorm_onnx.optimize(str(export.path)).model
    node = next(n for n in tampered.graph.node if n.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-3
    assert not rmsnorm_onnx.verify(str(export.path), tampered, inputs=str(export.data), library=False).ok
