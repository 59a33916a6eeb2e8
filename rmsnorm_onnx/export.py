"""Straight from PyTorch: a translation table by which ``torch.onnx.export`` writes norms as nodes of ``spec.DOMAIN``.

    program = torch.onnx.export(module, args, dynamo=True, custom_translation_table=rmsnorm_onnx.translation_table())
    rmsnorm_onnx.optimize(program.model)      # stores the function bodies, and fuses what is written out in steps
    program.save("model.onnx")

The nodes are exact translations of ``torch.nn.functional.rms_norm`` and ``torch.nn.RMSNorm``: computed in float32 (in
float64 for float64), scaled there, and rounded once. torch is imported when the table is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.spec import DType

#: torch's epsilon where none is given: that of the type it computes in, not of the input's.
_EPSILON: Final = {DType.FLOAT: 2.0**-23, DType.DOUBLE: 2.0**-52}


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Translations of torch's RMS norm operators, for ``torch.onnx.export(..., custom_translation_table=...)``.

    Raises:
        CannotRun: torch is not installed, or older than its own RMS norm (2.4).
    """
    try:
        import torch
    except ImportError as error:
        raise CannotRun("torch is not installed: pip install torch") from error
    aten = torch.ops.aten
    table = {}
    for name, translate in (("rms_norm", rms_norm), ("_fused_rms_norm", fused_rms_norm)):
        if hasattr(aten, name):
            table[getattr(aten, name).default] = translate
    if not table:
        raise CannotRun(f"torch {torch.__version__} has no RMS norm; 2.4 is the first that has")
    return table


def rms_norm(x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """``aten.rms_norm``: x of any shape, normalized over its last ``len(normalized_shape)`` axes."""
    from onnxscript import opset18

    dtype = getattr(x, "dtype", None)
    if dtype is None or int(dtype) not in set(DType):
        raise InvalidInput(f"an RMS norm needs float32, float16, bfloat16 or float64, got {dtype}")
    stash = DType.DOUBLE if int(dtype) == DType.DOUBLE else DType.FLOAT
    epsilon, epsilon_low = spec.float32_pair(_EPSILON[stash] if eps is None else eps)
    attributes: dict[str, Any] = {
        "axes": list(range(-len(normalized_shape), 0)),
        "epsilon": epsilon,
        "epsilon_low": epsilon_low if stash is DType.DOUBLE else 0.0,
        "epsilon_outside": 0.0,
        "floor": 0.0,
        "stash_type": int(stash),
        "normalized_type": int(stash),
    }
    if weight is None:
        weight = opset18.CastLike(opset18.Constant(value_float=1.0), x)  # type: ignore[type-var]
    return _operator(spec.RMS)(x, weight, **attributes)


@cache
def _operator(op: spec.Op) -> Any:
    """The operator as onnxscript calls it in a graph that is being built."""
    from onnx.defs import OpSchema
    from onnxscript import values

    types = [f"tensor({name})" for name in ("float", "float16", "bfloat16", "double")]
    schema = OpSchema(
        op.name,
        spec.DOMAIN,
        spec.VERSION,
        inputs=[OpSchema.FormalParameter(name, "V" if name == "scale" else "T") for name in op.inputs],
        outputs=[OpSchema.FormalParameter(name, "T") for name in op.outputs],
        type_constraints=[(name, types, "") for name in ("T", "V")],
        attributes=[
            OpSchema.Attribute(a.name, getattr(OpSchema.AttrType, a.kind.value), a.doc, required=True)
            for a in op.attributes
        ],
    )
    return values.Op(values.Opset(spec.DOMAIN, spec.VERSION), op.name, schema)


def fused_rms_norm(x: Any, normalized_shape: Sequence[int], weight: Any, eps: float | None) -> tuple[Any, None]:
    """``aten._fused_rms_norm``, whose second result (1 / root, for the gradient) inference does not read."""
    return rms_norm(x, normalized_shape, weight, eps), None
