"""Proof that a fused model equals its original: ``verify`` and what it returns."""

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
from rmsnorm_onnx.parity.verify import DEFAULT_SAMPLES, verify

__all__ = [
    "DEFAULT_SAMPLES",
    "Fusion",
    "InputSet",
    "NearMiss",
    "NodeParity",
    "OutputParity",
    "ParityReport",
    "Reading",
    "Verdict",
    "Worst",
    "verify",
]
