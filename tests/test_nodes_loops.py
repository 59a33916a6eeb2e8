"""Norms in the bodies of Loop and Scan, looked at in the first and in the last iteration that runs them."""

from __future__ import annotations

import dataclasses

import loop_models
import numpy as np
import onnx
import pytest
from loop_models import CASES, PLAIN, loop, norm
from test_nodes import by_how, check

import rmsnorm_onnx
from rmsnorm_onnx import runtime, spec
from rmsnorm_onnx.parity import captured
from rmsnorm_onnx.parity.records import BODY, KERNEL, SUBGRAPH

#: Rows of three sizes; the first is below one half.
FEEDS = {
    "x": np.array([[0.01], [1], [30]], np.float32) * np.arange(1, 9, dtype=np.float32),
    "W": np.linspace(-1, 2, 40, dtype=np.float32).reshape(5, 8),
}


def looked_at(model, fused=None, **options):
    feeds = {value.name: FEEDS[value.name] for value in model.graph.input}
    return check(model, rmsnorm_onnx.optimize(model).model if fused is None else fused, feeds, **options)


@pytest.mark.parametrize("name", CASES)
def test_first_and_last_iteration_are_within_their_bounds(name):
    model, expected = CASES[name]
    records, notes = looked_at(model)
    assert not notes
    assert sorted((record.output, record.iterations) for record in records) == sorted(expected)
    for record in records:
        ways = by_how(record)
        assert record.ok, record
        assert all(ways[how].max_ulps <= ways[how].bound_ulps for how in (SUBGRAPH, BODY, KERNEL)), record
        assert record.replaced > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("library", [True, False])
def test_loops_in_16_bits(dtype, library):
    to = loop_models.TYPES[dtype]
    body = loop(norm("v", "k", "g", dtype) + " u = Add(k, n)", init="z", out="o", dtype=dtype)
    model = loop_models.model(
        f"g = Cast<to = {to}>(w) n = Cast<to = {to}>(half) z = Cast<to = {to}>(x) {body} y = Cast<to = 1>(o)"
    )
    records, notes = looked_at(model, library=library)
    assert not notes
    assert [(record.dtype, record.iterations) for record in records] == [(dtype, (0,)), (dtype, (2,))]
    for record in records:
        assert record.ok, record
        assert all(by_how(record)[how].max_ulps is not None for how in (SUBGRAPH, BODY))


@pytest.mark.parametrize("opset", [13, 16])
def test_bfloat16_in_a_loop_that_may_not_carry_it(opset):
    """Loop and If take it from opset 16 on."""
    nodes = f"z = Cast<to = 16>(v) {norm('z', 'k', 'g', 'bfloat16')} f = Cast<to = 1>(k) u = Add(f, half)"
    model = loop_models.model(f"g = Cast<to = 16>(w) {loop(nodes)}", opset=opset)
    records, notes = looked_at(model)
    assert not notes
    assert [(record.dtype, record.iterations) for record in records] == [("bfloat16", (0,)), ("bfloat16", (2,))]
    assert all(record.ok for record in records)


def test_norms_of_onnx_in_a_loop():
    model = loop_models.model(loop("k = RMSNormalization(v, w) u = Add(k, half)"), opset=23)
    for target in ("rmsnorm", "onnx"):
        records, _ = looked_at(model, rmsnorm_onnx.optimize(model, target=target).model)
        assert [record.iterations for record in records] == [(0,), (2,)]
        assert all(record.ok for record in records)


@pytest.mark.parametrize(("factor", "iteration"), [("0.001", 2), ("1000.0", 0)])
def test_an_epsilon_that_shows_in_one_iteration_is_found(factor, iteration):
    """It counts where the mean square is as small, which is in the first or the last iteration."""
    first = "x" if iteration else "small"
    nodes = f"{norm('v', 'k')} f = Constant<value_float = {factor}>() p = Mul(v, f) q = Mul(k, nought) u = Add(p, q)"
    nodes = f"nought = Constant<value_float = 0.0>() {loop(nodes, init=first)}"
    model = loop_models.model(f"tiny = Constant<value_float = 1e-6>() small = Mul(x, tiny) {nodes}")
    fused = rmsnorm_onnx.optimize(model).model
    body = next(node for node in fused.graph.node if node.op_type == "Loop").attribute[0].g
    found = next(node for node in body.node if node.domain == spec.DOMAIN)
    next(a for a in found.attribute if a.name == "epsilon").f *= 1 + 1e-4
    records, _ = looked_at(model, fused)
    suspects = [record.iterations for record in records if "original subgraph" in record.detail]
    assert len(records) == 2
    assert suspects == [(iteration,)]


