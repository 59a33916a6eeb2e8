"""Original against fused, on sets of inputs: what ``verify`` answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import library as custom_ops
from rmsnorm_onnx import runtime
from rmsnorm_onnx.environment import PACKAGES, machine, versions_of
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.parity.compare import Comparison, compare
from rmsnorm_onnx.parity.records import ModelFile, ParityReport, Repeat
from rmsnorm_onnx.parity.runs import Options
from rmsnorm_onnx.runtime.inputs import input_specs

Array = npt.NDArray[Any]

#: Sampled rounding runs; with eight, one draw may exceed the largest by a factor of 8.03 (``bound.noise_factor``).
DEFAULT_SAMPLES: Final = 8


def verify(
    original: runtime.Model | runtime.LoadedModel,
    fused: runtime.Model | runtime.LoadedModel,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    seed: int = 0,
    library: bool = True,
    threads: int | None = None,
    optimization: runtime.Optimization = "basic",
    samples: int = DEFAULT_SAMPLES,
) -> ParityReport:
    """Run both models on the same inputs and say per output whether they are equal.

    Equal means: same name, type and shape; the same NaN and inf; integers and booleans bit for bit; and floats within
    the bound that the original's own rounding gives (derivation in ``parity.bound``). The original runs in plain
    onnxruntime where that can load it. Models that quantize are compared piece by piece (``runtime.steps``), on what
    the original's quantizers give.

    Args:
        original: path, ModelProto, onnx_ir.Model, or what ``runtime.load`` gives.
        fused: likewise.
        dims: values of free dimensions by name; see ``runtime.make_feeds`` for the others.
        inputs: arrays by name, an .npz file, or an ONNX test data folder, instead of seeded values.
        seed: of inputs and sampled roundings.
        library: run the fused model with the custom-op library; otherwise through its function bodies.
        threads: threads inside one operator; onnxruntime's choice when None.
        optimization: onnxruntime's graph optimization level for both.
        samples: sampled rounding runs; fewer are faster and make the bound wider.

    Raises:
        InvalidInput: a file, dimension or input that does not fit, or models with different inputs.
        CannotRun: a model cannot run, or outputs differ and there is no float64 run to judge them by.
        LibraryMissing: ``library`` is true and there is none.
    """
    if samples < 1:
        raise InvalidInput(f"at least one sampled run is needed, got samples={samples}")
    models = (_load(original), _load(fused))
    _same_inputs(models[0].model, models[1].model)
    feeds = runtime.make_feeds(models[0].model, dims=dims, inputs=inputs, seed=seed)
    options = Options(library, threads, optimization, samples, seed)
    comparisons = [compare(models, _name(feeds), feeds, options)]
    return ParityReport(
        original=_file(models[0]),
        fused=_file(models[1]),
        sets=tuple(one.inputs for one in comparisons),
        outputs=tuple(output for one in comparisons for output in one.outputs),
        nodes=(),
        fusions=(),
        near_misses=(),
        repeat=_repeat(comparisons, options),
    )


def _load(model: runtime.Model | runtime.LoadedModel) -> runtime.LoadedModel:
    return model if isinstance(model, runtime.LoadedModel) else runtime.load(model)


def _file(model: runtime.LoadedModel) -> ModelFile:
    return ModelFile(model.name, model.sha256)


def _name(feeds: runtime.Feeds) -> str:
    return " ".join(f"{name}={value}" for name, value in feeds.dims.items()) or feeds.origin


def _repeat(comparisons: list[Comparison], options: Options) -> Repeat:
    runs = [run for one in comparisons for run in (one.inputs.original, one.inputs.fused)]
    return Repeat(
        command="",
        seed=options.seed,
        samples=options.samples if any(one.sampled for one in comparisons) else 0,
        versions=versions_of(PACKAGES),
        machine=machine(),
        isa=custom_ops.info().isa_active if options.library else "",
        providers=runtime.CPU if any(run.how.startswith("onnxruntime") for run in runs) else (),
    )


def _same_inputs(original: ir.Model, fused: ir.Model) -> None:
    left = {spec.name: spec.dtype for spec in input_specs(original)}
    right = {spec.name: spec.dtype for spec in input_specs(fused)}
    if left != right:
        raise InvalidInput(
            "the models take different inputs: "
            f"{ {n: t.name for n, t in left.items()} } and { {n: t.name for n, t in right.items()} }"
        )
