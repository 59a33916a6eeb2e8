"""Whether a fused model computes what the original computes: in float64, and in onnxruntime through ``verify``."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from grammar.interpreter import Reading, evaluate
from grammar.kernels import KERNELS
from zoo.spelling import SIZES

import rmsnorm_onnx
from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun, InvalidInput, RmsNormError
from rmsnorm_onnx.parity.records import OutputParity, Verdict

from .edit import FLOATS, scopes_of
from .isolate import FOREIGN

#: The grammar's interpreter knows these as well.
_INTERPRETED = frozenset({*KERNELS, "Constant", "If", "Loop", "Cast", "CastLike"})
#: A factor that 16 bits hold stands for the 1/n that it is the rounding of: half of bfloat16's 2^-8, twice squared.
_RTOL = 2.0**-7
#: What such a rounding moves a norm by, and how much further a model may carry that for its result to be compared.
_NUDGE, _CARRIED = 2.0**-9, 16
_LARGEST = 1 << 16


def compare_numbers(
    before: onnx.ModelProto, after: onnx.ModelProto, valid: bool, outcomes: list[str], stage: Any
) -> None:
    """In float64 by the grammar's interpreter, which shares no code with the package; where it knows all operators."""
    from .models import Wrong

    own = {(f.domain, f.name) for m in (before, after) for f in m.functions}
    nodes = [n for m in (before, after) for s in scopes_of(m) for n in s.node if (n.domain, n.op_type) not in own]
    if not valid or any(n.op_type not in _INTERPRETED or n.domain not in ("", "ai.onnx") for n in nodes):
        return
    verdict = "float64: equal"
    for variant in range(2):
        given = feeds(before, variant)
        if given is None:
            return
        stage(f"{FOREIGN}interpreter ")
        try:
            wanted = evaluate(before, given, Reading.EXACT)
        except Exception:  # numpy refuses what the model does
            outcomes.append("float64: not evaluated")
            return
        stage("interpreter on the fused model")
        try:
            got = evaluate(after, given, Reading.EXACT)
        except (np.exceptions.AxisError, ZeroDivisionError):
            if all(array.ndim > 0 or array.dtype.kind in "iub" for array in given.values()):
                raise
            # Where no shape is known, an exponent of shape [1] made a row of it, which the norm does not.
            outcomes.append("float64: a norm of a scalar")
            return
        if any(not _as_declared(o, wanted[o.name]) for o in before.graph.output):
            outcomes.append("float64: declares a shape that is not so")
            return
        for name, value in wanted.items():
            if difference(value, got[name]) is None:
                continue
            problem = difference(value, got[name], steady(before, given, name, value))
            if problem is not None:
                raise Wrong("another function in float64", f"output '{name}', inputs {variant}: {problem}")
            verdict = "float64: equal where a rounding is not magnified"
    outcomes.append(verdict)


def steady(model: onnx.ModelProto, given: dict[str, np.ndarray], name: str, wanted: np.ndarray) -> np.ndarray:
    """Where output ``name`` does not magnify relative changes of the inputs: Pow(norm, 65504) does."""
    rng = np.random.default_rng(0)
    found = np.ones(wanted.shape, bool)
    for _ in range(3):
        nudged = {
            n: v if v.dtype.kind in "iub" else v.astype(np.float64) * rng.choice([1 - _NUDGE, 1 + _NUDGE], v.shape)
            for n, v in given.items()
        }
        moved = evaluate(model, nudged, Reading.EXACT)[name]
        found &= _near(wanted, moved, _CARRIED * _NUDGE) if moved.shape == wanted.shape else False
    return found


def _as_declared(info: onnx.ValueInfoProto, value: np.ndarray) -> bool:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return True
    dims = tensor.shape.dim
    lengths = zip(dims, value.shape, strict=False)
    return len(dims) == value.ndim and all(not d.HasField("dim_value") or d.dim_value == n for d, n in lengths)


