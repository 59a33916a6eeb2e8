"""What older releases of the packages that this one stands on cannot do, each with the first release that can.

A test that fails for one of these reasons in a release before that one is skipped, with a reason that begins with
package and version; in any other release it fails. ``matrix.py`` collects the reasons.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

import pytest

#: Package, first release that can, words of the test's name and its error, what is missing.
LIMITS: Final = (
    ("onnx", "1.22", r"ParseError at .*Integer value expected", "takes no quoted names of dimensions in its text form"),
    (
        "onnx",
        "1.23",
        r"^\S+test_an_absurdly_long_list_costs_neither_time_nor_memory\[shape1\]",
        "makes an axis of each of the eight million elements that a Reshape gives a target shape, in 20 s",
    ),
    (
        "onnxruntime",
        "1.23",
        r"[Oo]pset 2[34] is under development|expected opset 2[12] or lower|domain_version of 23"
        r"|is till opset 2[12]|Unsupported model IR version: 11|expected IR version 10 or lower",
        "knows no opset 23, so no RMSNormalization of ONNX, and no IR version 11",
    ),
    (
        "onnxruntime",
        "1.21",
        r"^\S+test_nan_and_inf_are_compared",
        "gives NaN for Sqrt of an infinite float32 among four or more, and 1.18 takes no notice of NaN in Max",
    ),
    ("onnxruntime", "1.21", r"[Oo]pset 22 is under development", "knows no opset 22"),
    (
        "onnxruntime",
        "1.24",
        r"[Oo]pset 24 is under development|Unsupported model IR version: 12",
        "knows no opset 24 and no IR version 12",
    ),
    (
        "onnxruntime",
        "1.24",
        r"RMSNormalization node.*Size of scale and bias",
        "broadcasts a scale of one element in RMSNormalization only where it knows the shape beforehand",
    ),
    (
        "onnxruntime",
        "1.24",
        r"Size of X\.shape\[axis:\] must be larger than 1",
        "refuses rows of one element in RMSNormalization and, since 1.21, in SimplifiedLayerNormalization",
    ),
    (
        "onnxruntime",
        "1.31",
        r"Failed to find kernel for com.microsoft.QuickGelu",
        "fuses x * sigmoid(x) of float64 into a QuickGelu that it has no kernel for, from the level extended on",
    ),
    (
        "onnxruntime",
        "1.30",
        r"GatedRMSNorm\(-1\) is not a registered",
        "has no GatedRMSNorm, which --target ort writes",
    ),
    (
        "onnxruntime",
        "1.30",
        r"implementation for SimplifiedLayerNormalization",
        "has no SimplifiedLayerNormalization of bfloat16",
    ),
    (
        "onnxruntime",
        "1.26",
        r"implementation for FusedMatMul",
        "has no float64 FusedMatMul, which verify's float64 run needs",
    ),
    (
        "onnxruntime",
        "1.21",
        r"Type 'tensor\(double\)' of input parameter .* of operator \(FastGelu\)",
        "has no FastGelu of float64, which verify's float64 run needs",
    ),
    ("onnxruntime", "1.20", r"implementation for ReduceL2", "has no ReduceL2 of float64"),
    (
        "onnxruntime",
        "1.20.1",
        r"^\S+(adopt-skip-simplified-bias|test_residual_sum_is_the_one_of_onnxruntime)",
        "computes its own SkipSimplifiedLayerNormalization wrongly: with a bias, and 1.20.0 always in float16",
    ),
    (
        "onnxruntime",
        "1.20",
        r"for bfloat16 tensors in Python|no attribute 'ortvalue_from_numpy_with_onnx_type'",
        "takes no bfloat16 tensors in Python",
    ),
)


def lacking(text: str) -> str | None:
    """Why a test that failed with these words cannot pass here, if that is known."""
    for package, first, words, what in LIMITS:
        if before(package, first) and re.search(words, text, re.DOTALL):
            return _reason(package, what)
    return None


def needs(package: str, first: str, what: str) -> pytest.MarkDecorator:
    """Skips a test before a release, for what shows in no error."""
    return pytest.mark.skipif(before(package, first), reason=_reason(package, what))


def before(package: str, release: str) -> bool:
    """Whether the installed release is an older one."""
    return _numbers(_installed(package)) < _numbers(release)


def _reason(package: str, what: str) -> str:
    return f"{package} {_installed(package)} {what}"


def _installed(package: str) -> str:
    """Its version; onnxruntime for GPUs is a package of another name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return metadata.version(f"{package}-gpu")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