@pytest.mark.parametrize("place", [0, 1])
def test_a_kernel_that_is_wrong_in_one_iteration_is_found(place, monkeypatch):
    model, _ = CASES["in a scan"]
    run = captured._run

    def run_wrong(fused, shown, feeds, options):
        outputs = dict(run(fused, shown, feeds, options))
        results = [name for name, array in outputs.items() if array.shape == (8,) and np.allclose(array, right[place])]
        assert len(results) == 1
        outputs[results[0]] = outputs[results[0]] * np.float32(1 + 1e-5)
        return outputs

    right = kernel_results(model)
    monkeypatch.setattr(captured, "_run", run_wrong)
    records, _ = looked_at(model)
    assert [record.ok for record in records] == [place == 1, place == 0]
    assert not by_how(records[place])[KERNEL].ok


def kernel_results(model):
    """What the norm gives in the first and last of three iterations."""
    fused = runtime.load(rmsnorm_onnx.optimize(model).model)
    run = runtime.run_side(fused, {"x": FEEDS["x"]}, library=True, threads=1)
    return [run.outputs["y"][index] - np.float32(0.5) for index in (0, 2)]


def test_what_does_not_run_or_cannot_be_seen_is_named():
    idle, notes = looked_at(loop_models.model(loop(PLAIN, trips="none")))
    assert not idle
    assert notes == ("1 norm nodes did not run: RMSNormalization_k",)
    mapped = loop_models.model(
        f"""all = SequenceConstruct(x, x)
        maps = SequenceMap(all) <body = b (float[3, 8] v) => (float[3, 8] u) {{ {norm("v", "u")} }}>
        z = SequenceAt(maps, one) {norm("z", "y")}"""
    )
    records, notes = looked_at(mapped)
    assert [record.output for record in records] == ["y"]
    assert notes == ("1 norm nodes were not looked at, in the body of a SequenceMap: RMSNormalization_u",)


def test_a_scan_that_stacks_values_of_unknown_rank_is_named():
    model, _ = CASES["in a scan of columns, backwards"]
    typed = runtime.typed_copy(runtime.load(model).model, inline_ours=False)
    next(node for node in typed.graph if node.op_type == "Scan").outputs[0].shape = None
    values = {value.name: value for value in runtime.values_of(typed)}
    shown, (reason,) = runtime.with_values(typed, [[values["k"]]])
    assert reason == "in the body of a Scan that stacks values of unknown rank"
    run = runtime.run_side(runtime.load(shown), {"x": FEEDS["x"]}, library=False)
    assert list(run.outputs) == ["y"]


def test_where_inner_values_cannot_be_shown_the_rest_is_looked_at(monkeypatch):
    model, _ = CASES["in a loop and of what it stacks"]
    run = captured._run

    def refuse(fused, shown, feeds, options):
        if any(node.op_type == "Loop" and len(node.outputs) > 2 for node in shown.graph):
            raise rmsnorm_onnx.CannotRun("no way to run it:\nno such shape")
        return run(fused, shown, feeds, options)

    monkeypatch.setattr(captured, "_run", refuse)
    records, notes = looked_at(model)
    assert [record.output for record in records] == ["y"]
    (note,) = notes
    assert note.startswith("1 norm nodes were not looked at, in the body of a Loop or Scan")
    assert "(no such shape)" in note
    assert "RMSNormalization_k" in note


def test_outputs_do_not_grow_with_iterations():
    model, _ = CASES["a thousand iterations"]
    typed = runtime.typed_copy(runtime.load(model).model, inline_ours=False)
    values = {value.name: value for value in runtime.values_of(typed)}
    shown, ((first, last),) = runtime.with_values(typed, [[values["k"], values["v"]]])
    run = runtime.run_side(
        dataclasses.replace(runtime.load(model), model=shown, path=None), {"x": FEEDS["x"]}, library=False
    )
    plain = runtime.run_side(runtime.load(model), {"x": FEEDS["x"]}, library=False)
    np.testing.assert_array_equal(run.outputs["y"], plain.outputs["y"])
    np.testing.assert_array_equal(run.outputs[first.names["v"]], FEEDS["x"])
    np.testing.assert_array_equal(run.outputs[last.names["k"]] + np.float32(0.5), plain.outputs["y"])
    assert {array.size for array in run.outputs.values()} == {1, 24}
    assert [int(run.outputs[name]) for one in (first, last) for name in one.iterations] == [0, 999]