def difference(wanted: np.ndarray, got: np.ndarray, compared: np.ndarray | bool = True) -> str | None:
    """How two results differ, in the elements ``compared``, by more than rounded constants explain."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}"
    if wanted.dtype != np.float64:
        return None if np.array_equal(wanted, got) else "integers differ"
    same = _near(wanted, got, _RTOL) | ~np.asarray(compared)
    if same.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~same)[0])
    return f"{got[where]!r} instead of {wanted[where]!r} at {where}, {np.mean(~same):.0%} of the elements"


def _near(wanted: np.ndarray, got: np.ndarray, rtol: float) -> np.ndarray:
    """Where two results agree, as a share of the element and of the largest of its row."""
    finite = np.abs(np.where(np.isfinite(wanted), wanted, 0))
    row = np.max(finite, axis=-1, keepdims=True, initial=0) if wanted.ndim else finite
    with np.errstate(all="ignore"):
        near = np.abs(wanted - got) <= rtol * (np.abs(wanted) + row) + 1e-30
    return (wanted == got) | (np.isnan(wanted) & np.isnan(got)) | near


def feeds(model: onnx.ModelProto, variant: int) -> dict[str, np.ndarray] | None:
    """Values of very different magnitude along every axis; None where an input is no small tensor."""
    rng = np.random.default_rng(variant)
    made: dict[str, np.ndarray] = {}
    initializers = {i.name for i in model.graph.initializer}
    for given in model.graph.input:
        if given.name in initializers and variant == 0:
            continue
        tensor = given.type.tensor_type
        shape = [SIZES.get(d.dim_param, 3) if not d.HasField("dim_value") else d.dim_value for d in tensor.shape.dim]
        shape = shape if tensor.HasField("shape") else [2, 8]
        if not tensor.elem_type or any(d < 0 for d in shape) or np.prod(shape, dtype=float) > _LARGEST:
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.elem_type in FLOATS:
            values = rng.standard_normal(shape)
            for axis in range(len(shape) if variant else 0):
                size = 10.0 ** rng.uniform(-1, 1, shape[axis])
                values = values * size.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            made[given.name] = np.asarray(values).astype(dtype)
        elif dtype.kind in "iub":
            made[given.name] = np.full(shape, -1 if dtype.kind == "i" and len(shape) == 1 else 1, dtype)
        else:
            return None
    return made


def is_valid(model: onnx.ModelProto) -> bool:
    """Whether onnx.checker has nothing to say."""
    return why_invalid(model) is None


def why_invalid(model: onnx.ModelProto) -> str | None:
    """What onnx.checker says against ``model``."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # it raises three classes without a common base
        return str(error) or type(error).__name__
    return None


def runs(model: onnx.ModelProto, stage: Any) -> bool:
    """Whether onnxruntime runs the model."""
    stage(f"{FOREIGN}onnxruntime ")
    given = feeds(model, 0)
    if given is None:
        return False
    try:
        loaded = runtime.load(model)
        run = runtime.run_side(loaded, given, library=False, threads=1, optimization="basic", reference=False)
    except (CannotRun, InvalidInput):  # functions that cannot be inlined
        return False
    # Emulated, types that do not fit each other run all the same.
    return run.how == "onnxruntime" or is_valid(model)


def ulps_of_largest(output: OutputParity) -> float:
    """The largest difference among the worst elements, of which some may be what was left of larger numbers."""
    largest = max((abs(w.expected) for w in output.worst), default=0)
    return max((w.ulps * abs(w.expected) / largest for w in output.worst if largest), default=0)


def compare_runs(
    before: onnx.ModelProto, after: onnx.ModelProto, target: str, dice: random.Random, outcomes: list[str], stage: Any
) -> None:
    """By ``verify``, where onnxruntime runs the original."""
    from .models import Wrong

    if not runs(before, stage):
        outcomes.append("verify: onnxruntime refuses the original")
        return
    given = feeds(before, 0)
    stage(f"verify {target}")
    library = dice.random() < 0.7
    stated = {i.name for i in before.graph.input if i.type.tensor_type.HasField("shape")}
    if any(i.name not in stated for i in before.graph.input):
        outcomes.append("verify: no inputs can be made")
        return
    try:
        report = rmsnorm_onnx.verify(before, after, inputs=given, library=library, threads=1)
    except RmsNormError as error:
        if "identical" in str(error):  # no float64 run to judge by
            outcomes.append("verify: cannot tell")
            return
        raise Wrong(f"the original runs, verify does not ({target}): {type(error).__name__}", str(error)) from error
    verdicts = sorted({o.verdict.value for o in report.outputs if not o.verdict.ok})
    if any("not used as a yardstick" in note for given_set in report.sets for note in given_set.notes):
        outcomes.append("verify: onnxruntime's own run of the original is off")
    elif verdicts == [Verdict.FUNCTION.value] and all(ulps_of_largest(o) <= 4 for o in report.outputs):
        outcomes.append("verify: differs by the rounding of a computed constant")
    elif any(
        not _as_declared(i, np.empty(o.shape)) for o in report.outputs for i in before.graph.output if i.name == o.name
    ):
        outcomes.append("verify: declares a shape that is not so")
    elif verdicts == [Verdict.ROUNDING.value] and all(w.share <= 4 for o in report.outputs for w in o.worst):
        outcomes.append("verify: at the edge of the sampled bound")
    elif verdicts:
        details = "\n".join(f"{o.name}: {o.verdict.value} {o.detail} {o.worst}" for o in report.outputs)
        raise Wrong(f"verify says {', '.join(verdicts)} ({target})", f"library={library}\n{details}")
    else:
        outcomes.append("verify: equal")
