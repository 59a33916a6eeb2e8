"""Finds RMS norms by what the nodes of a graph mean, whatever their spelling; changes nothing."""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx.matcher.match import Findings, Match, NearMiss
from rmsnorm_onnx.matcher.reader import read
from rmsnorm_onnx.matcher.select import select

__all__ = ["Findings", "Match", "NearMiss", "find"]


def find(model: ir.Model, *, adopt: bool = True) -> Findings:
    """Every RMS norm of ``model``, and everything that only looks like one.

    Args:
        model: searched in its main graph, its subgraphs and its functions; it is not changed.
        adopt: also find nodes that are RMS norms already: ONNX's RMSNormalization and onnxruntime's
            SimplifiedLayerNormalization.

    Returns:
        Matches and near misses, in graph order.
    """
    return select(read(model, adopt))
