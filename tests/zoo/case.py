"""A graph with its expected outcome, its inputs and its truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from rmsnorm_onnx.spec import RMS, DType, Why

from .spelling import SIZES, Spelling
from .tape import NUMPY, Tape
from .truth import Truth
from .writer import OPAQUE_DOMAIN, Writer

Program: TypeAlias = Callable[[Tape], None]

#: Error relative to 1 + |truth| that a graph of this type may show: a few units in the last place for
#: each of its roundings (statistics of 16-bit spellings included).
TOLERANCE = {DType.DOUBLE: 1e-15, DType.FLOAT: 1e-6, DType.FLOAT16: 3e-3, DType.BFLOAT16: 2e-2}


@dataclass(frozen=True, slots=True)
class Case:
    """One graph of the zoo.

    ``fuses`` maps operator names to how many nodes of each replace something; None where the graph must be
    left alone, for the reason ``why``. ``precision`` is the coarsest type the graph rounds to;
    ``standard`` says that onnx.checker knows every operator in it.
    """

    id: str
    program: Program = field(repr=False)
    shows: str
    fuses: Mapping[str, int] | None = None
    why: Why | None = None
    opset: int = 18
    precision: DType = DType.FLOAT
    runtime: Literal["onnxruntime", "reference"] = "onnxruntime"
    standard: bool = True
    spelling: Spelling | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert self.fuses or self.why, f"{self.id}: it fuses, or there is a reason"

    def build(self) -> onnx.ModelProto:
        """Return the graph, the same bytes every time."""
        writer = Writer(self.opset)
        self.program(writer)
        return writer.model()

    def expected(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the float64 value of every output; for a near miss of one `Spelling`, what a wrong fusion computes."""
        truth = Truth(feeds)
        self.program(truth)
        return truth.outputs


def case(program: Program, shows: str, **fields: Any) -> Case:
    """A case named after its program."""
    return Case(program.__name__.replace("_", "-"), program, shows, **fields)


def spelled(id_: str, s: Spelling, shows: str, why: Why | None = None) -> Case:
    """A case that is nothing but one norm of the graph input."""

    def program(g: Tape) -> None:
        y = g.norm(g.input("x", s.shape, s.dtype), s)
        widened = why in (Why.SCALE_WIDENS, Why.EPSILON_NOT_SINGLE, Why.KEEPDIMS)  # y is larger than x
        g.output(y, "y", s.output_type, None if widened else s.shape)

    return Case(
        id_,
        program,
        shows,
        fuses={RMS.name: 1} if why is None else None,
        why=why,
        opset=s.opset,
        precision=_coarsest(s),
        runtime="reference" if DType.BFLOAT16 in (s.dtype, s.scale_type, s.stash) else "onnxruntime",
        spelling=s,
    )


def _coarsest(s: Spelling) -> DType:
    used = {s.dtype, s.working, s.scale_type or s.dtype}
    if s.dtype == DType.DOUBLE and "Cast" in "".join(s.inserted):
        used.add(DType.FLOAT)
    return min(used, key=lambda t: t.bits_of_precision)


def feeds(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Return inputs for the case: rows of very different size, so that a wrong epsilon shows."""
    rng = np.random.default_rng(seed)
    model = case.build()
    initializers = {i.name for i in model.graph.initializer}
    return {i.name: _feed(rng, i.type.tensor_type, seed) for i in model.graph.input if i.name not in initializers}


def _feed(rng: np.random.Generator, kind: onnx.TypeProto.Tensor, seed: int) -> np.ndarray:
    dims = kind.shape.dim if kind.HasField("shape") else None
    shape = (2, 3, 8) if dims is None else tuple(SIZES[d.dim_param] if d.dim_param else d.dim_value for d in dims)
    if kind.elem_type in NUMPY:
        if not shape:
            return np.asarray(1e-5, NUMPY[kind.elem_type])
        values = rng.standard_normal(shape)
        magnitude = np.resize([0.1, 0.01, 0.4, 0.03], shape[-2:-1] or 1)
        values *= magnitude[:, None] if len(shape) > 1 else magnitude
        return values.astype(NUMPY[kind.elem_type])
    if kind.elem_type == onnx.TensorProto.BOOL:
        return np.asarray(seed % 2 == 0)
    if kind.elem_type == onnx.TensorProto.UINT8:
        return rng.integers(0, 255, shape, np.uint8)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    # one-element integer inputs of the zoo are axes, the others data
    return np.full(shape, -1, dtype) if shape == (1,) else rng.integers(-9, 9, shape).astype(dtype)


class Opaque(OpRun):
    """Identity, under a name nobody knows."""

    op_domain = OPAQUE_DOMAIN

    def _run(self, x: Any) -> tuple[Any]:
        return (x,)


def evaluate(case: Case, model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run ``model`` as it stands: onnxruntime without optimization, or onnx's evaluator where that has no kernel."""
    names = [o.name for o in model.graph.output]
    if case.runtime == "reference":
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(model, new_ops=[Opaque]).run(None, dict(inputs))
    else:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # not a word about overridable initializers, which are meant
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(None, dict(inputs))
    return dict(zip(names, (np.asarray(v) for v in values), strict=True))
