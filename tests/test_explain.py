"""The tree that explains a near miss: every kind, the mark where the fault is, and what to change."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest
from zoo import CASES, Case

import rmsnorm_onnx
from rmsnorm_onnx.passes import plan
from rmsnorm_onnx.passes.explain import _ADVICE
from rmsnorm_onnx.report import to_json
from rmsnorm_onnx.spec import Why

REFUSED = [case for case in CASES if not case.fuses]


def tree_of(id_: str, **options: str) -> list[str]:
    case = next(case for case in CASES if case.id == id_)
    result = rmsnorm_onnx.inspect(case.build(), **options)
    return list(next(miss for miss in result.near_misses if case.why in {miss.why, None}).tree)


@pytest.mark.parametrize("case", REFUSED, ids=[case.id for case in REFUSED])
def test_every_near_miss_has_a_tree_with_one_mark_and_an_advice(case: Case):
    (miss, *_) = (miss for miss in plan(ir.from_proto(case.build())).near_misses if miss.why is case.why)
    *nodes, advice = miss.tree
    assert 1 < len(nodes) < 32
    assert sum("  <-- " in line for line in nodes) == 1
    assert advice.startswith("change: ")
    (mark,) = (line.partition("  <-- ")[2] for line in nodes if "  <-- " in line)
    assert miss.detail.startswith(mark)
    assert not nodes[0].startswith(" ")
    assert all(line.startswith("  ") for line in nodes[1:])


def test_there_is_advice_for_every_reason():
    assert set(_ADVICE) == set(Why)


def test_the_offending_node_is_marked():
    assert tree_of("not-epsilon-vector") == [
        "Div 'Div_1' -> 'div_1'",
        "  x = 'x', an input FLOAT[B,S,8]",
        "  Sqrt 'Sqrt_1'",
        "    Add 'Add_1'  <-- 'constant_3' has shape [8]",
        "      ReduceMean 'ReduceMean_1'",
        "        Pow 'Pow_1'",
        "          x = 'x', an input FLOAT[B,S,8]",
        "          'constant_1' = 2.0",
        "        'constant_2' = [-1]",
        "      'constant_3' = FLOAT[8]",
        "change: give epsilon one value",
    ]


def test_constants_that_a_feed_may_override_say_so():
    (line,) = (line for line in tree_of("not-epsilon-overridable") if "override" in line)
    assert line.strip() == "'constant_3' = 1e-05 (a feed may override it)"


def test_a_whole_norm_is_shown_where_the_target_cannot_express_it():
    tree = tree_of("epsilon-outside", target="ort")
    assert "SimplifiedLayerNormalization has no epsilon outside the root" in tree[0]
    assert any("Sqrt" in line for line in tree)
    assert any("ReduceMean" in line for line in tree)
    assert tree[-1].startswith("change: use the target 'rmsnorm'")


def test_the_json_document_holds_the_tree():
    case = next(case for case in REFUSED if case.id == "not-power-3")
    document = json.loads(to_json(rmsnorm_onnx.inspect(case.build()).report()))
    assert document["target"] == "rmsnorm"
    (miss,) = document["near_misses"]
    assert miss["tree"] == tree_of("not-power-3")
    assert any("<-- the exponent is 3, not 2" in line for line in miss["tree"])
