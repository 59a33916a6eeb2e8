"""The zoo itself: its graphs are valid, run, and compute what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from zoo import CASES, TOLERANCE, Case, evaluate, feeds
from zoo.case import spelled

from rmsnorm_onnx.spec import OPS, DType, Why

FUSING = [c for c in CASES if c.fuses]
#: Reasons for which the result of a wrong fusion is another one for any input.
CHANGES_RESULT = {Why.EXPONENT, Why.NOT_A_MEAN, Why.KEEPDIMS, Why.EPSILON_NOT_SINGLE}
#: Reasons that no graph has by itself: the chosen target decides.
NOT_IN_A_GRAPH = {Why.TARGET}


def by_id(cases: list[Case] | tuple[Case, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[c.id for c in cases])


def resolves(epsilon: float, precision: DType) -> bool:
    """Whether adding epsilon to the smallest mean square of the zoo's inputs, 1e-4, shows in this type."""
    return epsilon / 1e-4 > 1000 * TOLERANCE[precision]


def shares(case: Case, got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Error of each element as a share of what the case's type allows."""
    if got.shape != wanted.shape:
        return np.asarray(np.inf)
    error = np.abs(got.astype(np.float64) - wanted) / (1 + np.abs(wanted))
    return np.where(np.isnan(error), np.inf, error) / TOLERANCE[case.precision]


@by_id(CASES)
def test_a_case_builds_the_same_valid_model_every_time(case):
    model = case.build()
    assert model.SerializeToString(deterministic=True) == case.build().SerializeToString(deterministic=True)
    assert {i.domain: i.version for i in model.opset_import}[""] == case.opset
    if case.standard:
        onnx.checker.check_model(model, full_check=True)


@by_id(FUSING)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fusing_case_computes_its_formula(case, seed):
    inputs = feeds(case, seed)
    outputs, expected = evaluate(case, case.build(), inputs), case.expected(inputs)
    assert outputs.keys() == expected.keys()
    for name, wanted in expected.items():
        assert np.max(shares(case, outputs[name], wanted)) <= 1, name


@by_id([c for c in CASES if c.why])
def test_a_near_miss_runs_and_takes_a_root(case):
    model = case.build()
    outputs = evaluate(case, model, feeds(case))
    assert [o.name for o in model.graph.output] == list(outputs)
    assert {n.op_type for n in model.graph.node} & {"Sqrt", "Pow", "ReduceL2", "LpNormalization", "RMSNormalization"}


@by_id([c for c in CASES if c.spelling and c.why in CHANGES_RESULT and c.spelling.power_kind != "overridable"])
def test_fusing_a_near_miss_would_change_the_result(case):
    inputs = feeds(case)
    output = evaluate(case, case.build(), inputs)["y"]
    assert not np.isfinite(output).all() or np.max(shares(case, output, case.expected(inputs)["y"])) > 5


@by_id([c for c in FUSING if c.spelling and c.spelling.epsilon and resolves(c.spelling.epsilon, c.precision)])
def test_the_inputs_show_a_wrong_epsilon(case):
    inputs = feeds(case)
    wrong = spelled(case.id, replace(case.spelling, epsilon=2 * case.spelling.epsilon), "")
    assert np.max(shares(case, wrong.expected(inputs)["y"], case.expected(inputs)["y"])) > 5


def test_ids_are_unique():
    ids = [c.id for c in CASES]
    assert sorted(set(ids)) == sorted(ids)


def test_every_reason_and_every_operator_has_a_case():
    assert {c.why for c in CASES if c.why} == set(Why) - NOT_IN_A_GRAPH
    assert {name for c in FUSING for name in c.fuses} == set(OPS)


def test_a_case_has_an_outcome():
    with pytest.raises(AssertionError, match="none: it fuses"):
        Case("none", lambda g: None, "")


def test_inputs_follow_the_seed():
    case = CASES[0]
    np.testing.assert_array_equal(feeds(case, 3)["x"], feeds(case, 3)["x"])
    assert np.any(feeds(case, 3)["x"] != feeds(case, 4)["x"])
