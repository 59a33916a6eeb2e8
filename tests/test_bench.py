"""The benchmark commands: promised fields, refusals, wrong outputs reported. No speed is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from command import TESTS, run
from exports import MODELS
from versions import before, needs

import rmsnorm_onnx
from rmsnorm_onnx import bench, spec
from rmsnorm_onnx.bench import contestant, copies, document, kernel_summary, kernels, problem, profile, timing
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.report import to_json

LLAMA = MODELS / "llama-dynamo18-f32" / "model.onnx"
RMS_NORMALIZATION = needs("onnxruntime", "1.23", "knows no opset 23, so no RMSNormalization of ONNX")
FEW = {"seconds": 0.01, "threads": 1}


@pytest.fixture(scope="module")
def quick() -> rmsnorm_onnx.KernelBenchmark:
    forms, dtypes = ["plain", "skip", "gated", "pregated"], ["float32", "bfloat16"]
    return rmsnorm_onnx.benchmark_kernels(forms=forms, dtypes=dtypes, shapes=[(3, 256)], quick=True)


@pytest.fixture(scope="module")
def timed() -> rmsnorm_onnx.ModelBenchmark:
    return rmsnorm_onnx.benchmark(LLAMA, drop_in=True, **FEW)


def wrong_epsilon(path: Path) -> Path:
    model = rmsnorm_onnx.optimize(LLAMA).model
    node = next(node for node in model.graph.node if node.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-2
    onnx.save(model, path)
    return path


def test_every_cell_holds_ours_checked_beside_copies(quick):
    assert quick.ok
    assert [(c.form, c.dtype) for c in quick.cells] == [
        (f, d) for f in ("plain", "skip", "gated", "pregated") for d in ("float32", "bfloat16")
    ]
    for cell in quick.cells:
        own = cell.fastest(contestant.Group.OURS)
        assert own.correct
        assert own.error < 8
        copied = [m for m in cell.measurements if m.group is contestant.Group.COPY]
        assert {m.name for m in copied} == {"memcpy", "ort Identity"}
        assert max(m.share_of_copy for m in copied) == 1
        assert all(0 < m.us_p50 <= m.us_p90 and m.gb_per_s > 0 for m in cell.measurements)
        arrays = {"plain": 2, "skip": 4, "gated": 3, "pregated": 3}[cell.form]
        assert cell.bytes == arrays * 3 * 256 * (4 if cell.dtype == "float32" else 2)
        assert cell.copies > 1
        assert all(m.correct for m in cell.measurements)
        assert cell.speedup(contestant.Group.ONNXRUNTIME)


@RMS_NORMALIZATION
def test_every_way_of_onnxruntimes_has_its_own_ratio(quick):
    cells = {(c.form, c.dtype): c for c in quick.cells}
    plain, cast = {"ort Add + SimplifiedLayerNorm.", "ort SkipSimplifiedLayerNorm."}, "ort Cast, "
    assert cells["skip", "float32"].speedups().keys() == {*plain, "ort Add + RMSNorm."}
    direct = () if before("onnxruntime", "1.30") else ("ort SkipSimplifiedLayerNorm.",)  # a kernel for bfloat16
    assert cells["skip", "bfloat16"].speedups().keys() == {
        *direct,
        *(name.replace("ort ", cast) for name in plain),
    }
    for cell in quick.cells:
        own = cell.fastest(contestant.Group.OURS)
        ratios = {m.name: m.us_p50 / own.us_p50 for m in cell.measurements if m.group is contestant.Group.ONNXRUNTIME}
        assert cell.speedups() == ratios
        assert cell.speedup(contestant.Group.ONNXRUNTIME) == min(ratios.values())


@pytest.mark.parametrize("dtype", problem.DTYPES)
def test_chains_compute_norms_of_norms(dtype):
    forms = list(problem.FORMS)
    result = rmsnorm_onnx.benchmark_kernels(forms=forms, dtypes=[dtype], shapes=[(3, 64)], chain=3, quick=True)
    assert [(c.form, c.chain) for c in result.cells] == [(form, chain) for form in forms for chain in (1, 3)]
    assert all(m.correct for cell in result.cells for m in cell.measurements)
    assert {c.copies for c in result.cells if c.chain == 3} == {3}
    step = problem.Problem("plain", "float64", 3, 64)
    (once,) = step._expected
    step.__dict__["inputs"] = {**step.inputs, "X": once}
    del step.__dict__["_expected"]
    assert problem.Problem("plain", "float64", 3, 64, chain=2).error(step._expected) == 0


def a_cell(rows, width, theirs, *, chain=1, ours=2.0, nbytes=1 << 20):
    def measured(name, group, microseconds):
        return bench.Measurement(name, group, microseconds, microseconds, 1.0, 1.0, 0.0, True)

    others = [measured(name, contestant.Group.ONNXRUNTIME, time) for name, time in theirs.items()]
    found = (measured("ours", contestant.Group.OURS, ours), *others)
    return bench.Cell("skip", "float32", rows, width, chain, 1, nbytes, 1, found, ())


def test_a_summary_keeps_large_narrow_small_and_chained_cells_apart():
    cells = [
        a_cell(1, 64, {"a": 3.0, "b": 1.0}, nbytes=1 << 10),
        a_cell(512, 128, {"a": 8.0, "b": 2.0}),
        a_cell(512, 4096, {"a": 2.0, "b": 32.0}),
        a_cell(512, 4096, {"a": 1.0}, chain=8),
    ]
    a, b, best = kernel_summary.summaries(cells)
    assert (a.other, a.large, a.narrow, a.chain) == ("a", pytest.approx(2), pytest.approx(6**0.5), 0.5)
    assert (a.worst, a.worst_shape, a.fixed_us) == (1.0, "512x4096", (2.0, 3.0))
    assert (b.large, b.worst, b.worst_shape, b.chain) == (pytest.approx(4), 0.5, "1x64", None)
    assert (best.other, best.large, best.fixed_us) == ("onnxruntime's fastest", pytest.approx(1), (2.0, 1.0))
    assert b.row() == ("skip float32, 1 thread", "b", "4.00", "0.71", "0.50 (1x64)", "-", "2, 1")


@RMS_NORMALIZATION
def test_kernels_as_json(quick):
    document = json.loads(to_json(quick.report()))
    assert document["schema_version"] == 1
    assert document["machine"].keys() >= {"cpu", "cores", "isa", "versions", "load"}
    (first, *_) = document["cells"]
    assert first["measurements"][0]["group"] == "this package"
    keys = {"us_p50", "us_p90", "gb_per_s", "share_of_copy", "error", "correct"}
    assert first["measurements"][0].keys() >= keys
    assert first["times_as_fast_as"].keys() >= {"ort RMSNorm.", "ort SimplifiedLayerNorm."}
    assert first["times_as_fast_as_onnxruntime"] == min(first["times_as_fast_as"].values())
    keys = {"form", "dtype", "threads", "other", "large", "narrow", "worst", "worst_shape", "fixed_us", "chain"}
    assert all(summary.keys() == keys for summary in document["summaries"])


def test_kernels_as_a_table(quick):
    report = quick.report()
    assert [table.title for table in report.tables][:2] == ["plain float32, 1 thread", "plain bfloat16, 1 thread"]
    assert report.tables[0].columns == ("", "3x256")
    assert report.tables[-1].title == "How many times as fast ours is"
    assert "times as fast as onnxruntime's fastest" in report.verdict
    assert any(label == "machine" and "onnxruntime" in line for label, line in report.facts)


def test_a_wrong_kernel_is_reported_and_never_the_fastest(quick):
    cell = quick.cells[0]
    wrong = tuple(replace(m, correct=m.group is not contestant.Group.OURS) for m in cell.measurements)
    result = replace(quick, cells=(replace(cell, measurements=wrong),))
    assert not result.ok
    assert "WRONG" in result.report().tables[0].rows[0][1]
    assert ("WRONG RESULT", "rmsnorm-onnx plain float32 3x256") in result.report().facts


@pytest.mark.parametrize("form", problem.FORMS)
@pytest.mark.parametrize("dtype", problem.DTYPES)
def test_wrong_outputs_are_seen(form, dtype):
    question = problem.Problem(form, dtype, 5, 192)
    right = question._expected
    assert question.error(tuple(y.astype(question.numpy_type) for y in right)) <= 1
    assert question.error((right[0] * 1.1,)) > question.tolerance
    assert question.error((np.full_like(right[0], np.nan),)) > question.tolerance


def test_the_picture_is_svg_with_a_line_per_implementation(quick):
    root = ElementTree.fromstring(bench.to_svg(quick))
    assert root.tag.endswith("svg")
    texts = {element.text for element in root.iter() if element.text}
    assert {"rmsnorm-onnx", "memcpy", "ort Identity", "GB/s", "plain float32, 1 thread"} <= texts


def test_copies_with_several_threads_copy_everything():
    two = copies.memcpy(problem.Problem("plain", "float32", 3, 1000), 2)
    two.repeat(2)
    assert two.overhead_s > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"forms": ["nothing"]},
        {"dtypes": ["int8"]},
        {"threads": [0]},
        {"threads": [4096]},
        {"shapes": [(0, 4)]},
        {"chain": 1},
        {"grid": "?"},
    ],
)
def test_wrong_questions_are_refused(wrong):
    with pytest.raises(InvalidInput):
        kernels.benchmark_kernels(quick=True, **wrong)


def test_one_model_is_compared_with_itself_optimized_and_dropped_in(timed):
    added = ["", ", optimized", ", drop-in", ", again"]
    assert [m.name for m in timed.models] == [f"model.onnx{what}" for what in added]
    assert [m.equal for m in timed.models] == [True, True, None, None]
    assert timed.ok
    for model in timed.models:
        assert model.times.samples >= 21
        assert 0 < model.times.p50 <= model.times.p90 <= model.times.p99
        assert model.load_ms > 0
        assert model.first_ms > 0
        assert 0 < model.norm_ms < model.profiled_ms
    first, optimized, *_ = timed.models
    assert first.ratio.median == 1
    assert optimized.ratio.low <= optimized.ratio.median <= optimized.ratio.high
    ours = {op.op: op.nodes for op in optimized.profile if op.norm}
    assert ours == {"RMSNormalization": 1, "SkipRMSNormalization": 4}


def test_models_as_json(timed):
    document = json.loads(to_json(timed.report()))
    assert document["schema_version"] == 1
    assert document["ok"] is True
    model = document["models"][1]
    assert model["ms"].keys() == {"p50", "p90", "p99", "mean"}
    assert model["ratio"].keys() == {"median", "low", "high"}
    assert 0 < model["norm_share"] < 1
    assert model["profile"][0].keys() == {"op", "norm", "nodes", "ms"}


def test_different_outputs_are_reported(tmp_path):
    result = rmsnorm_onnx.benchmark(LLAMA, wrong_epsilon(tmp_path / "wrong.onnx"), **FEW)
    assert not result.ok
    assert result.models[1].equal is False
    assert "DIFFER" in result.report().verdict
    assert result.models[1].times.samples >= 21


def test_models_need_the_same_inputs():
    other = MODELS / "channel-dynamo18-f16" / "model.onnx"
    with pytest.raises(InvalidInput, match="different inputs"):
        rmsnorm_onnx.benchmark(LLAMA, other, **FEW)
    with pytest.raises(InvalidInput, match="at least one"):
        rmsnorm_onnx.benchmark()
    with pytest.raises(InvalidInput, match="positive"):
        rmsnorm_onnx.benchmark(LLAMA, seconds=0)


@pytest.mark.parametrize("name", ["llama-64x2-prefill", "llama-64x2-decode"])
def test_synthetic_decoders_are_models_whose_norms_are_found(name, tmp_path):
    path = bench.save(name, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    assert len(rmsnorm_onnx.optimize(path).fused) == 5
    with pytest.raises(InvalidInput, match="known: llama-1024x24-prefill"):
        bench.save("gpt", tmp_path)


def test_the_commands(tmp_path):
    picture, markdown = tmp_path / "rates.svg", tmp_path / "rates.md"
    written = ("--json", "--picture", picture, "--markdown", markdown)
    done = run("benchmark", "kernels", "--quick", "--shape", "2x64", "--chain", 2, *written)
    assert [(cell["rows"], cell["chain"]) for cell in json.loads(done.stdout)["cells"]] == [(2, 1), (2, 2)]
    assert not done.stderr
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert "| rmsnorm-onnx |" in markdown.read_text()
    done = run("benchmark", "model", "--synthetic", "llama-64x2-decode", "--seconds", 0.01, "--threads", 1, "--json")
    assert json.loads(done.stdout)["models"][1]["equal"] is True


def test_the_command_says_no_to_different_outputs(tmp_path):
    wrong = wrong_epsilon(tmp_path / "wrong.onnx")
    done = run("benchmark", "model", LLAMA, wrong, "--seconds", 0.01, "--threads", 1, code=1)
    assert "outputs DIFFER" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("kernels", "--form", "nothing"),
        ("kernels", "--shape", "4096"),
        ("kernels", "--threads", 0),
        ("kernels", "--grid", "?"),
        ("model",),
        ("model", "missing.onnx"),
        ("model", LLAMA, "--dim", "nothing=3"),
        ("model", LLAMA, "--inputs", "missing.npz"),
        ("model", "--synthetic", "gpt"),
    ],
)
def test_wrong_usage_exits_2(arguments):
    assert run("benchmark", *arguments, code=2).stderr


def test_samples_are_interleaved_and_summed_up():
    order: list[str] = []
    calls = {name: lambda _, name=name: order.append(name) for name in "ab"}
    samples = timing.interleave(calls, timing.Effort(rounds=4, sample_s=0.0))
    assert order[-8:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {len(s) for s in samples.values()} == {4}
    slow = timing.interleave({"slow": lambda _: None}, timing.Effort(rounds=9, sample_s=0.0, budget_s=0.0))
    assert len(slow["slow"]) == 5
    times = timing.Times.of([1.0, 2.0, 3.0])
    assert (times.p50, times.mean, times.samples) == (2.0, 2.0, 3)
    ratio = timing.Ratio.of([2.0] * 50, [1.0] * 50)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)


def test_profiles_count_what_is_inside_containers_once(tmp_path):
    def node(name: str, op: str, microseconds: int) -> dict[str, object]:
        args = {"op_name": op}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}

    events = [node("if", "If", 500), node("n", "Pow", 200), node("m", "Mul", 100), node("m", "Mul", 300)]
    (tmp_path / "profile.json").write_text(json.dumps([*events, {"cat": "Session", "name": "model_run", "dur": 900}]))
    found = profile.read_profile(tmp_path / "profile.json", 2, {"n"})
    assert [(o.op, o.norm, o.nodes, o.ms) for o in found] == [("Mul", False, 1.0, 0.2), ("Pow", True, 0.5, 0.1)]


def test_a_page_is_measured_anew(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    monkeypatch.chdir(TESTS)
    page.write_text(
        "# Page\n\n<!-- benchmark kernels --quick --shape 2x64 -->\nold\n<!-- /benchmark -->\n\n"
        "<!-- benchmark model $NO_SUCH_FOLDER/model.onnx -->\nkept\n<!-- /benchmark -->\n"
    )
    document.main(page)
    text = page.read_text()
    assert "old" not in text
    assert "| rmsnorm-onnx |" in text
    assert "#### plain float32, 1 thread" in text
    assert text.endswith("-->\nkept\n<!-- /benchmark -->\n")
    with pytest.raises(InvalidInput, match="no page"):
        document.main(tmp_path / "none.md")
