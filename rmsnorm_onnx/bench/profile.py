"""Where a run's time goes, from onnxruntime's profiler: per operator type, RMS norms apart."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rmsnorm_onnx import spec

#: Operators that are RMS norms, whoever made them. onnxruntime writes ours without their domain.
_NORMS: Final = frozenset(
    {*spec.OPS, "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "GatedRMSNorm"}
)
#: Their time is that of the nodes inside, which are listed too.
_CONTAINERS: Final = frozenset({"If", "Loop", "Scan"})
_SUFFIX: Final = "_kernel_time"


@dataclass(frozen=True, slots=True)
class OpTime:
    """Nodes of one operator type.

    Attributes:
        op: the type.
        norm: whether these nodes are (parts of) RMS norms.
        nodes: how many ran, per run.
        ms: time of one run in all of them, in milliseconds, from the median of each node.
    """

    op: str
    norm: bool
    nodes: float
    ms: float


def read_profile(path: Path, runs: int, norm_nodes: Set[str]) -> tuple[OpTime, ...]:
    """Times per operator type, longest first.

    Args:
        path: the file that onnxruntime wrote.
        runs: how many runs it covers.
        norm_nodes: names of nodes that are parts of RMS norms, besides those that are one by their type.
    """
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(path.read_text()):
        name, op = event.get("name", ""), event.get("args", {}).get("op_name", "")
        if event.get("cat") == "Node" and name.endswith(_SUFFIX) and op not in _CONTAINERS:
            durations[name.removesuffix(_SUFFIX), op].append(event["dur"] / 1e3)
    nodes: dict[tuple[str, bool], float] = defaultdict(float)
    times: dict[tuple[str, bool], float] = defaultdict(float)
    for (name, op), took in durations.items():
        key = op, op in _NORMS or name in norm_nodes
        nodes[key] += len(took) / runs
        times[key] += statistics.median(took) * len(took) / runs
    found = [OpTime(*key, nodes[key], times[key]) for key in times]
    return tuple(sorted(found, key=lambda op: -op.ms))
