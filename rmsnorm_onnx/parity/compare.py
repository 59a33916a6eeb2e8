"""Original against fused on sets of inputs: run both, and judge every output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference, runtime
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity.bound import distance, noise_factor, require_shape, yardstick
from rmsnorm_onnx.parity.errors import margin
from rmsnorm_onnx.parity.hints import renamed
from rmsnorm_onnx.parity.outputs import Truth, before_rounding, identical, judge, with_errors
from rmsnorm_onnx.parity.records import InputSet, OutputParity, Run, Verdict
from rmsnorm_onnx.parity.runs import Models, Options, Pair, TruthRuns, run_exacts, run_pairs, run_pieces, run_truths
from rmsnorm_onnx.runtime.exact import is_float

Array = npt.NDArray[Any]

_NOT_NEEDED: Final = "not needed"
_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One set of inputs, what came of it, and whether the original's roundings had to be sampled."""

    inputs: InputSet
    outputs: tuple[OutputParity, ...]
    sampled: bool


def compare(
    models: Models, sets: Sequence[runtime.Feeds], options: Options, first: runtime.SideRunner | None = None
) -> list[Comparison]:
    """Run both models on every set, and judge every output; ``first`` runs the original, and is released.

    Raises:
        CannotRun: a model cannot run, or outputs differ and there is no float64 run to judge them by.
        LibraryMissing: the library is wanted and missing.
    """
    wholes = run_pairs(models, [feeds.arrays for feeds in sets], options, first)
    steps = runtime.common_steps(models[0].model, models[1].model)
    if not steps:
        named = [(feeds.name, whole) for feeds, whole in zip(sets, wholes, strict=True)]
        judgements = _judge_pairs(named, options)
    else:
        judgements = []
        for feeds, whole in zip(sets, wholes, strict=True):
            # The pieces take what the original's steps gave on this set, and are models of their own.
            pair, notes = run_pieces(whole, steps, options)
            (judgement,) = _judge_pairs([(feeds.name, pair)], options)
            judgements.append(replace(judgement, notes=(*notes, *judgement.notes)))
    return [_comparison(*one) for one in zip(sets, wholes, judgements, strict=True)]


@dataclass(frozen=True, slots=True)
class _Judgement:
    """One record per output of either model, in their order; notes; and who ran the models in float64."""

    records: tuple[OutputParity, ...]
    notes: tuple[str, ...] = ()
    original_exact: str = _NOT_NEEDED
    fused_exact: str = _NOT_NEEDED


def _comparison(feeds: runtime.Feeds, whole: Pair, judgement: _Judgement) -> Comparison:
    names = whole.original.outputs.keys() | whole.fused.outputs.keys()
    inputs = InputSet(
        feeds.name,
        feeds.dims,
        feeds.origin,
        original=Run(whole.original.how, whole.original.passed_over, judgement.original_exact),
        fused=Run(whole.fused.how, whole.fused.passed_over, judgement.fused_exact),
        notes=judgement.notes,
    )
    # Of the values between pieces only those that differ are shown.
    shown = tuple(_of_whole(r, whole) for r in judgement.records if r.name in names or not r.verdict.ok)
    return Comparison(inputs, shown, judgement.original_exact not in {_NOT_NEEDED, _NONE})


def _of_whole(record: OutputParity, whole: Pair) -> OutputParity:
    """What the pieces say about an output, but not that whole models were identical which were not."""
    if record.verdict is not Verdict.IDENTICAL:
        return record
    first, second = whole.original.outputs[record.name], whole.fused.outputs[record.name]
    if first.dtype.kind in "OSU" or identical(first, second):
        return record
    error = float(np.max(distance(second, first.astype(np.float64))))
    return replace(record, verdict=Verdict.WITHIN_BOUND, max_abs_error=error, worst=())


def _judge_pairs(named: Sequence[tuple[str, Pair]], options: Options) -> list[_Judgement]:
    """Judge runs of the same two models on several sets of inputs, given with their names."""
    settled = [_settle(name, pair) for name, pair in named]
    # Where NaN or inf differ there is nothing left to judge, but the float64 run says who is right.
    open_sets = [n for n, records in enumerate(settled) if any(_needs_truth(r) for r in records.values())]
    models = named[0][1].models
    feeds = [named[n][1].feeds for n in open_sets]
    truths = dict(zip(open_sets, run_truths(models[0], feeds, options) if feeds else (), strict=True))
    known = [n for n, truth in truths.items() if isinstance(truth, TruthRuns)]
    feeds = [named[n][1].feeds for n in known]
    exacts = dict(zip(known, run_exacts(models[1], feeds, options) if feeds else (), strict=True))
    judgements = []
    for n, (name, pair) in enumerate(named):
        truth = truths.get(n)
        if truth is None:
            judgements.append(_Judgement(tuple(r for r in settled[n].values() if r is not None)))
        elif isinstance(truth, CannotRun):
            judgements.append(_without_truth(name, pair, settled[n], truth))
        else:
            try:
                judgements.append(_judge_floats(name, pair, settled[n], truth, exacts[n]))
            except CannotRun as error:
                judgements.append(_without_truth(name, pair, settled[n], error))
    return judgements


