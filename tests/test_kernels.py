"""The CPU kernels alone, every supported instruction set, against the float64 oracle."""

from __future__ import annotations

import functools
import itertools

import kernels_abi as abi
import numpy as np
import pytest
from kernel_inputs import (
    OPS,
    attributes,
    exact,
    inputs_of,
    isas,
    same_bits,
    samples,
    scales,
    seconds,
    supported,
    types,
)
from kernels_abi import NUMPY, Norm, run

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

__all__ = ["supported"]

WIDTHS = (1, 3, 64, 127, 128, 129, 256, 4096, 5003, 131072)


@functools.cache
def exact_rows(dtype, width):
    """The formula in long double, which judges float64 too."""
    x = samples((4, width), dtype).astype(np.longdouble)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.longdouble(1e-5)) * scales(width).astype(x.dtype)


def faithful(norm, x, second, scale):
    return reference.faithful(OPS[norm.form], inputs_of(x, second, scale), attributes(norm))[0]


def units(got, want, dtype=np.float32):
    """Largest relative error in roundoffs of ``dtype``: 2^-24 for float32."""
    error = np.abs(got.astype(want.dtype) - want) / np.where(want == 0, 1, np.abs(want))
    return float(np.max(error)) / reference.roundoff(dtype)


@isas
@types
@pytest.mark.parametrize("width", WIDTHS)
def test_error_of_a_row(isa, dtype, width):
    stash = DType.DOUBLE if dtype == DType.DOUBLE else DType.FLOAT
    norm = Norm(isa=isa, stash=stash, normalized=stash)
    got, want = run(norm, samples((4, width), dtype), None, scales(width))[0], exact_rows(dtype, width)
    if dtype == DType.FLOAT:
        assert units(got, want) <= 3
    elif dtype == DType.DOUBLE:
        # Root, reciprocal and two products are 4; mean and epsilon count half; the sum has under 1.
        assert units(got, want, np.float64) <= 6
    else:
        assert reference.ulps(got, want, got.dtype).max() <= 1
        assert np.mean(got == want.astype(np.float64).astype(got.dtype)) > 0.999


@isas
@pytest.mark.parametrize("width", [128, 1024, 4096, 16384, 131072])
def test_error_of_a_row_of_one_value(isa, width):
    """There all roundings of the sum go the same way."""
    x = np.repeat(np.random.default_rng(width).uniform(0.3, 3, (40, 1)), width, 1).astype(np.float32)
    wide, scale = x.astype(np.longdouble), scales(width)
    want = wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + np.longdouble(1e-5)) * scale
    assert units(run(Norm(isa=isa), x, None, scale)[0], want) <= 3


@isas
@types
@pytest.mark.parametrize("stash", spec.STASH_TYPES)
def test_type_of_the_scale_changes_nothing(isa, dtype, stash):
    """Values that all types hold give the same bits whatever type they come in."""
    x, norm = samples((4, 129), dtype), Norm(isa=isa, stash=stash)
    results = [run(norm, x, None, scales(129, scale_type))[0] for scale_type in DType]
    assert all(same_bits(result, results[0]) for result in results)
    coarse = results[0].dtype if results[0].itemsize < 4 else np.dtype(np.float32)
    assert units(results[0].astype(np.float64), exact_rows(dtype, 129), coarse) <= 4


@isas
@pytest.mark.parametrize(("dtype", "stash"), [(DType.DOUBLE, DType.FLOAT), (DType.FLOAT, DType.DOUBLE)])
@pytest.mark.parametrize("width", [3, 129, 4096])
def test_stash_type_of_another_width(isa, dtype, stash, width):
    """A float stash rounds X once more; a double stash leaves one rounding, the last."""
    norm = Norm(isa=isa, stash=stash, normalized=DType.DOUBLE)
    got = run(norm, samples((4, width), dtype), None, scales(width))[0]
    assert units(got, exact_rows(dtype, width)) <= (4 if stash == DType.FLOAT else 1)


