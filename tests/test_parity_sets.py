"""Several sets of inputs at once, node by node, how to repeat it, and what users mix up."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from parity_models import Network, elementwise, parity

import rmsnorm_onnx
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.parity import Verdict
from rmsnorm_onnx.runtime import Range, session

SETS = {"dims": {"batch": (1, 2), "sequence": [1, 5]}}


def by_set(result):
    found = {one.name: [] for one in result.sets}
    for output in result.outputs:
        found[output.inputs].append(output)
    return found


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_set_among_others_says_what_it_says_alone(dtype):
    models = Network(dtype).build(), Network(dtype, fused=True).build()
    together = parity(*models, **SETS)
    assert [one.dims for one in together.sets] == [{"batch": b, "sequence": s} for b in (1, 2) for s in (1, 5)]
    for one in together.sets:
        alone = parity(*models, dims=one.dims)
        assert alone.sets == (one,)
        assert list(alone.outputs) == by_set(together)[one.name]


def test_only_the_set_that_differs_fails():
    clipped = elementwise("Clip", [np.float32(-5), np.float32(5)])
    result = parity(elementwise("Identity"), clipped, ranges=[(-1, 1), "-10,10", Range(0, 4)])
    assert [output.verdict.ok for output in result.outputs] == [True, False, True]
    assert not result.ok
    assert len(by_set(result)) == 3
    assert "[-10, 10]" in result.outputs[1].inputs


def test_given_inputs_are_sets_of_their_own(tmp_path):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(tmp_path / "first.npz", x=x)
    np.savez(tmp_path / "second.npz", x=x[:1])
    files = [tmp_path / "first.npz", str(tmp_path / "second.npz"), {"x": x[1:]}]
    result = parity(elementwise("Neg"), elementwise("Neg"), inputs=files)
    assert [one.name for one in result.sets] == ["first.npz", "second.npz", "given"]
    assert [output.shape for output in result.outputs] == [(2, 4), (1, 4), (1, 4)]


def test_models_are_loaded_once_for_all_sets(monkeypatch):
    made = []
    create = session._create
    monkeypatch.setattr(session, "_create", lambda *a: made.append(a) or create(*a))

    def sessions(**sets):
        made.clear()
        assert parity(Network(epsilon=1e-5).build(), Network(epsilon=1e-5, fused=True).build(), **sets).ok
        return len(made)

    assert sessions(dims={"batch": 1}) == sessions(dims={"batch": (1, 2, 3)}) == 6


def test_weights_may_stand_in_a_file_while_sessions_are_made(monkeypatch):
    models = Network(epsilon=1e-4).build(), Network(epsilon=1e-4, fused=True).build()
    inline = parity(*models, seed=8)
    monkeypatch.setattr("rmsnorm_onnx.runtime.model._INLINE_BYTES", 0)
    monkeypatch.setattr("rmsnorm_onnx.runtime.widen._SMALL", 0)
    monkeypatch.setattr("rmsnorm_onnx.parity.runs._LAST", {})
    assert parity(*models, seed=8).outputs == inline.outputs


def test_quantized_models_are_cut_for_every_set():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = elementwise("Identity")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    result = parity(model, model, dims={"n": (1, 3)}, ranges=[(-1, 1), (-50, 50)])
    assert result.ok
    assert [len(found) for found in by_set(result).values()] == [1] * 4
    assert all("between 1 steps" in " ".join(one.notes) for one in result.sets)


def test_every_fused_node_is_checked_on_every_set():
    result = parity(Network().build(), Network(fused=True).build(), per_node=True, **SETS)
    assert result.ok
    assert {node.inputs for node in result.nodes} == {one.name for one in result.sets}
    assert len(result.nodes) == 4 * 4
    body_is_wrong = Network(fused=True).build()
    body = body_is_wrong.functions[0]
    last = body.node[-1]
    body.node.append(helper.make_node("Add", ["y_before", "y_before"], [last.output[0]]))
    last.output[0] = "y_before"
    broken = parity(Network().build(), body_is_wrong, per_node=True)
    assert not broken.ok
    assert not any(node.ok for node in broken.nodes)
    # A node alone is a no as well.
    assert not replace(broken, outputs=()).ok


def test_the_command_repeats_what_was_asked(tmp_path):
    original, fused, given = tmp_path / "it's one.onnx", tmp_path / "two.onnx", tmp_path / "in.npz"
    onnx.save(Network().build(), original)
    onnx.save(Network(fused=True).build(), fused)
    np.savez(given, ids=np.zeros((1, 3), np.int64))

    def words(*models, **how):
        return shlex.split(parity(*models, **how).repeat.command)

    start = ["rmsnorm-onnx", "verify", str(original), str(fused)]
    end = ["--threads", "1", "--no-library"]
    assert words(original, fused, seed=0) == start + end
    many = ["--dim", "batch=1,2", "--seed", "4", "--samples", "3", "--threads", "1", "--per-node", "--no-library"]
    assert words(original, fused, dims={"batch": (1, 2)}, seed=4, samples=3, per_node=True) == start + many
    assert words(original, str(fused), inputs=[given]) == [*start, "--inputs", str(given), *end]
    assert words(original, onnx.load(fused)) == []
    assert words(original, fused, inputs={"ids": np.zeros((1, 3), np.int64)}) == []


def test_ranges_stand_in_the_command_as_it_takes_them(tmp_path):
    path = tmp_path / "one.onnx"
    onnx.save(elementwise("Neg"), path)
    ranges = [(-1, 1), Range(0.1, 1e-5 + 1), "x:[-2,2]", Range(3, 4, "x")]
    words = shlex.split(parity(path, path, ranges=ranges).repeat.command)
    texts = [after for word, after in pairwise(words) if word == "--val-range"]
    assert [Range.parse(text) for text in texts] == [Range(-1, 1), Range(0.1, 1e-5 + 1), Range(-2, 2, "x"), ranges[3]]


def notes(*models, **how):
    return " ".join(note for one in parity(*models, **how).sets for note in one.notes)


def test_what_looks_like_a_mistake_is_noted():
    plain, fused = Network().build(), Network(fused=True).build()
    assert "the same file" in notes(plain, plain)
    assert "expected ORIGINAL, then FUSED" in notes(fused, plain)
    assert notes(plain, fused) == ""
    turned = Network(fused=True).build()
    turned.graph.output.extend([turned.graph.output[0]])
    del turned.graph.output[0]
    assert "another order (logits, token, hidden)" in notes(plain, turned)


def test_a_model_that_cannot_run_comes_with_advice():
    plain, bare = Network().build(), Network(fused=True, bodies=False).build()
    with pytest.raises(CannotRun, match=r"stores no function bodies for RMSNormalization.*leave --no-library"):
        parity(plain, bare)
    with pytest.raises(CannotRun, match="expected ORIGINAL, then FUSED"):
        parity(bare, plain)


def test_other_inputs_are_named():
    other = elementwise("Neg")
    other.graph.input[0].name = other.graph.node[0].input[0] = "xs"
    with pytest.raises(InvalidInput, match=r"the fused model lacks 'x' \(it has 'xs'\); the original lacks 'xs'"):
        parity(elementwise("Neg"), other)
    with pytest.raises(InvalidInput, match="'x' is FLOAT in the original and FLOAT16 in the fused model"):
        parity(elementwise("Neg"), elementwise("Neg", dtype=TensorProto.FLOAT16))


def test_a_renamed_output_is_guessed():
    first, second = parity(elementwise("Neg"), elementwise("Neg", name="z")).outputs
    assert (first.verdict, second.verdict) == (Verdict.MISSING, Verdict.MISSING)
    assert first.detail == "missing in the fused model; was it renamed to 'z', of the same type and shape?"


@pytest.mark.parametrize("how", [{"samples": 0}, {"threads": 0}])
def test_numbers_below_one_are_bad_usage(how):
    with pytest.raises(InvalidInput, match="at least 1"):
        rmsnorm_onnx.verify(elementwise("Neg"), elementwise("Neg"), **how)


def test_what_was_fused_where_is_told():
    model = Network().build()
    result = rmsnorm_onnx.verify(model, rmsnorm_onnx.optimize(model).model, library=False, threads=1)
    assert [fusion.op for fusion in result.fusions] == ["RMSNormalization", *["SkipRMSNormalization"] * 3]
    assert all("ReduceMean" in fusion.pattern and len(fusion.replaced) > 5 for fusion in result.fusions)
    assert not result.near_misses
