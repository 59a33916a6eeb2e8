"""The CPU kernels alone, every supported instruction set, against the float64 oracle."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import kernels_abi as abi
import ml_dtypes
import numpy as np
import pytest
from kernels_abi import NUMPY, Norm, run

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

WIDTHS = (1, 3, 127, 128, 129, 4096, 5003, 131072)
OPS = dict(zip(abi.FORMS, spec.OPS, strict=True))
isas = pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
types = pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.name.lower())


@pytest.fixture(autouse=True)
def _supported(request: pytest.FixtureRequest) -> None:
    isa = request.node.callspec.params.get("isa") if hasattr(request.node, "callspec") else None
    if isa and isa not in abi.isas():
        pytest.skip(f"this processor lacks {isa}")


@functools.cache
def samples(shape, dtype):
    """Normal values; along the first axis the magnitude changes: 300 squared overflows float16."""
    rng = np.random.default_rng(0)
    magnitude = np.resize([1.0, 300.0, 1e-2, 30.0], shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (rng.standard_normal(shape) * magnitude).astype(NUMPY[dtype])


@functools.cache
def seconds(shape, dtype):
    """Skip or gate; silu of less than -87 is not a normal float any more."""
    return (np.random.default_rng(2).standard_normal(shape) * 5).astype(NUMPY[dtype])


@functools.cache
def scales(shape, dtype=DType.FLOAT):
    """Values that every type holds, so that the conversion of the scale is exact."""
    return np.random.default_rng(1).uniform(0.5, 2, shape).astype(ml_dtypes.bfloat16).astype(NUMPY[dtype])


def attributes(norm):
    return reference.Attributes(
        epsilon=norm.epsilon,
        axes=norm.axes,
        epsilon_outside=norm.epsilon_outside,
        floor=norm.floor,
        stash_type=norm.stash,
        normalized_type=norm.normalized,
        scaled_type=norm.scaled,
    )


def inputs_of(x, second, scale):
    return [x, scale] if second is None else [x, second, scale]


def exact(norm, x, second, scale):
    return reference.exact(OPS[norm.form], inputs_of(x, second, scale), attributes(norm))[0]


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


def same_bits(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


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
def test_sixteen_bit_conversion(isa, dtype, stash):
    """Every pattern through a load and a store, and values between patterns through a rounding."""
    every = np.arange(65536, dtype=np.uint16).view(NUMPY[dtype]).reshape(-1, 1)
    norm = Norm(form="skip", isa=isa, stash=stash, axes=(0,))
    total = run(norm, every, np.zeros_like(every))[1]
    with np.errstate(invalid="ignore"):  # signalling NaN
        assert np.array_equal(total.astype(np.float64), every.astype(np.float64), equal_nan=True)
    # X = 1 with floor 1 and no epsilon: Y is the scale, rounded.
    rng = np.random.default_rng(3)
    floats = rng.integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    floats = floats[np.isfinite(floats)]
    finite = every[(every.view(np.uint16) & 0x7FFF) < (0x7C00 if dtype == DType.FLOAT16 else 0x7F80)].astype(np.float64)
    finite = np.sort(finite)
    ties = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([floats.astype(np.float64), ties, np.array([0, -0.0, np.inf, -np.inf, np.nan, 65520.0])])
    scale = values.astype(NUMPY[stash]).reshape(-1, 1)
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
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("axes", [(-1,), (1,)], ids=["rows", "columns"])
def test_bits_do_not_depend_on_the_split(isa, dtype, form, axes):
    """Neither on the split of the work, nor on the batch around a norm, nor on working in place."""
    x = samples((7, 9, 700), dtype)
    second = None if form == "plain" else seconds((7, 9, 700), dtype)
    norm = Norm(form=form, isa=isa, axes=axes)
    whole, total = run(norm, x, second, scales(700))
    for change in ({"split": 1}, {"split": 5}, {"in_place": True}, {"want_sum": False}):
        assert same_bits(run(Norm(**{**vars(norm), **change}), x, second, scales(700))[0], whole)
    part, part_total = run(norm, x[2:4], None if second is None else second[2:4], scales(700))
    assert same_bits(part, whole[2:4])
    assert total is None or same_bits(part_total, total[2:4])


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize(
    ("shape", "axes", "scale"),
    [((2, 131072), (-1,), (131072,)), ((1, 600011), (-1,), (1,)), ((3, 2, 277, 301), (0, 2, 3), (3, 1, 277, 301))],
    ids=str,
)
def test_bits_of_wide_rows_do_not_depend_on_who_sums_which_chunk(isa, dtype, form, shape, axes, scale):
    """In one call, row by row, in chunks as threads share them, in place, streamed; on every instruction set."""
    x, second = samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)
    norm = Norm(form=form, isa=isa, axes=axes, streaming=0)
    whole, total = run(norm, x, second, scales(scale))
    changes = (
        {"split": 1},
        {"split": -1},
        {"split": -5},
        {"split": -3, "in_place": True},
        {"split": -7, "streaming": 1},
    )
    for change in (*changes, *[{"isa": "avx2"}] * (isa == "avx512")):
        got, got_total = run(dataclasses.replace(norm, **change), x, second, scales(scale))
        assert same_bits(got, whole)
        assert total is None or same_bits(got_total, total)
    added = x if total is None else total
    zeros = np.zeros_like(x) if form == "skip" else second
    bound = reference.bound(OPS[form], x.size, x.dtype, attributes(norm), additions=16)
    wanted = exact(norm, added, zeros, scales(scale))
    assert reference.ulps(whole, wanted, x.dtype).max() <= bound.ulps


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("shape", [(40, 64), (5, 4096), (9, 100)], ids=str)
def test_bits_do_not_depend_on_streaming(isa, dtype, form, shape):
    for stash in spec.STASH_TYPES:
        norm = Norm(form, isa=isa, stash=stash, normalized=DType.DOUBLE, scaled=DType.DOUBLE, split=2)
        second = None if form == "plain" else seconds(shape, dtype)
        given = (samples(shape, dtype), second, scales(shape[1:]))
        kept, streamed = (run(dataclasses.replace(norm, streaming=how), *given) for how in (0, 1))
        assert kept[0].tobytes() == streamed[0].tobytes()
        assert form != "skip" or kept[1].tobytes() == streamed[1].tobytes()


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("shape", [(3, 70, 64), (5, 33, 1600), (8, 48, 8), (3, 64, 7)], ids=str)
def test_bits_of_columns_do_not_depend_on_streaming(isa, dtype, form, shape):
    second = None if form == "plain" else seconds(shape, dtype)
    given = (samples(shape, dtype), second, scales(shape[1:]))
    norm = Norm(form, isa=isa, axes=(1,))
    kept, *others = (
        run(dataclasses.replace(norm, streaming=how, split=split), *given)
        for how, split in ((0, 0), (1, 0), (1, 1), (1, 2))
    )
    for other in others:
        assert kept[0].tobytes() == other[0].tobytes()
        assert form != "skip" or kept[1].tobytes() == other[1].tobytes()


@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((37, 5003), (-1,)), ((37, 5003), (0,)), ((3, 75, 7), (1,)), ((2, 9, 3), (1,))],
    ids=["rows", "columns", "short runs", "tiny"],
)
@pytest.mark.parametrize("stash", spec.STASH_TYPES)
def test_bits_do_not_depend_on_the_vector_width(dtype, form, shape, axes, stash):
    if "avx512" not in abi.isas():
        pytest.skip("needs two instruction sets with FMA")
    x = samples(shape, dtype)
    second = None if form == "plain" else seconds(x.shape, dtype)
    norms = [Norm(form=form, isa=isa, axes=axes, stash=stash) for isa in ("avx512", "avx2")]
    wide, narrow = (run(norm, x, second, scales(shape[-1:])) for norm in norms)
    assert same_bits(wide[0], narrow[0])
    assert wide[1] is None or same_bits(wide[1], narrow[1])


@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("axes", [(-1,), (0,)], ids=["rows", "columns"])
@pytest.mark.parametrize("stash", spec.STASH_TYPES)
def test_bits_do_not_depend_on_the_architecture(dtype, form, axes, stash):
    if not abi.is_emulated():
        pytest.skip("compares kernels under an emulator with this machine's: make aarch64")
    x = samples((37, 5003), dtype)
    second = None if form == "plain" else seconds(x.shape, dtype)
    emulated = run(Norm(form=form, axes=axes, stash=stash), x, second, scales(5003))
    here = run(Norm(form=form, isa="avx2", axes=axes, stash=stash), x, second, scales(5003), abi.native())
    assert same_bits(emulated[0], here[0])
    assert emulated[1] is None or same_bits(emulated[1], here[1])


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