LAYOUTS = [
    ((6, 5, 40), (-1,), (40,)),
    ((6, 5, 40), (1,), (5, 1)),
    ((6, 5, 40), (0,), (1,)),
    ((6, 5, 40), (0, 2), (40,)),
    ((6, 5, 40), (0, 1, 2), (6, 5, 40)),
    ((4, 9, 7, 3), (1,), (9, 1, 1)),
    ((4, 9, 7, 3), (1, 3), (9, 1, 3)),
    ((4, 9, 7, 3), (-1, -3), (7, 1)),
    ((4, 5, 300), (1,), (4, 1, 300)),
    ((4, 1, 300), (0,), ()),
    ((2, 3, 2, 3, 2, 3), (0, 2, 4), (3, 1, 1, 2, 3)),
    ((2, 70), (0,), (2, 70)),
    ((3, 70, 7), (1,), (70, 1)),
    ((2, 150, 7), (1,), (2, 1, 7)),
    ((2, 70, 6), (1,), (70, 6)),
    ((2, 37, 1100), (1,), (37, 1)),
    ((2, 1100, 24), (1,), (1100, 1)),
    ((25, 3, 45, 8), (0, 2), (25, 1, 45, 1)),
    ((3, 4, 2, 5, 40), (0, 2), (4, 1, 1, 40)),
    ((5,), (0,), (5,)),
    ((1, 1), (0,), (1, 1)),
]


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize(("shape", "axes", "scale_shape"), LAYOUTS, ids=str)
def test_any_axes_and_any_scale(isa, dtype, form, shape, axes, scale_shape):
    stash = DType.DOUBLE if dtype == DType.DOUBLE else DType.FLOAT
    norm = Norm(form=form, isa=isa, axes=axes, stash=stash, normalized=stash, scaled=stash)
    x, scale = samples(shape, dtype), scales(scale_shape)
    second = None if form == "plain" else seconds(shape, dtype)
    got, total = run(norm, x, second, scale)
    added = x
    if form == "skip":
        added = (x.astype(np.float64) + second.astype(np.float64)).astype(x.dtype)
        assert same_bits(total, added)
    bound = reference.bound(OPS[form], x.size, x.dtype, attributes(norm), additions=16)
    wanted = exact(norm, added, 0 * second if form == "skip" else second, scale)
    assert reference.ulps(got, wanted, x.dtype).max() <= bound.ulps


@isas
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("axes", [(-1,), (1,)], ids=["rows", "columns"])
@pytest.mark.parametrize(("dtype", "stash"), list(itertools.product(DType, spec.STASH_TYPES)))
def test_rounds_where_the_attributes_say(isa, form, axes, dtype, stash):
    """normalized_type and scaled_type of every type, wider than the stash type included."""
    x = samples((2, 9, 65), dtype)
    second = None if form == "plain" else seconds((2, 9, 65), dtype)
    scale = scales((9, 65), DType.FLOAT16)
    for normalized, scaled in itertools.product(DType, DType if form == "gated" else [DType.FLOAT]):
        norm = Norm(form=form, isa=isa, axes=axes, stash=stash, normalized=normalized, scaled=scaled, epsilon=1e-3)
        got = run(norm, x, second, scale)[0].astype(np.float64)
        want = faithful(norm, x, second, scale).astype(np.float64)
        # A float error can push a value over a tie: then the result is one step of the coarsest type off.
        kinds = [DType(DTYPE) for DTYPE in (abi.DTYPE[x.dtype], stash, normalized)] + [scaled] * (form == "gated")
        coarsest = min(kind.bits_of_precision for kind in kinds)
        error = np.abs(got - want) / np.maximum(np.abs(want), 2.0**-14)
        assert error.max() <= 2.0 ** (4 - coarsest)
        assert np.mean(error > 2.0**-20) < 2e-3


