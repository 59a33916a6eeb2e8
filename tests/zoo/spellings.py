"""Everything that is one RMS norm, however it is written: one field of `Spelling` after the other, then exporters."""

from __future__ import annotations

from itertools import product

from rmsnorm_onnx.spec import DType

from .case import Case, spelled
from .spelling import Spelling

F16, BF16, F32, F64 = DType.FLOAT16, DType.BFLOAT16, DType.FLOAT, DType.DOUBLE
INT32, INT64 = 6, 7

#: id -> (spelling, what it shows)
_TABLE: dict[str, tuple[Spelling, str]] = {
    # the square
    "square-mul": (Spelling(square="mul"), "x * x"),
    "square-abs-pow": (Spelling(square="abs-pow"), "|x| ** 2"),
    "square-abs-mul": (Spelling(square="abs-mul"), "|x| * |x|"),
    "square-reducesumsquare": (Spelling(square="ReduceSumSquare", mean="sum/n"), "ReduceSumSquare / n"),
    "square-reducesumsquare-17": (Spelling(square="ReduceSumSquare", mean="sum*(1/n)", opset=17), "axes as attribute"),
    "square-reducel2": (Spelling(square="ReduceL2", mean="sum/n"), "ReduceL2, squared, / n"),
    "square-reducel2-times": (Spelling(square="ReduceL2", mean="(1/n)*sum"), "1/n * ReduceL2 squared"),
    "power-constant": (Spelling(power_kind="constant"), "exponent in a Constant node"),
    "power-value": (Spelling(power_kind="value"), "exponent as value_float"),
    "power-int64": (Spelling(power_type=INT64), "integer exponent"),
    "power-int32": (Spelling(power_type=INT32, power_kind="constant"), "integer exponent in a Constant node"),
    "power-double": (Spelling(power_type=F64), "exponent of another float type than x"),
    "power-one-element": (Spelling(power_shape=(1,)), "exponent of shape [1]"),
    "power-rank-3": (Spelling(power_shape=(1, 1, 1)), "exponent of shape [1, 1, 1]"),
    "power-cast": (Spelling(power_kind="cast-double"), "exponent behind a Cast"),
    "power-castlike": (Spelling(power_kind="castlike"), "exponent behind a CastLike"),
    # the mean
    "mean-sum-div": (Spelling(mean="sum/n"), "ReduceSum / n"),
    "mean-sum-times": (Spelling(mean="sum*(1/n)", square="mul"), "ReduceSum * 1/n"),
    "mean-times-sum": (Spelling(mean="(1/n)*sum"), "1/n * ReduceSum"),
    "mean-sum-div-opset-11": (Spelling(mean="sum/n", opset=11), "ReduceSum with axes as attribute"),
    "mean-sum-shape": (Spelling(mean="sum/Shape"), "n read from Shape"),
    "mean-sum-two-axes": (Spelling(mean="sum/n", shape=("B", 3, 8), axes=(1, 2)), "n is the product of two sizes"),
    "mean-pool": (Spelling(mean="GlobalAveragePool"), "GlobalAveragePool of a rank-3 tensor"),
    # the axes
    "axes-positive": (Spelling(axes=(2,)), "last axis counted from the front"),
    "axes-positive-attribute": (Spelling(axes=(2,), opset=17), "the same as attribute"),
    "axes-constant-node": (Spelling(axes_kind="constant"), "axes in a Constant node"),
    "axes-computed": (Spelling(axes_kind="computed"), "axes behind a Reshape of constants"),
    "axes-two": (Spelling(shape=("B", 3, 8), axes=(-2, -1)), "two axes together"),
    "axes-two-unsorted": (Spelling(shape=("B", 3, 8), axes=(2, 1)), "two axes, the later one first"),
    "axes-mixed-signs": (Spelling(shape=("B", 3, 8), axes=(-1, 1)), "a negative and a positive axis"),
    "axes-middle": (Spelling(shape=("B", 4, 8), axes=(1,)), "channels of an NCW tensor"),
    "axes-channels": (Spelling(shape=("B", 4, 3, 5), axes=(1,), opset=17), "channels of an NCHW tensor"),
    "axes-first": (Spelling(shape=(4, "S"), axes=(0,)), "the first axis"),
    "axes-apart": (Spelling(shape=(2, "S", 8), axes=(0, 2)), "two axes that are not neighbours"),
    "axes-apart-scaled-last": (Spelling(shape=(2, "S", 8), axes=(0, -1), scale_shape=(8,)), "the same, scale [D]"),
    "axes-left-out": (Spelling(shape=(2, 3, 8), axes=None), "no axes: all of them"),
    "axes-left-out-13": (Spelling(shape=(2, 8), axes=None, opset=13, scale_shape=(8,)), "no axes at opset 13"),
    "keepdims-unsqueezed": (Spelling(keepdims="unsqueezed"), "keepdims=0, then Unsqueeze"),
    "keepdims-reshaped": (Spelling(keepdims="reshaped", opset=17), "keepdims=0, then Reshape"),
    "keepdims-sum-unsqueezed": (Spelling(keepdims="unsqueezed", mean="sum/n", opset=11), "the same on a sum"),
    "keepdims-0-rank-1": (Spelling(shape=(8,), keepdims="dropped"), "keepdims=0 of a single row: a scalar"),
    "keepdims-0-all": (Spelling(shape=(2, 3, 8), axes=None, keepdims="dropped"), "keepdims=0 of all axes: a scalar"),
    "keepdims-0-first": (Spelling(shape=(4, "S"), axes=(0,), keepdims="dropped"), "keepdims=0 of the first axis"),
    # the shape of x
    "rank-1": (Spelling(shape=(16,)), "a single row"),
    "rank-1-scale-left": (Spelling(shape=(8,), scale_side="left"), "onnxruntime swaps x and scale here"),
    "rank-2": (Spelling(shape=("B", 16)), "rows"),
    "rank-4": (Spelling(shape=("B", "S", 2, 8)), "heads"),
    "static": (Spelling(shape=(2, 3, 8)), "no symbolic dimension"),
    "one-element-rows": (Spelling(shape=("B", 1)), "every row is one element"),
    "size-unknown": (Spelling(shape=("B", "S", "D"), scale=None), "rows of unknown length"),
    "size-unknown-scalar": (Spelling(shape=("B", "S", "D"), scale_shape=()), "and a scalar scale"),
    # epsilon
    "epsilon-left": (Spelling(epsilon_side="left"), "epsilon + mean"),
    "epsilon-one-element": (Spelling(epsilon_shape=(1,)), "epsilon of shape [1]"),
    "epsilon-rank-3": (Spelling(epsilon_shape=(1, 1, 1), epsilon_side="left"), "epsilon of shape [1, 1, 1]"),
    "epsilon-constant": (Spelling(epsilon_kind="constant"), "epsilon in a Constant node"),
    "epsilon-value": (Spelling(epsilon_kind="value"), "epsilon as value_float"),
    "epsilon-cast-double": (Spelling(epsilon_kind="cast-double", epsilon=1e-6), "a double epsilon cast to float"),
    "epsilon-castlike": (Spelling(epsilon_kind="castlike"), "jax2onnx"),
    "epsilon-none": (Spelling(epsilon=None), "no epsilon: an exporter dropped it"),
    "epsilon-zero": (Spelling(epsilon=0.0), "epsilon 0"),
    "epsilon-large": (Spelling(epsilon=0.5), "an epsilon that matters in every row"),
    "epsilon-tiny": (Spelling(epsilon=1e-12), "an epsilon below float32's resolution of 1"),
    "epsilon-outside": (Spelling(epsilon=None, epsilon_outside=1e-3), "epsilon added to the root"),
    "epsilon-both": (Spelling(epsilon=1e-5, epsilon_outside=1e-3), "one inside and one outside"),
    "floor-max": (Spelling(epsilon=None, floor=1e-3), "Max(mean, floor)"),
    "floor-max-left": (Spelling(epsilon=None, floor=1e-3, floor_kind="Max-left"), "Max(floor, mean)"),
    "floor-clip": (Spelling(epsilon=None, floor=1e-3, floor_kind="Clip"), "Clip(mean, floor)"),
    "floor-and-epsilon": (Spelling(floor=1e-3, epsilon=1e-4, floor_kind="Clip"), "Clip, then epsilon"),
    # root and quotient
    "root-pow": (Spelling(root="pow"), "mean ** 0.5"),
    "quotient-reciprocal": (Spelling(quotient="reciprocal"), "x * Reciprocal(Sqrt)"),
    "quotient-reciprocal-left": (Spelling(quotient="reciprocal", quotient_side="left"), "Reciprocal(Sqrt) * x"),
    "quotient-one-over": (Spelling(quotient="1/root"), "x * (1 / Sqrt)"),
    "quotient-one-over-left": (Spelling(quotient="1/root", quotient_side="left"), "(1 / Sqrt) * x"),
    "quotient-pow-half": (Spelling(quotient="pow-0.5"), "x * mean ** -0.5"),
    "quotient-pow-half-left": (Spelling(quotient="pow-0.5", quotient_side="left"), "mean ** -0.5 * x"),
    "quotient-one-over-pow": (Spelling(quotient="1/pow"), "x * Reciprocal(mean ** 0.5)"),
    "quotient-root-inverse": (Spelling(quotient="root^-1"), "x * Sqrt ** -1"),
    # element types and casts
    "float16": (Spelling(dtype=F16), "statistics in 16 bits"),
    "float16-reciprocal": (Spelling(dtype=F16, quotient="reciprocal", square="mul"), "the same, spelled by dynamo"),
    "float16-epsilon-cast": (Spelling(dtype=F16, epsilon_kind="cast-float", epsilon=1e-3), "epsilon cast down"),
    "float16-epsilon-vanishes": (Spelling(dtype=F16, epsilon=1e-8), "epsilon is 0 in float16"),
    "bfloat16": (Spelling(dtype=BF16), "statistics in bfloat16"),
    "double": (Spelling(dtype=F64), "float64 throughout"),
    "double-epsilon": (Spelling(dtype=F64, epsilon=1e-12), "onnxruntime replaces it by 1e-5"),
    "double-epsilon-cast": (Spelling(dtype=F64, epsilon=1e-12, epsilon_kind="cast-float"), "a float epsilon cast up"),
    "double-epsilon-outside": (
        Spelling(dtype=F64, epsilon=None, epsilon_outside=2**-10),
        "an outer epsilon that float32 holds exactly",
    ),
    "float-in-double": (Spelling(stash=F64, cast_out="before-scale"), "statistics of float32 in float64"),
    "float-in-double-scaled": (Spelling(stash=F64), "the scale too"),
    "float16-in-double": (Spelling(dtype=F16, stash=F64), "statistics of float16 in float64"),
    "stash-own-type": (Spelling(stash=F32, cast_out="before-scale"), "Cast to the type it has: without effect"),
    "root-cast-back": (Spelling(dtype=F16, stash=F32, quotient_in="model"), "only the statistic in float32"),
    # the scale
    "scale-none": (Spelling(scale=None), "no scale"),
    "scale-left": (Spelling(scale_side="left"), "scale * normalized"),
    "scale-constant": (Spelling(scale="constant"), "scale in a Constant node"),
    "scale-input": (Spelling(scale="input", scale_shape=(8,)), "scale is a graph input"),
    "scale-overridable": (Spelling(scale="overridable"), "a scale that a caller may override"),
    "scale-one-plus": (Spelling(scale="1+w"), "1 + w: Gemma"),
    "scale-plus-one": (Spelling(scale="w+1", scale_side="left"), "w + 1, on the left"),
    "scale-one-plus-input": (Spelling(scale="1+input", scale_shape=(8,)), "1 + a graph input"),
    "scale-product": (Spelling(scale="w*g"), "product of two weights"),
    "scale-identity": (Spelling(scale="identity"), "behind an Identity"),
    "scale-unsqueezed": (Spelling(scale="unsqueezed"), "behind an Unsqueeze"),
    "scale-squeezed": (Spelling(scale="squeezed"), "behind a Squeeze"),
    "scale-reshaped": (Spelling(scale="reshaped", scale_shape=(1, 1, 8)), "behind a Reshape"),
    "scale-expanded": (Spelling(scale="expanded"), "behind an Expand"),
    "scale-transposed": (Spelling(scale="transposed", shape=("B", 3, 8), scale_shape=(3, 8)), "behind a Transpose"),
    "scale-scalar": (Spelling(scale_shape=()), "one factor of rank 0"),
    "scale-one-element": (Spelling(scale_shape=(1,)), "one factor of rank 1"),
    "scale-row": (Spelling(scale_shape=(1, 8)), "shape [1, D]"),
    "scale-rank-3": (Spelling(scale_shape=(1, 1, 8), scale_side="left"), "shape [1, 1, D]"),
    "scale-per-row": (Spelling(shape=("B", 3, 8), scale_shape=(3, 1)), "a factor for each row"),
    "scale-per-position": (Spelling(shape=("B", 3, 8), scale_shape=(3, 8)), "a scale for each row"),
    "scale-full": (Spelling(shape=(2, 3, 8), scale_shape=(2, 3, 8)), "the shape of x"),
    "scale-into-root": (Spelling(quotient="reciprocal", scale_at="root"), "x * (rsqrt * scale)"),
    "scale-into-root-left": (
        Spelling(quotient="1/root", scale_at="root", quotient_side="left"),
        "(1/root * scale) * x",
    ),
    "scale-into-x": (Spelling(scale_at="x"), "(x * scale) / root"),
    "scale-into-x-product": (Spelling(scale_at="x", quotient="reciprocal"), "(x * scale) * rsqrt"),
    "scale-half-in-float": (Spelling(scale_type=F16), "a float16 scale in a float32 model"),
    "scale-double-in-float": (Spelling(scale_type=F64), "a float64 scale in a float32 model"),
    "bias": (Spelling(bias=True), "a bias stays an Add"),
    "bias-float16": (Spelling(dtype=F16, stash=F32, bias=True), "a bias behind the cast"),
    # operators without effect
    "identity-everywhere": (
        Spelling(inserted=tuple(f"Identity@{p}" for p in ("x", "squared", "mean", "root", "normalized", "scale"))),
        "Identity behind every stage",
    ),
    "identity-before-square": (Spelling(inserted=("Identity@squared",)), "only the squared branch has it"),
    "dropout-normalized": (Spelling(inserted=("Dropout@normalized",)), "Dropout in inference before the scale"),
    "dropout-opset-11": (Spelling(inserted=("Dropout@normalized", "Dropout@mean"), opset=11), "its old form"),
    # exporters
    "dynamo": (Spelling(quotient="reciprocal", epsilon=1e-6, epsilon_shape=()), "torch.onnx.export, dynamo"),
    "dynamo-unfolded": (
        Spelling(quotient="reciprocal", power_kind="constant", epsilon_kind="constant", axes_kind="computed"),
        "dynamo without its optimizer",
    ),
    "torchscript": (
        Spelling(opset=17, quotient="1/root", power_kind="constant", epsilon_kind="constant", epsilon=1e-6),
        "torch.onnx.export, TorchScript",
    ),
    "llama-float16": (
        Spelling(dtype=F16, stash=F32, quotient="reciprocal", cast_out="before-scale", scale_side="left"),
        "normalized cast to float16, then scaled",
    ),
    "llama-bfloat16": (
        Spelling(dtype=BF16, stash=F32, quotient="reciprocal", cast_out="before-scale", scale_side="left"),
        "the same in bfloat16",
    ),
    "gemma-float16": (
        Spelling(dtype=F16, stash=F32, quotient="reciprocal", scale="1+w", scale_type=F16),
        "1 + w in float16, cast up, one rounding",
    ),
    "gemma-bfloat16": (Spelling(dtype=BF16, stash=F32, quotient="reciprocal", scale="1+w"), "float scale in bfloat16"),
    "gemma-3n": (Spelling(quotient="pow-0.5", square="mul", scale_type=F16), "Pow(-0.5)"),
    "keras-float16": (Spelling(dtype=F16, stash=F32, square="mul", scale_type=F16, epsilon=1e-7), "scale cast up"),
    "tf2onnx": (
        Spelling(opset=15, square="mul", mean="GlobalAveragePool", quotient="reciprocal", scale_at="root"),
        "pooling, scale multiplied into the root",
    ),
    "jax2onnx": (
        Spelling(opset=21, square="mul", mean="sum/n", epsilon_kind="castlike", quotient="reciprocal"),
        "CastLike epsilon, sum divided",
    ),
    "float-scale-in-half": (Spelling(dtype=F16, stash=F32, quotient="1/root"), "float32 scale, float16 model"),
    "rounded-then-float-scale": (
        Spelling(dtype=F16, stash=F32, cast_out="around-scale"),
        "rounded to float16, scaled in float32",
    ),
    "float-out-of-half": (Spelling(dtype=F16, stash=F32, cast_out="never"), "float16 in, float32 out"),
}


