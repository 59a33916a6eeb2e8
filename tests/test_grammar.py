"""Random graphs from a grammar of spellings: what is fused is equal in float64, what is no norm is refused.

``RMSNORM_GRAMMAR_GRAPHS=5000 pytest tests/test_grammar.py`` runs so many graphs, ``RMSNORM_GRAMMAR_SEED`` is the first
one's seed. The seed is each test's id: ``PYTHONPATH=tests python -m grammar 1234`` shows that graph and what is wrong
with it, with ``--shrink`` the simplest graph that fails alike.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
from grammar import GAPS, draw, judge, known
from grammar.inputs import VARIANTS, feeds
from grammar.interpreter import Reading, evaluate
from grammar.scopes import SURROUNDINGS
from grammar.sentence import Sentence
from grammar.twists import HARMLESS, NEAR, NEAR_SPELLINGS
from zoo import CASES, Spelling
from zoo import evaluate as run

from rmsnorm_onnx.spec import DType

FIRST = int(os.environ.get("RMSNORM_GRAMMAR_SEED", "0"))
GRAPHS = int(os.environ.get("RMSNORM_GRAMMAR_GRAPHS", "400"))
ALONE = Sentence(0, "alone", Spelling(), Spelling())


@pytest.mark.parametrize("seed", range(FIRST, FIRST + GRAPHS))
def test_the_pass_fuses_what_is_equal_and_explains_what_it_leaves(seed):
    sentence = draw(seed)
    failure = judge(sentence)
    assert failure is None or known(sentence, failure), f"{failure}\n{sentence.describe()}"


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.what)
def test_a_known_gap_is_still_open(gap):
    sentence = draw(gap.example) if isinstance(gap.example, int) else gap.example
    failure = judge(sentence)
    assert failure is not None, "mended: delete its entry in grammar/gaps.py"
    assert known(sentence, failure) is gap


def test_the_grammar_reaches_all_of_itself():
    drawn = [draw(seed) for seed in range(8000)]
    assert {s.surrounding for s in drawn} == set(SURROUNDINGS)
    assert {s.twist for s in drawn} == {None, *HARMLESS, *NEAR, *NEAR_SPELLINGS}
    assert {s.spelling.dtype for s in drawn} == set(DType)
    assert {s.spelling.opset for s in drawn} == set(range(9, 25))


@pytest.mark.parametrize("twist", sorted(set(NEAR) - {"squared-rounded", "root-rounded", "numerator-rounded"}))
def test_inputs_show_every_near_miss(twist):
    spelling = Spelling(shape=(4, 4), epsilon=1e-3, scale=None)
    if not NEAR[twist].fits(spelling):
        spelling = replace(spelling, axes=(0,))
    model = replace(ALONE, spelling=spelling, twist=twist).write()[0]
    norm = replace(ALONE, spelling=spelling).write()[0]
    assert any(not np.allclose(_y(model, variant), _y(norm, variant), rtol=1e-6) for variant in range(VARIANTS))


def test_rounding_shows_in_the_rounded_reading_only():
    rounded, plain = (replace(ALONE, twist=twist).write()[0] for twist in ("squared-rounded", None))
    assert np.array_equal(_y(rounded, 0), _y(plain, 0))
    assert not np.allclose(_y(rounded, 0, Reading.ROUNDED), _y(plain, 0, Reading.ROUNDED), rtol=1e-6)


@pytest.mark.parametrize("id_", ["double", "mean-sum-shape", "double-epsilon-cast", "double-epsilon-outside"])
def test_the_interpreter_agrees_with_onnxruntime(id_):
    case = next(case for case in CASES if case.id == id_)
    model = case.build()
    given = feeds(model, 1)
    wanted = run(case, model, given)["y"]
    np.testing.assert_allclose(evaluate(model, given, Reading.EXACT)["y"], wanted, rtol=1e-5, atol=1e-7)


def _y(model: onnx.ModelProto, variant: int, reading: Reading = Reading.EXACT) -> np.ndarray:
    return evaluate(model, feeds(model, variant), reading)["y"]
