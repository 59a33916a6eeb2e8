"""The benchmark of the CUDA kernels, as far as it needs no GPU: cells, goals, budget, verdicts, what it prints."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import cuda_memory
import kernels_abi as abi
import onnx
import pytest

sys.path.append(str(abi.ROOT))
from custom_ops.bench.gpu import cells, main, sessions
from custom_ops.bench.gpu.budget import FEWEST, MOST, Budget
from custom_ops.bench.gpu.cells import CELLS, Cell
from custom_ops.bench.gpu.results import COLUMNS, Measured, Ort, Result, report
from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.bench.timing import Ratio, Times
from rmsnorm_onnx.report import Status, to_json, to_markdown

SCRIPT = abi.ROOT / "custom_ops" / "bench" / "cuda.py"
RATE = 4e12


def command(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


# cells and goals


def test_cells_are_told_apart_and_have_one_goal():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert all((cell.share is None) != (cell.us is None) for cell in CELLS)
    assert {cell.form for cell in CELLS} == set(abi.FORMS)
    assert {cell.dtype for cell in CELLS} == set(cells.SIZES)
    assert any(cell.offset for cell in CELLS)
    assert any(cell.axis == 1 for cell in CELLS)


@pytest.mark.parametrize(
    ("name", "share", "us"),
    [
        ("plain bfloat16 32768x128", 0.75, None),
        ("plain float16 32768x4096", 0.975, None),
        ("plain bfloat16 1024x262144", 0.96, None),
        ("plain float64 8192x4096", 0.96, None),
        ("skip bfloat16 2048x8192", 0.95, None),
        ("plain bfloat16 8192x4096 off by 1", 0.9, None),
        ("plain bfloat16 8x512x64x64 axis 1", 0.93, None),
        ("skip bfloat16 1x8192", None, 1.8),
    ],
)
def test_goals(name, share, us):
    (cell,) = (cell for cell in CELLS if cell.name == name)
    assert (cell.share, cell.us) == (share, us)


@pytest.mark.parametrize(
    ("form", "tensors"), [("plain", 2), ("skip", 4), ("gated", 3), ("pregated", 3)], ids=lambda value: str(value)
)
def test_bytes(form, tensors):
    assert Cell(form, "bfloat16", (3, 8)).moved == (tensors * 24 + 8) * 2
    assert Cell(form, "float32", (2, 5, 7), axis=1).moved == (tensors * 70 + 5) * 4


@pytest.mark.parametrize("l2", [6 << 20, 50 << 20, 60 << 20, 126 << 20])
def test_sets_are_out_of_l2_when_their_turn_comes(l2):
    for cell in CELLS:
        sets = cell.sets(l2)
        assert 2 <= sets <= cells.MOST_SETS
        assert sets * cell.moved > cells.COLD * l2 or sets == cells.MOST_SETS
        assert sets == 2 or (sets - 1) * cell.moved <= cells.COLD * l2
        assert not cell.warm(l2) or cell.moved * 2 <= l2


def test_goal_arithmetic():
    cell = Cell("plain", "bfloat16", (1000, 1000), share=0.5)
    assert cell.goal_us(RATE) == pytest.approx(2 * cell.moved / RATE * 1e6)
    assert cell.model_us(RATE) == pytest.approx(1.0 + cell.moved / (0.98 * RATE) * 1e6)
    assert Cell("skip", "bfloat16", (1, 4096), us=1.6).goal_us(RATE) == 1.6
    assert Cell("plain", "float32", (2, 2)).goal_us(RATE) is None


# budget


def test_budget_drops_samples_and_never_below_the_fewest():
    now = [0.0]
    budget = Budget(100, reserve=20, clock=lambda: now[0])
    assert budget.rounds("first", 8, 0.1) == MOST
    assert not budget.short
    now[0] = 40
    assert budget.share(4) == 10
    assert budget.rounds("second", 4, 1.0) == 10
    now[0] = 95
    assert budget.rounds("third", 1, 1.0) == FEWEST
    assert budget.short == {"second": 10, "third": FEWEST}
    assert budget.line() == f"95 of 100 s; fewer than {MOST} samples (down to {FEWEST}) in 2 cells"
    assert Budget(100, clock=lambda: 0.0).line() == f"0 of 100 s; {MOST} samples everywhere"


# verdicts


def measured(name, group, us, own=None, **others):
    ratio = None if own is None else Ratio.of([us] * 5, [own] * 5)
    return Measured(name, group, Times.of([us] * 5), ratio, **others)


def result(cell, own, peer, copy=None, **others):
    parts = [
        measured("rmsnorm-onnx", Group.OURS, own, error=1.0),
        measured("peer", Group.PEER, peer, own, error=1.0),
        measured("wrong", Group.PEER, own / 9, own, error=math.inf, correct=False),
        measured("copy", Group.COPY, copy or own, own),
        measured("slow copy", Group.COPY, own * 9, own),
    ]
    return Result(cell, 3, RATE, tuple(parts), **others)


CELL = Cell("plain", "bfloat16", (1000, 10000), share=0.8)
FLOOR = CELL.moved / RATE * 1e6


def test_a_cell_that_reaches_everything():
    good = result(CELL, FLOOR / 0.85, FLOOR / 0.7, FLOOR / 0.9)
    assert good.share == pytest.approx(0.85)
    assert good.beside_copy == pytest.approx(0.85 / 0.9)
    assert good.beside_peer == pytest.approx(0.85 / 0.7)
    assert good.reached
    assert good.not_behind
    assert not good.within_model
    assert result(CELL, FLOOR + 1, FLOOR + 2).within_model
    assert len(good.row()) == len(COLUMNS)
    done = report([good], [Ort("plain", 1.0, 2.5)], [("a fact", "of the run")], "NVIDIA H200")
    assert done.status is Status.PASSED
    assert done.verdict.startswith("1 of 1 goals reached; 1.214 times as fast as the best peer")
    assert "2.50 times as fast as onnxruntime" in done.verdict
    assert "not one" not in done.verdict


@pytest.mark.parametrize(
    ("bad", "orts"),
    [
        (result(CELL, FLOOR / 0.79, FLOOR / 0.7), []),
        (result(CELL, FLOOR / 0.85, FLOOR / 0.87), []),
        (result(CELL, FLOOR / 0.85, FLOOR / 0.7), [Ort("plain", 1.0, 1.9)]),
        (Result(CELL, 3, RATE, (measured("rmsnorm-onnx", Group.OURS, 1, correct=False, error=9.0),)), []),
        (Result(CELL, 3, RATE, (), (("the cell", "out of memory"),)), []),
    ],
    ids=["goal", "peer", "onnxruntime", "wrong", "absent"],
)
def test_what_is_missed_fails(bad, orts):
    done = report([result(CELL, FLOOR / 0.85, FLOOR / 0.7), bad], orts, [], "NVIDIA L4")
    assert done.status is Status.FAILED
    assert "this is not one" in done.verdict


def test_the_report_says_who_was_wrong_and_who_was_missing():
    done = report([result(CELL, 50, 60, absent=(("vLLM", "no"),), plan="path rows")] * 2, [], [], "NVIDIA H200")
    text = to_markdown(done)
    assert "vLLM left out: no (2 cells)" in text
    assert f"WRONG RESULT: wrong: {CELL.name}, error inf" in text
    assert "path rows" in text
    document = json.loads(to_json(done))
    assert [cell["moved_bytes"] for cell in document["cells"]] == [CELL.moved] * 2
    assert document["cells"][0]["cell"]["shape"] == [1000, 10000]
    assert document["cells"][0]["measured"][2]["error"] == "inf"
    assert document["cells"][0]["share"] == pytest.approx(FLOOR / 50)


# the command


def test_a_dry_run_lists_every_cell():
    done = command("--dry-run")
    assert done.returncode == 0, done.stderr
    assert all(cell.name in done.stdout for cell in CELLS)
    assert f"{len(CELLS)} cells; nothing was measured" in done.stdout


def test_without_a_gpu_it_says_so(tmp_path):
    if cuda_memory.has_gpu():
        pytest.skip("there is one")
    done = command(str(tmp_path / "results"))
    assert done.returncode == main.NO_GPU
    assert "no NVIDIA GPU" in done.stderr
    assert not (tmp_path / "results").exists()


def test_it_does_not_stand_for_the_package_of_its_name():
    code = f"""
import importlib.util, runpy, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
sys.argv = [{str(SCRIPT)!r}, "--dry-run"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0
found = importlib.util.find_spec("cuda")
assert found is None or found.origin != {str(SCRIPT)!r}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_the_goals():
    page = (abi.ROOT / "docs" / "cuda.md").read_text()
    assert CELLS[0].name in page
    assert page == main.with_goals(page)


# onnxruntime's nodes and ours, on the CPU


def test_chains_of_both_mean_the_same(monkeypatch):
    """``run`` compares their results."""
    monkeypatch.setattr(sessions, "CELLS", (("plain", "float32", (3, 64)), ("skip", "float32", (3, 64))))
    plain, skip = sessions.run(abi.library_path(), "cpu")
    assert (plain.name, skip.name) == ("plain float32 3x64", "skip float32 3x64")
    assert plain.ratio == plain.theirs_us / plain.ours_us
    model = sessions.chain("skip", "float16", (3, 64), ours=True)
    onnx.checker.check_model(model)
    assert len(model.graph.node) == sessions.CHAIN
