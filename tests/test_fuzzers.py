"""The fuzzers themselves, for a moment: what they see, and what becomes of an input that dies."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import kernels_abi as abi
import numpy as np
import onnx
import pytest
from fuzz import isolate, kernels, models, nodes, oracle
from fuzz.plain import HELD, model, norm, plain, value
from onnx import helper, numpy_helper

import rmsnorm_onnx
from rmsnorm_onnx import library, spec
from rmsnorm_onnx.parity.records import OutputParity, Verdict, Worst


def _quiet(stage):
    pass


def test_models_of_the_fuzzer():
    found = [(number, models.judge(number, _quiet)[1]) for number in range(40)]
    assert not [(number, finding) for number, finding in found if finding is not None]


def test_nodes_of_the_fuzzer(monkeypatch):
    monkeypatch.setenv(kernels.LIBRARY, abi.library_path())
    monkeypatch.setenv(spec.ISA_VARIABLE, abi.isas()[0])
    monkeypatch.setattr(library, "get_library_path", library.get_library_path)
    kernels.judge(-1, _quiet)
    found = [(number, kernels.judge(number, _quiet)[1]) for number in range(60)]
    assert not [(number, finding) for number, finding in found if finding is not None]


def test_nodes_of_the_fuzzer_have_rows_that_kernels_take_ahead():
    """Dense ones, of heads, whole steps and whole blocks, some with more than the 24 rows that are begun at once."""
    found = [node for node in map(nodes.draw, range(400)) if not node.wrong and node.axes == (-1,)]
    dense = [node for node in found if node.scale.shape == node.x.shape[-1:] and node.x.size]
    rows = [(node.x.shape[-1], node.x.size // node.x.shape[-1]) for node in dense]
    for widths in (64, 128, 256), range(512, 4097, 256), {*range(320, 1025, 64)} - {*range(512, 1025, 256)}:
        counts = [count for width, count in rows if width in widths]
        assert min(sum(count > 24 for count in counts), sum(count <= 24 for count in counts)) > 2


def judged(proto, monkeypatch, change):
    """What the fuzzer says where ``change`` was done to the model that was fused."""

    def wrong(given, **options):
        changed = onnx.ModelProto.FromString(given.SerializeToString())
        change(changed)
        return original(changed, **options)

    original = rmsnorm_onnx.optimize
    monkeypatch.setattr(rmsnorm_onnx, "optimize", wrong)
    monkeypatch.setattr(rmsnorm_onnx, "inspect", wrong)
    given = models.Input(1, proto.SerializeToString(deterministic=True), False, ())
    outcomes, finding = models.judge_input(given, _quiet)
    return outcomes, finding.key if finding is not None else None


def initializer(name, array):
    def change(proto):
        for tensor in proto.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), name))

    return change


def with_power(exponent, *outputs):
    """A norm of x, y, and the power p of it."""
    power = helper.make_node("Pow", ["y", "exponent"], ["p"])
    held = {**HELD, "exponent": np.float32(exponent)}
    return model([*norm(), power], held=held, outputs=[value(name) for name in outputs])


@pytest.mark.parametrize("proto", [plain(), with_power(3, "p"), with_power(65504, "p", "y")])
def test_the_fuzzer_sees_a_wrong_fusion(proto, monkeypatch):
    """One with another epsilon."""
    assert judged(proto, monkeypatch, initializer("eps", 0.5))[1] == "another function in float64"


def test_a_rounding_that_the_model_magnifies_is_no_finding(monkeypatch):
    """A factor of sqrt(8) that 16 bits hold, to the power of 65504."""
    slight = initializer("s", np.full(8, 1 + 2.0**-10))
    outcomes, finding = judged(with_power(65504, "p", "y"), monkeypatch, slight)
    assert finding is None
    assert "float64: equal where a rounding is not magnified" in outcomes


def test_what_is_left_of_larger_numbers_is_judged_by_those():
    worst = tuple(Worst((0,), 0.0, expected, None, ulps, 9.0) for expected, ulps in ((2.0**-8, 121.0), (0.25, 3.0)))
    output = OutputParity("inputs", "y", "float32", (2,), Verdict.FUNCTION, worst=worst)
    assert oracle.ulps_of_largest(output) == 3
    assert oracle.ulps_of_largest(replace(output, worst=worst[:1])) == 121


def test_an_entry_of_metadata_may_lack_its_key(monkeypatch):
    def forget(proto):
        del proto.graph.output[0].metadata_props[:]

    proto = plain()
    proto.graph.output[0].metadata_props.add()
    assert judged(proto, monkeypatch, lambda proto: None)[1] is None
    assert judged(proto, monkeypatch, forget)[1] == "outputs have other names, types or shapes (rmsnorm)"


def test_an_input_has_one_number_and_a_number_one_input():
    assert models.draw(17).data == models.draw(17).data
    assert len({models.draw(number).data for number in range(20)}) == 20


def _dies(number, stage):
    stage("dying")
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        time.sleep(60)
    if number == 3:
        bytearray(2 * isolate.MEMORY_LIMIT)
    return ("fine",), None


def test_a_death_is_attributed_to_its_input(monkeypatch):
    monkeypatch.setattr(isolate, "TIME_LIMIT", 4)

    def judge(number, stage):
        try:
            return _dies(number, stage)
        except MemoryError:
            return ("out of memory",), None

    records = {r.number: r for r in isolate.run(judge, iter(range(5)), time.monotonic() + 60)}
    assert records[0].outcomes == records[4].outcomes == ("fine",)
    assert records[1].finding == isolate.Finding("SIGSEGV in dying")
    assert records[2].finding == isolate.Finding("time limit in dying")
    assert "time.sleep(60)" in records[2].finding.text or "_dies" in records[2].finding.text
    assert records[3].outcomes == ("out of memory",)