def _opsets() -> list[Case]:
    return [
        spelled(f"opset-{n}", Spelling(opset=n), f"the plain form at opset {n}")
        for n in (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24)
    ]


def _combined() -> list[Case]:
    """Spellings that differ in everything at once, each from a fixed corner of the space."""
    types = ((F32, None), (F16, F32), (F64, None), (F16, None), (BF16, F32))
    quotients = ("div", "reciprocal", "1/root", "pow-0.5", "1/pow")
    squares = (("mul", "sum/n"), ("pow", "ReduceMean"), ("ReduceSumSquare", "sum*(1/n)"), ("ReduceL2", "sum/n"))
    scales = ("w*g", "1+w", "constant", "initializer", "reshaped", "identity")
    outs = ("before-scale", "after-scale", "around-scale")
    cases = []
    for k, ((dtype, stash), quotient) in enumerate(product(types, quotients)):
        square, mean = squares[k % len(squares)]
        s = Spelling(
            dtype=dtype, stash=stash, quotient=quotient, square=square, mean=mean,
            opset=(13, 17, 18, 21)[k // 2 % 4], scale=scales[k % len(scales)], scale_side=("left", "right")[k % 2],
            quotient_side=("right", "left")[k // 3 % 2], cast_out=outs[k % 3] if stash else "after-scale",
            epsilon_kind=("constant", "initializer", "cast-float")[k % 3], epsilon_side=("right", "left")[k // 2 % 2],
            epsilon=(1e-5, 1e-3)[k % 2], shape=(("B", 16), ("B", "S", 8), ("B", 4, 8))[k % 3],
            axes=(-1,) if k % 3 < 2 else (1, 2), bias=k % 4 == 0,
        )  # fmt: skip
        cases.append(spelled(f"combined-{k:02}", s, f"{quotient}, {square}, {dtype.name.lower()}, scale {s.scale}"))
    return cases


SPELLED: tuple[Case, ...] = (
    *(spelled(id_, s, shows) for id_, (s, shows) in _TABLE.items()),
    *_opsets(),
    *_combined(),
)
