"""ONNX's own cases of RMSNormalization, as one node and expanded: through our kernel and through our bodies."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import onnx
import pytest

import rmsnorm_onnx
from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.runtime import make_session

PREFIX = "test_rms_normalization_"
#: What onnx 1.23 ships; newer releases may add some.
AT_LEAST = 38


@functools.cache
def cases() -> dict[str, onnx.backend.test.case.test_case.TestCase]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other operators' cases
        return {case.name: case for case in collect_testcases(None) if case.name.startswith(PREFIX)}


def test_there_are_as_many_as_onnx_ships():
    assert len(cases()) >= AT_LEAST


@pytest.mark.parametrize("library", [True, False], ids=["library", "body"])
def test_all_cases_of_onnx_pass(library):
    for name, case in cases().items():
        fused = rmsnorm_onnx.optimize(case.model)
        assert [record.op for record in fused.fused] == [spec.RMS.name], name
        session = make_session(fused.model, library=library, threads=1)
        for inputs, outputs in case.data_sets:
            names = [i.name for i in fused.model.graph.input]
            got = session.run(None, dict(zip(names, inputs, strict=True)))
            for value, expected in zip(got, outputs, strict=True):
                # The expected values are float32 numpy's, off by a few roundings themselves.
                assert np.max(reference.ulps(value, expected, np.float32)) <= 8, name
