"""``benchmark``: models against each other, on the same inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from rmsnorm_onnx import bench, runtime, spec
from rmsnorm_onnx.errors import CannotRun, InvalidInput, LibraryMissing
from rmsnorm_onnx.parity import verify
from rmsnorm_onnx.passes import fuse, plan
from rmsnorm_onnx.progress import Progress, silent


def benchmark(
    *models: runtime.Model,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    seed: int = 0,
    threads: int | None = None,
    seconds: float = 10.0,
    drop_in: bool = False,
    progress: Progress = silent,
) -> bench.ModelBenchmark:
    """Time models on the same inputs, in turns; first check that their outputs equal those of the first.

    One model alone is compared with itself after ``optimize``. The first is timed twice, the second time as "again":
    how far that is from equally fast is what the measurement cannot tell.

    Args:
        models: path, ModelProto or onnx_ir.Model; none is changed.
        dims: values of free dimensions by name; see ``verify``.
        inputs: arrays by name, an .npz file, or an ONNX test data folder, instead of seeded values.
        seed: of inputs and of the check.
        threads: inside one operator; every core that this process may use when None.
        seconds: of timed runs per model, roughly; never fewer than 21 runs.
        drop_in: also run the first model, as it is, with our kernels in place of onnxruntime's.
        progress: told what is being done.

    Raises:
        InvalidInput: no model, a file, dimension or input that does not fit, or models with different inputs.
        CannotRun: onnxruntime is missing, or cannot load or run one of them. LibraryMissing: the library was not built.
    """
    if not models:
        raise InvalidInput("expected at least one model")
    if (threads is not None and threads < 1) or not seconds > 0:
        raise InvalidInput(f"threads and seconds must be positive, got {threads} and {seconds}")
    threads = threads or bench.usable_cores()
    sides = _sides(models)
    original = sides[0][1]
    runner = runtime.SideRunner(original, library=_holds_ours(original.model), threads=threads)
    feeds = runtime.make_feeds(
        original.model, dims=dims, inputs=inputs, seed=seed, run=lambda feeds: runner(feeds.arrays, reference=False)
    )
    runner.release()
    candidates: list[bench.Candidate] = []
    for number, (name, loaded) in enumerate(sides):
        progress(f"checking {name}", number, len(sides))
        equal, check = (True, "the first") if not candidates else _check(original, loaded, feeds, seed, threads)
        library: bench.Library = "ours" if _holds_ours(loaded.model) else "none"
        candidates.append(bench.Candidate(name, loaded, library, _norm_nodes(loaded.model), equal, check))
    first = replace(candidates[0], equal=None)
    if drop_in:
        check = "the same file; whether our kernels are right is what verify and the tests ask"
        candidates.append(replace(first, name=f"{first.name}, drop-in", library="drop-in", check=check))
    check = "the first once more: what its ratio is off 1 is noise, also where the interval says otherwise"
    candidates.append(replace(first, name=f"{first.name}, again", check=check))
    return bench.time_models(candidates, feeds, threads=threads, budget_s=seconds, progress=progress)


def _sides(models: Sequence[runtime.Model]) -> list[tuple[str, runtime.LoadedModel]]:
    loaded = [runtime.load(model) for model in models]
    short = [model.path.name if model.path else model.name for model in loaded]
    names = short if len(set(short)) == len(short) else [f"{n + 1}: {model.name}" for n, model in enumerate(loaded)]
    if len(loaded) > 1:
        return list(zip(names, loaded, strict=True))
    fused = loaded[0].model.clone()
    fuse(fused)
    # Both without a path: loaded the same way, so that loading is comparable too.
    return [(names[0], replace(loaded[0], path=None)), (f"{names[0]}, optimized", runtime.load(fused))]


def _holds_ours(model: ir.Model) -> bool:
    imports = [model.graph.opset_imports, *(function.opset_imports for function in model.functions.values())]
    return any(spec.DOMAIN in domains for domains in imports)


def _norm_nodes(model: ir.Model) -> frozenset[str]:
    return frozenset(name for record in plan(model).fused for name in record.replaced)


def _check(
    original: runtime.LoadedModel, other: runtime.LoadedModel, feeds: runtime.Feeds, seed: int, threads: int
) -> tuple[bool | None, str]:
    try:
        parity = verify(original, other, inputs=feeds.arrays, seed=seed, threads=threads)
    except LibraryMissing:
        raise
    except CannotRun as error:
        return None, f"outputs were not checked: {error}"
    different = [f"{output.name} ({output.detail})" for output in parity.outputs if not output.verdict.ok]
    if different:
        return False, f"outputs DIFFER from the first: {', '.join(different)}"
    return True, f"{len(parity.outputs)} outputs equal those of the first"
