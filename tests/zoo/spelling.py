"""One way of writing an RMS norm with ONNX operators, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rmsnorm_onnx.spec import DType

Shape: TypeAlias = tuple[int | str, ...]

#: How a constant is written. The last two are not constants at all: an initializer that a caller may
#: override, and a graph input.
Kind: TypeAlias = Literal[
    "initializer", "constant", "value", "cast-float", "cast-double", "castlike", "overridable", "input"
]
Side: TypeAlias = Literal["left", "right"]

#: Run-time sizes of the symbolic dimensions the zoo uses.
SIZES = {"B": 2, "S": 3, "T": 3, "D": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spelling:
    """How a norm is written; the defaults give x / Sqrt(ReduceMean(Pow(x, 2)) + epsilon) * scale in float32.

    Some values (``power=3``, ``epsilon_kind="input"``, ``mean="sum"``) spell something that is not an
    RMS norm: near misses differ from norms in one field.
    """

    opset: int = 18
    dtype: DType = DType.FLOAT
    shape: Shape = ("B", "S", 8)

    # squares and their mean
    square: Literal["pow", "mul", "abs-pow", "abs-mul", "ReduceSumSquare", "ReduceL2"] = "pow"
    power: float = 2.0
    power_kind: Kind = "initializer"
    power_type: int | None = None  # None: the type of x
    power_shape: tuple[int, ...] = ()
    mean: Literal["ReduceMean", "sum*(1/n)", "(1/n)*sum", "sum/n", "sum/Shape", "GlobalAveragePool", "sum"] = (
        "ReduceMean"
    )
    count: int | None = None  # None: the right one
    axes: tuple[int, ...] | None = (-1,)  # None: left out, which means all
    axes_kind: Literal["initializer", "constant", "computed", "input"] = "initializer"  # from opset 18 / 13 on
    keepdims: Literal["kept", "unsqueezed", "reshaped", "dropped", "expanded"] = "kept"

    # floor, epsilon, root
    floor: float | None = None
    floor_kind: Literal["Max", "Max-left", "Clip"] = "Max"
    epsilon: float | None = 1e-5
    epsilon_side: Side = "right"
    epsilon_shape: tuple[int, ...] = ()
    epsilon_kind: Kind = "initializer"
    root: Literal["Sqrt", "pow"] = "Sqrt"
    root_power: float = 0.5
    epsilon_outside: float | None = None

    # quotient
    quotient: Literal["div", "reciprocal", "1/root", "root^-1", "pow-0.5", "1/pow"] = "div"
    quotient_side: Side = "right"  # of the inverse root, where the quotient is a product
    quotient_in: Literal["stash", "model"] = "stash"  # model: the root is cast back first

    # casts
    stash: DType | None = None  # the type x is cast to first
    cast_out: Literal["before-scale", "after-scale", "around-scale", "never"] = "after-scale"

    # scale and bias
    scale: (
        Literal[
            "initializer", "constant", "overridable", "input", "1+input", "1+w", "w+1", "w*g", "identity", "unsqueezed",
            "squeezed", "reshaped", "expanded", "transposed",
        ]
        | None
    ) = "initializer"  # fmt: skip
    scale_shape: tuple[int, ...] | None = None  # None: the sizes along the axes
    scale_type: DType | None = None  # None: the type it is multiplied in; another one is cast to it
    scale_side: Side = "right"
    scale_at: Literal["normalized", "root", "x"] = "normalized"
    bias: bool = False

    #: "Identity@mean": an operator without effect behind a stage (x, squared, mean, root, normalized, scale).
    inserted: tuple[str, ...] = ()

    @property
    def working(self) -> DType:
        """Type of the statistics in this graph."""
        return self.stash or self.dtype

    @property
    def scale_working(self) -> DType:
        """Type in which the scale is multiplied."""
        if self.quotient_in == "model" or self.cast_out == "before-scale":
            return self.dtype
        return self.working

    @property
    def output_type(self) -> DType:
        return self.scale_working if self.cast_out == "never" else self.dtype

    @property
    def rank(self) -> int:
        return len(self.concrete)

    @property
    def concrete(self) -> tuple[int, ...]:
        """The shape of the x that `feeds` makes."""
        return tuple(SIZES[d] if isinstance(d, str) else d for d in self.shape)

    @property
    def positive_axes(self) -> tuple[int, ...]:
        return tuple(sorted(a % self.rank for a in self.axes)) if self.axes is not None else tuple(range(self.rank))

    @property
    def reduced(self) -> int:
        """How many elements one mean is over."""
        product = 1
        for axis in self.positive_axes:
            product *= self.concrete[axis]
        return product

    @property
    def aligned_scale_shape(self) -> tuple[int, ...]:
        """Shape the scale is multiplied in: along the axes, ones between and after them."""
        if self.scale_shape is not None:
            return self.scale_shape
        axes = self.positive_axes
        return tuple(self.concrete[a] if a in axes else 1 for a in range(axes[0], self.rank))
