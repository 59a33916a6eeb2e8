"""``verify``: is the fused model equal to its original, and what was fused where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import parity, runtime, spec
from rmsnorm_onnx.parity import DEFAULT_SAMPLES, Fusion, NearMiss, ParityReport
from rmsnorm_onnx.passes import Fused, Options, plan
from rmsnorm_onnx.passes.emit import node_name
from rmsnorm_onnx.passes.target import TARGETS
from rmsnorm_onnx.progress import Progress, silent

#: (domain, operator) of every node that ``optimize`` writes, whatever the target.
_NORMS: Final = frozenset((o.domain, o.op_type) for target in TARGETS.values() for o in target.operators)


def verify(
    original: runtime.Model,
    fused: runtime.Model,
    *,
    dims: parity.Dims | None = None,
    inputs: parity.Inputs | None = None,
    ranges: Sequence[parity.Range] = (),
    seed: int = 0,
    library: bool = True,
    threads: int | None = None,
    optimization: runtime.Optimization = "basic",
    samples: int = DEFAULT_SAMPLES,
    per_node: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """Run both models on the same inputs and say per output whether they are equal.

    Equal means: same name, type and shape; the same NaN and inf; integers and booleans bit for bit; and floats within
    the bound that the original's own rounding gives (derivation in ``parity.bound``). The original runs in plain
    onnxruntime where that can load it. Models that quantize are compared piece by piece (``runtime.steps``), on what
    the original's quantizers give.

    Args:
        original: path, ModelProto or onnx_ir.Model.
        fused: likewise.
        dims: one value or several for free dimensions by name; see ``runtime.make_feed_sets`` for the others. Every
            combination of values, and of ranges, is one set of inputs.
        inputs: arrays by name, an .npz file, an ONNX test data folder, or a sequence of these; then nothing is random.
        ranges: of real inputs: ``runtime.Range``, (low, high), or text as ``Range.parse`` takes it; normally
            distributed values otherwise.
        seed: of inputs and sampled roundings.
        library: run the fused model with the custom-op library; otherwise through its function bodies.
        threads: threads inside one operator; onnxruntime's choice when None.
        optimization: onnxruntime's graph optimization level for both.
        samples: sampled rounding runs; fewer are faster and make the bound wider.
        per_node: also check every fused node on the inputs that it really gets (``parity.nodes``).
        progress: told what is being done.

    Returns:
        Per output, and per node if asked for, whether it is equal; what was fused where; and how to repeat it.

    Raises:
        InvalidInput: a file, dimension, range or input that does not fit, or models with different inputs.
        CannotRun: a model cannot run, or outputs differ and there is no float64 run to judge them by.
        LibraryMissing: ``library`` is true and there is none.
    """
    begin = perf_counter()
    models = (runtime.load(original), runtime.load(fused))
    report = parity.verify(
        *models,
        dims=dims,
        inputs=inputs,
        ranges=ranges,
        seed=seed,
        library=library,
        threads=threads,
        optimization=optimization,
        samples=samples,
        per_node=per_node,
        progress=progress,
    )
    before = {record.output: record for record in plan(models[0].model).fused}
    left = plan(models[1].model, Options(adopt=False)).near_misses
    return replace(
        report,
        fusions=tuple(_fusions(models[1].model, before)),
        near_misses=tuple(NearMiss(m.node, m.why.value, m.why.text, m.detail, m.tree) for m in left),
        seconds=perf_counter() - begin,
    )


def _fusions(model: ir.Model, before: Mapping[str, Fused]) -> Iterator[Fusion]:
    """Every norm node of ``model``; ``before`` says by output what ``optimize`` sees in the original."""
    for node in _nodes(model):
        if (node.domain, node.op_type) in _NORMS:
            output = str(node.outputs[0].name)
            seen = before.get(output)
            yield Fusion(
                node.op_type,
                node_name(node),
                output,
                pattern=seen.pattern if seen else "",
                replaced=seen.replaced if seen else (),
            )


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Of the main graph and of the functions, those that define our own operators excepted; subgraphs included."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        if function.domain != spec.DOMAIN:
            yield from function.graph.all_nodes()