@isas
@types
def test_zeros_nan_and_infinity(isa, dtype):
    x = samples((5, 70), dtype)
    x[1] = 0
    x[2, 7] = np.nan
    x[3, 9] = -np.inf
    for epsilon, axes in itertools.product((0.0, 1e-5), ((-1,), (0,))):
        norm = Norm(isa=isa, axes=axes, epsilon=epsilon)
        given = x if axes == (-1,) else np.ascontiguousarray(x.T)
        y = run(norm, given, None, scales(1))[0].astype(np.float64)
        y = y if axes == (-1,) else y.T
        assert np.isfinite(y[0]).all()
        assert np.isfinite(y[4]).all()
        assert (np.isnan(y[1]) if epsilon == 0 else y[1] == 0).all()
        assert np.isnan(y[2]).all()
        assert np.isnan(y[3, 9])
        assert (np.delete(y[3], 9) == 0).all()


@isas
def test_float_squares_overflow_as_the_formula_does(isa):
    x = np.full((2, 100), 1e20, np.float32)
    assert (run(Norm(isa=isa), x)[0] == 0).all()
    assert np.allclose(run(Norm(isa=isa, stash=DType.DOUBLE), x)[0], 1)


@isas
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16])
@pytest.mark.parametrize("stash", spec.STASH_TYPES)
@pytest.mark.parametrize("rows", [(-1, 1), (1, -1), (-1, 256)], ids=["columns", "row", "rows"])
def test_sixteen_bit_conversion(isa, dtype, stash, rows):
    """Every pattern through a load and a store, and values between patterns through a rounding."""
    axes = (0,) if rows == (-1, 1) else (-1,)
    every = np.arange(65536, dtype=np.uint16).view(NUMPY[dtype]).reshape(rows)
    norm = Norm(form="skip", isa=isa, stash=stash, axes=axes)
    total = run(norm, every, np.zeros_like(every))[1]
    with np.errstate(invalid="ignore"):  # signalling NaN
        assert np.array_equal(total.astype(np.float64), every.astype(np.float64), equal_nan=True)
    # X = 1 with floor 1 and no epsilon: Y is the scale, rounded.
    rng = np.random.default_rng(3)
    floats = rng.integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    floats = floats[np.isfinite(floats)]
    finite = every[(every.view(np.uint16) & 0x7FFF) < (0x7C00 if dtype == DType.FLOAT16 else 0x7F80)].astype(np.float64)
    finite = np.sort(finite.ravel())
    ties = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([floats.astype(np.float64), ties, np.array([0, -0.0, np.inf, -np.inf, np.nan, 65520.0])])
    values = np.resize(values, values.size // 256 * 256 + 256)
    scale = values.astype(NUMPY[stash]).reshape(rows)
    scale.reshape(-1)[-1:] = np.array(0x7FFFFFFF, np.uint32).view(np.float32)  # a NaN that rounding carries out of
    ones = np.ones(scale.shape, NUMPY[dtype])
    got = run(Norm(isa=isa, stash=stash, normalized=stash, floor=1, epsilon=0), ones, None, scale)[0]
    with np.errstate(all="ignore"):
        want = scale.astype(NUMPY[dtype])
    assert np.array_equal(got.astype(np.float64), want.astype(np.float64), equal_nan=True)


@isas
@pytest.mark.parametrize(("dtype", "half_step"), [(DType.FLOAT16, 2.0**-11), (DType.BFLOAT16, 2.0**-8)])
def test_double_rounds_once_to_sixteen_bits(isa, dtype, half_step):
    scale = np.array([[1 + half_step], [1 + half_step * (1 + 2.0**-35)], [1 + half_step * (1 - 2.0**-35)]])
    norm = Norm(isa=isa, stash=DType.DOUBLE, normalized=DType.DOUBLE, floor=1, epsilon=0)
    y = run(norm, np.ones((3, 1), NUMPY[dtype]), None, scale)[0]
    assert y.astype(np.float64).ravel().tolist() == [1, 1 + 2 * half_step, 1]


@isas
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.DOUBLE])
def test_silu(isa, dtype):
    z = np.concatenate([np.linspace(-110, 90, 20001), np.geomspace(1e-30, 1, 100), [0.0, 1e30, -1e30]])
    z = z.astype(NUMPY[dtype]).reshape(-1, 1)
    norm = Norm(form="gated", isa=isa, stash=dtype, normalized=dtype, scaled=dtype, floor=1, epsilon=0)
    got = run(norm, np.ones_like(z), z)[0].astype(np.float64)
    exact = z.astype(np.longdouble)
    with np.errstate(over="ignore"):
        want = exact / (1 + np.exp(-exact))
    info = np.finfo(z.dtype)
    normal = (z != 0) & (np.abs(want) > np.abs(z) * info.tiny)  # the sigmoid is a normal number
    assert units(got[normal], want[normal], z.dtype) <= 5
    assert (np.abs(got - want)[~normal] <= 2 * info.smallest_subnormal * np.abs(z[~normal])).all()
    edges = np.array([[np.inf], [-np.inf], [np.nan]], z.dtype)
    got = run(norm, np.ones_like(edges), edges)[0].ravel()
    assert got[0] == np.inf
    assert np.isnan(got[1:]).all()


