"""Original against fused, on sets of inputs: what ``verify`` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmsnorm_onnx import library as custom_ops
from rmsnorm_onnx import runtime
from rmsnorm_onnx.environment import PACKAGES, machine, versions_of
from rmsnorm_onnx.errors import CannotRun, InvalidInput, LibraryMissing
from rmsnorm_onnx.parity import hints
from rmsnorm_onnx.parity.command import Dims, Inputs, Range, command
from rmsnorm_onnx.parity.compare import Comparison, compare
from rmsnorm_onnx.parity.nodes import check_nodes
from rmsnorm_onnx.parity.records import ModelFile, NodeParity, ParityReport, Repeat
from rmsnorm_onnx.parity.runs import DEFAULT_SAMPLES, Models, Options, runner_of
from rmsnorm_onnx.progress import Progress, silent


def verify(
    original: runtime.Model | runtime.LoadedModel,
    fused: runtime.Model | runtime.LoadedModel,
    *,
    dims: Dims | None = None,
    inputs: Inputs | None = None,
    ranges: Sequence[Range] = (),
    seed: int = 0,
    library: bool = True,
    threads: int | None = None,
    optimization: runtime.Optimization = "basic",
    samples: int = DEFAULT_SAMPLES,
    per_node: bool = False,
    progress: Progress = silent,
) -> ParityReport:
    """What ``rmsnorm_onnx.verify`` gives, without what was fused where: that takes the matcher.

    Arguments and errors as there; models may also be what ``runtime.load`` gives.
    """
    if samples < 1 or (threads is not None and threads < 1):
        raise InvalidInput(f"samples and threads must be at least 1, got {samples} and {threads}")
    options = Options(library, threads, optimization, samples, seed, per_node, progress)
    models = (_load(original), _load(fused))
    hints.check_inputs(models)
    first = runner_of(models[0], options, library=False)
    sets = runtime.make_feed_sets(
        models[0].model,
        dims=dims,
        inputs=inputs,
        seed=seed,
        ranges=[_range(one) for one in ranges],
        # Another evaluator takes minutes to say that a size does not fit.
        run=lambda feeds: first(feeds.arrays, reference=False),
    )
    try:
        comparisons = compare(models, sets, options, first)
        nodes, notes = _check_nodes(models, sets, options) if per_node else ((), {})
    except LibraryMissing:
        raise
    except CannotRun as error:
        if hint := hints.why_not(models, library=library):
            raise CannotRun(f"{hint}\n({error})") from error
        raise
    about_models = hints.notes(models)
    return ParityReport(
        original=ModelFile(models[0].name, models[0].sha256),
        fused=ModelFile(models[1].name, models[1].sha256),
        sets=tuple(
            replace(one.inputs, notes=(*about_models, *one.inputs.notes, *notes.get(one.inputs.name, ())))
            for one in comparisons
        ),
        outputs=tuple(output for one in comparisons for output in one.outputs),
        nodes=nodes,
        fusions=(),
        near_misses=(),
        repeat=Repeat(
            command=command(models, options, dims, inputs, ranges),
            seed=seed,
            samples=samples if any(one.sampled for one in comparisons) else 0,
            versions=versions_of(PACKAGES),
            machine=machine(),
            isa=custom_ops.info().isa_active if library else "",
            providers=_providers(comparisons),
        ),
    )


def _check_nodes(
    models: Models, sets: Sequence[runtime.Feeds], options: Options
) -> tuple[tuple[NodeParity, ...], dict[str, tuple[str, ...]]]:
    """The nodes' records on all sets, and notes by name of the set."""
    records: list[NodeParity] = []
    notes = {}
    for number, feeds in enumerate(sets):
        options.progress("every node", number, len(sets))
        checked, notes[feeds.name] = check_nodes(*models, feeds.arrays, options, feeds.name)
        records += checked
    return tuple(records), notes


def _providers(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    ways = [run.how for one in comparisons for run in (one.inputs.original, one.inputs.fused)]
    return runtime.CPU if any(how.startswith("onnxruntime") for how in ways) else ()


def _load(model: runtime.Model | runtime.LoadedModel) -> runtime.LoadedModel:
    return model if isinstance(model, runtime.LoadedModel) else runtime.load(model)


def _range(given: Range) -> runtime.Range:
    if isinstance(given, str):
        return runtime.Range.parse(given)
    return given if isinstance(given, runtime.Range) else runtime.Range(*given)