_Settled: TypeAlias = Mapping[str, OutputParity | None]


def _settle(inputs: str, pair: Pair) -> _Settled:
    """The records that need no float64 run, and None for the others."""
    first, second = pair.original.outputs, pair.fused.outputs
    names = dict.fromkeys([*first, *second])
    records = {name: before_rounding(inputs, name, first.get(name), second.get(name)) for name in names}
    for name, record in records.items():
        if record is not None and record.verdict is Verdict.MISSING:
            here, there = (first, second) if name in first else (second, first)
            only_there = {other: array for other, array in there.items() if other not in here}
            records[name] = replace(record, detail=record.detail + renamed(here[name], only_there))
    return records


def _needs_truth(record: OutputParity | None) -> bool:
    return record is None or record.verdict is Verdict.NON_FINITE


def _judge_floats(
    inputs: str, pair: Pair, settled: _Settled, runs: TruthRuns, fused_exact: runtime.ExactRun | CannotRun
) -> _Judgement:
    """Judge by the float64 runs.

    Raises:
        CannotRun: an output has another shape there.
    """
    first, second = pair.original.outputs, pair.fused.outputs
    notes: list[str] = []
    exact = runs.exact
    known = None if isinstance(fused_exact, CannotRun) else fused_exact
    if isinstance(fused_exact, CannotRun):
        notes.append(f"whether both are the same function was not checked in float64: {fused_exact}")
    for name in (name for name, record in settled.items() if _needs_truth(record)):
        require_shape(name, exact.outputs[name], first[name], "in its own run")
        if known is not None:
            require_shape(name, exact.outputs[name], known.outputs[name], "in that of the fused model")
    roundoff = max(exact.roundoff, known.roundoff if known else 0.0)
    longest = _longest_sum(pair.models[0].model, [*pair.feeds.values(), *exact.outputs.values()])
    records = []
    for name, record in settled.items():
        if record is not None:
            if record.verdict is Verdict.NON_FINITE:
                chance = margin(runs.noise[name])
                record = with_errors(record, first[name], second[name], exact.outputs[name], chance)
            records.append(record)
            continue
        bounds = yardstick(
            first[name],
            exact.outputs[name],
            runs.noise[name],
            exact_roundoff=roundoff,
            longest_sum=longest,
            slack=runs.slack[name],
        )
        if not bounds.original_explained:
            notes.append(
                f"{name}: the original's own run is more than {noise_factor(len(runs.noise[name].rms), 1):.1f} times "
                "further from its float64 run than rounding explains, and was not used as a yardstick"
            )
        truth = Truth(
            exact.outputs[name],
            known.outputs[name] if known else None,
            roundoff <= reference.roundoff(np.float64),
            bounds,
            margin(runs.noise[name]),
        )
        records.append(judge(inputs, name, first[name], second[name], truth))
    return _Judgement(tuple(records), tuple(notes), exact.how, known.how if known else _NONE)


def _without_truth(inputs: str, pair: Pair, settled: _Settled, error: CannotRun) -> _Judgement:
    first, second = pair.original.outputs, pair.fused.outputs
    different = [n for n, record in settled.items() if record is None and not identical(first[n], second[n])]
    if different:
        raise CannotRun(
            f"outputs {', '.join(different)} are not identical, and whether that is rounding cannot be told "
            f"without a float64 run of the original: {error}"
        ) from error
    records = tuple(
        record or OutputParity(inputs, name, str(first[name].dtype), first[name].shape, Verdict.IDENTICAL, 0.0)
        for name, record in settled.items()
    )
    notes: tuple[str, ...] = ()
    if None in settled.values():
        notes = (f"no float64 run of the original ({error}); the outputs are identical all the same",)
    return _Judgement(records, notes, _NONE, _NONE)


def _longest_sum(model: ir.Model, arrays: list[Array]) -> int:
    """Upper estimate of the number of terms of any sum: the longest axis, or a convolution's kernel size."""
    longest = max((max(array.shape, default=1) for array in arrays if is_float(array.dtype)), default=1)
    for graph in model.graphs():
        for value in graph.initializers.values():
            shape = [dim for dim in value.shape or () if isinstance(dim, int)]
            terms = prod(shape[1:]) if len(shape) > 2 else max(shape, default=1)
            longest = max(longest, terms, max(shape, default=1))
    return longest
