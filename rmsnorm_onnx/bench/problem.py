"""One question to every implementation: form, element type, shape, arrays, and the float64 answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

Array = npt.NDArray[Any]

#: As a float attribute holds it.
EPSILON: Final = spec.float32_pair(1e-5)[0]
#: Names on the command line, and the operators they stand for.
FORMS: Final = {"plain": spec.RMS, "skip": spec.SKIP, "gated": spec.GATED, "pregated": spec.PRE_GATED}
DTYPES: Final = {"float32": DType.FLOAT, "float16": DType.FLOAT16, "bfloat16": DType.BFLOAT16, "float64": DType.DOUBLE}

#: Further from float64 than this, relative to the larger of the value and the rms, is another function: eight
#: roundoffs of the type, plus what a plain float32 sum of 100 000 squares may lose.
_TOLERANCE: Final = 2.0**-12


@dataclass(frozen=True)
class Problem:
    """What is computed; frozen, the arrays are made when first asked for.

    Attributes:
        form: a key of FORMS.
        dtype: a key of DTYPES; of every input and output.
        rows: number of norms.
        width: elements of each.
        chain: so many norms one after the other, each on what the one before gave.
    """

    form: str
    dtype: str
    rows: int
    width: int
    chain: int = 1

    @property
    def op(self) -> spec.Op:
        """The operator of this package."""
        return FORMS[self.form]

    @property
    def element(self) -> DType:
        """The element type as ONNX numbers it."""
        return DTYPES[self.dtype]

    @property
    def numpy_type(self) -> np.dtype[Any]:
        """The element type as numpy knows it."""
        return reference.NUMPY_TYPES[self.element]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of X."""
        return self.rows * self.width * self.numpy_type.itemsize

    @property
    def moved_bytes(self) -> int:
        """Bytes that one norm must read and write: each array of the shape of X once."""
        wide_inputs = len(self.op.inputs) - 1
        return self.tensor_bytes * (wide_inputs + len(self.op.outputs))

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """Seeded normal values by input name; the scale is near one."""
        generator = np.random.default_rng(0)
        shape = (self.rows, self.width)
        arrays: dict[str, Array] = {name: generator.standard_normal(shape, np.float32) for name in self.op.inputs[:-1]}
        arrays[self.op.inputs[-1]] = 1 + generator.standard_normal(self.width, np.float32) / 10
        return {name: array.astype(self.numpy_type) for name, array in arrays.items()}

    @cached_property
    def _expected(self) -> tuple[Array, ...]:
        attributes = reference.Attributes(EPSILON)
        inputs = dict(self._some_rows(self.inputs))
        for _ in range(self.chain):
            op, given = self.op, list(inputs.values())
            if self.form == "skip":
                # The sum is rounded to T by contract, so the norm is that of the rounded sum.
                op, given = spec.RMS, [inputs["X"] + inputs["skip"], inputs["scale"]]
            (y,) = reference.exact(op.name, given, attributes)
            inputs["X"] = y.astype(self.numpy_type)
        return (y, given[0].astype(np.float64)) if self.form == "skip" else (y,)

    def _some_rows(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: array[self._checked] if array.ndim == 2 else array for name, array in arrays.items()}

    @cached_property
    def _checked(self) -> Array:
        """At most 256 rows, first and last among them: enough to see a wrong kernel, cheap to compute in float64."""
        return np.unique(np.linspace(0, self.rows - 1, 256).astype(np.int64))

    def error(self, outputs: tuple[Array, ...]) -> float:
        """Largest error against float64 in roundoffs of the type, at the larger of the value and the rms.

        Args:
            outputs: Y, and the sum where the implementation gives one; of the problem's type and shape.
        """
        worst = 0.0
        for output, expected in zip(outputs, self._expected, strict=False):
            got = np.asarray(output).reshape(self.rows, self.width)[self._checked].astype(np.float64)
            size = np.maximum(np.abs(expected), np.sqrt(np.mean(np.square(expected))))
            error = np.abs(got - expected) / size
            worst = max(worst, float(np.max(np.where(np.isnan(error), np.inf, error))))
        return worst / reference.roundoff(self.numpy_type)

    @property
    def tolerance(self) -> float:
        """Largest error, in roundoffs of the type, of an implementation that counts as correct."""
        roundoff = reference.roundoff(self.numpy_type)
        one = 8 + (2.0**-40 if self.element is DType.DOUBLE else _TOLERANCE) / roundoff
        return self.chain * one
