"""Proof that a fused model equals its original: ``verify`` and what it returns."""

from rmsnorm_onnx.parity.command import Dims, Inputs, Range
from rmsnorm_onnx.parity.records import (
    Fusion,
    InputSet,
    NearMiss,
    NodeParity,
    OutputParity,
    ParityReport,
    Reading,
    Verdict,
    Worst,
)
from rmsnorm_onnx.parity.runs import DEFAULT_SAMPLES
from rmsnorm_onnx.parity.verify import verify

__all__ = [
    "DEFAULT_SAMPLES",
    "Dims",
    "Fusion",
    "InputSet",
    "Inputs",
    "NearMiss",
    "NodeParity",
    "OutputParity",
    "ParityReport",
    "Range",
    "Reading",
    "Verdict",
    "Worst",
    "verify",
]