@isas
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16])
@pytest.mark.parametrize("form", ["gated", "pregated"])
def test_silu_of_sixteen_bits(isa, dtype, form):
    """Rounded as the exact one nearly everywhere, in whole vectors and in the last of a row."""
    z = np.linspace(-80, 80, 20003).astype(NUMPY[dtype]).reshape(1, -1)
    # A floor above every mean: Y is X * silu(gate).
    root = np.full(1, 2.0**20, np.float32)
    got = run(Norm(form=form, isa=isa, floor=2.0**40, epsilon=0), np.ones_like(z), z, root)[0]
    exact = z.astype(np.longdouble) / (1 + np.exp(-z.astype(np.longdouble)))
    assert reference.ulps(got, exact.astype(np.float64), got.dtype).max() <= 1
    assert np.mean(got == exact.astype(np.float64).astype(got.dtype)) > 0.998


@pytest.mark.parametrize(
    ("shape", "axes", "scale", "text"),
    [
        ((2, 3, 4), (-1,), (4,), "rows kept 1 reduced 0 inner 4 step 1 averaged 4"),
        ((2, 3, 4), (1, 2), (3, 4), "rows kept 1 reduced 0 inner 12 step 1 averaged 12"),
        ((2, 3, 4), (1, 2), (4,), "rows kept 1 reduced 1 inner 4 step 1 averaged 12"),
        ((2, 3, 4, 5), (1,), (3, 1, 1), "columns kept 1 reduced 1 inner 20 step 0 averaged 3"),
        ((2, 3, 1), (1,), (3, 1), "rows kept 1 reduced 0 inner 3 step 1 averaged 3"),
        ((2, 3), (2,), (3,), "expected axes from -2 to 1 for X of shape [2, 3], got axis 2"),
        (
            (2, 3),
            (-1, 1),
            (3,),
            "expected each axis once, got axes [-1, 1], which name axis 1 of X of shape [2, 3] twice",
        ),
        ((2, 3), (0,), (1, 2, 3), "without widening it, got scale of shape [1, 2, 3]"),
        ((2, 1), (0,), (4,), "broadcasts to X of shape [2, 1] without widening it, got scale of shape [4]"),
        ((), (0,), (), "expected X of rank 1 or more, got a scalar (rank 0)"),
        ((2, 3), (), (3,), "expected at least one axis"),
        ((1, 2) * 20, tuple(range(1, 40, 4)), (), "expected at most 17 alternations"),
    ],
)
def test_layout(shape, axes, scale, text):
    assert text in abi.layout(shape, axes, scale)


def test_unknown_instruction_set_is_refused_with_the_known_ones():
    with pytest.raises(abi.KernelError, match=r"asks for instruction set 'sse9'.*support: .*baseline"):
        run(Norm(isa="sse9"), np.ones((1, 2), np.float32))
