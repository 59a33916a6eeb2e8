"""Sequences of tensors in the emulation of bfloat16, the float64 reading and the sampled noise."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from rmsnorm_onnx import runtime
from rmsnorm_onnx.parity import Verdict, verify

TYPES = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def halves(kind):
    """Both halves of the last axis through a sequence, an Identity of it and an inserted third tensor."""
    return parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 18]>
        s ({kind}[3, 8] x) => ({kind}[3, 4] y, {kind}[3, 12] joined) {{
        four = Constant <value = int64 {{4}}> ()
        zero = Constant <value = int64 {{0}}> ()
        one = Constant <value = int64 {{1}}> ()
        doubled = Add (x, x)
        pieces = SplitToSequence <axis = -1> (doubled, four)
        same = Identity (pieces)
        left = SequenceAt (same, zero)
        right = SequenceAt (same, one)
        y = Mul (left, right)
        more = SequenceInsert (same, y)
        joined = ConcatFromSequence <axis = -1> (more) }}""")


@pytest.mark.parametrize("kind", TYPES)
def test_sequences_run_and_are_verified(kind):
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(TYPES[kind])
    outputs = runtime.run_side(runtime.load(halves(kind)), {"x": x}, library=False).outputs
    doubled = x + x
    product = (doubled[:, :4].astype(np.float32) * doubled[:, 4:].astype(np.float32)).astype(TYPES[kind])
    np.testing.assert_array_equal(outputs["y"], product)
    np.testing.assert_array_equal(outputs["joined"], np.concatenate([doubled, product], -1))
    exact = runtime.run_exact(ir.from_proto(halves(kind)), {"x": x})
    assert exact.how == "onnxruntime in float64"
    wide = 2 * x.astype(np.float64)
    np.testing.assert_array_equal(exact.outputs["y"], wide[:, :4] * wide[:, 4:])
    assert {output.verdict for output in verify(halves(kind), halves(kind), library=False).outputs} == {
        Verdict.IDENTICAL
    }
    (noisy,) = runtime.noise_runs(ir.from_proto(halves(kind)), {"x": x}, count=1, seed=0)
    assert 0 < np.abs(noisy["y"] - exact.outputs["y"]).max() < 0.1
