"""Proof that a fused model equals its original: ``verify`` and what it returns."""

from rmsnorm_onnx.parity.records import OutputParity, ParityReport, Side, Verdict, Worst
from rmsnorm_onnx.parity.verify import DEFAULT_SAMPLES, verify

__all__ = ["DEFAULT_SAMPLES", "OutputParity", "ParityReport", "Side", "Verdict", "Worst", "verify"]