def test_a_scan_is_the_loop_that_takes_its_place():
    """Its other results too: states, and what is stacked on any axis in any direction."""
    nodes = loop_models.scan(
        "s_on = Add(s, v) t = Sub(v, z) u = Add(t, half) n = Neg(s_on)",
        out="last, a, b, c",
        given="start, x, x",
        takes="float[3] s, float[3] v, float[3] z",
        gives="float[3] s_on, float[3] u, float[3] t, float[3] n",
        scanned=2,
        attributes=""", scan_input_axes = [1, -1], scan_input_directions = [0, 1],
            scan_output_axes = [0, 1, -2], scan_output_directions = [1, 1, 0]""",
    )
    gives = "float[3] last, float[8, 3] a, float[3, 8] b, float[8, 3] c"
    loaded = runtime.load(loop_models.model(nodes, takes="float[3, 8] x, float[3] start", gives=gives))
    typed = runtime.typed_copy(loaded.model, inline_ours=False)
    value = next(value for value in runtime.values_of(typed) if value.name == "t")
    shown, ((first, last),) = runtime.with_values(typed, [[value]])
    assert {node.op_type for node in shown.graph} >= {"Loop"}
    assert "Scan" not in {node.op_type for node in shown.graph}
    feeds = {"x": FEEDS["x"], "start": np.array([1, -2, 3], np.float32)}
    plain = runtime.run_side(loaded, feeds, library=False).outputs
    run = runtime.run_side(dataclasses.replace(loaded, model=shown, path=None), feeds, library=False).outputs
    for name, array in plain.items():
        np.testing.assert_array_equal(run[name], array)
    np.testing.assert_array_equal(run[first.names["t"]], plain["b"][:, 7])
    np.testing.assert_array_equal(run[last.names["t"]], plain["b"][:, 0])


def test_the_report_names_the_iteration():
    model, _ = CASES["in a loop"]
    report = rmsnorm_onnx.verify(
        model, rmsnorm_onnx.optimize(model).model, per_node=True, threads=1, samples=1
    ).report()
    nodes = [case.name for case in report.cases if case.group.startswith("nodes")]
    assert nodes == ["RMSNormalization k (iteration 0)", "RMSNormalization k (iteration 2)"]
    assert "1 of 1 outputs, 1 of 1 nodes" in report.verdict


def test_models_stay_as_they_were():
    model, _ = CASES["in a scan"]
    fused = rmsnorm_onnx.optimize(model).model
    before = [one.SerializeToString(deterministic=True) for one in (model, fused)]
    looked_at(model, fused)
    assert [one.SerializeToString(deterministic=True) for one in (model, fused)] == before
    assert isinstance(model, onnx.ModelProto)


def test_what_a_loop_stacks_keeps_its_place():
    """More of it than there are carried values, each of a shape of its own."""
    stacked = [f"s{number} = Reshape(k, {shape})" for number, shape in enumerate(["flat", "tall", "wide"] * 2)]
    names = [f"s{number}" for number in range(len(stacked))]
    shapes = ["24", "12, 2", "2, 3, 4"] * 2
    gives = ", ".join(f"float[{shape}] {name}" for name, shape in zip(names, shapes, strict=True))
    outputs = ", ".join(f"float[3, {shape}] o{name}" for name, shape in zip(names, shapes, strict=True))
    model = loop_models.model(
        f"""flat = Constant<value_ints = [24]>() tall = Constant<value_ints = [12, 2]>()
        wide = Constant<value_ints = [2, 3, 4]>() y, {", ".join("o" + name for name in names)} = Loop(three, yes, x)
        <body = b (int64 i, bool c, float[3, 8] v) => (bool d, float[3, 8] u, {gives})
        {{ d = Identity(c) {PLAIN} {" ".join(stacked)} }}>""",
        gives=f"float[3, 8] y, {outputs}",
    )
    loaded = runtime.load(model)
    typed = runtime.typed_copy(loaded.model, inline_ours=False)
    value = next(value for value in runtime.values_of(typed) if value.name == "k")
    shown, _ = runtime.with_values(typed, [[value]])
    plain = runtime.run_side(loaded, {"x": FEEDS["x"]}, library=False).outputs
    run = runtime.run_side(runtime.load(shown), {"x": FEEDS["x"]}, library=False).outputs
    for name, array in plain.items():
        np.testing.assert_array_equal(run[name], array)
    assert [tuple(output.shape) for output in shown.graph.outputs[:7]] == [array.shape for array in plain.values()]
