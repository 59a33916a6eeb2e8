"""The same bits whatever splits the work, stores it, or adds it: threads, streaming, vectors, architectures."""

from __future__ import annotations

import dataclasses

import kernels_abi as abi
import numpy as np
import pytest
from kernel_inputs import OPS, attributes, exact, isas, same_bits, samples, scales, seconds, supported, types
from kernels_abi import Norm, run

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

__all__ = ["supported"]

#: Rows that are taken in groups of eight, or of four where they are wider: a group and a part of one, columns that end
#: in a part of a block.
GROUPED = [(11, 4096), (10, 2113), (18, 320), (7, 16544)]


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
    changes = ({"split": 1}, {"split": 5}, {"split": 3, "threads": 3}, {"in_place": True}, {"want_sum": False})
    for change in changes:
        assert same_bits(run(Norm(**{**vars(norm), **change}), x, second, scales(700))[0], whole)
    part, part_total = run(norm, x[2:4], None if second is None else second[2:4], scales(700))
    assert same_bits(part, whole[2:4])
    assert total is None or same_bits(part_total, total[2:4])


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize(
    ("shape", "axes", "scale"),
    [((7, 131168), (-1,), (131168,)), ((1, 600011), (-1,), (1,)), ((3, 2, 277, 301), (0, 2, 3), (3, 1, 277, 301))],
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
        {"split": -1, "in_place": True, "threads": 3},
        {"split": -7, "streaming": 1, "threads": 2},
    )
    for change in (*changes, *[{"isa": "avx2"}] * isa.startswith("avx512")):
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
@pytest.mark.parametrize("shape", [(40, 64), (21, 128), (11, 256), (5, 4096), (9, 100)], ids=str)
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
@pytest.mark.parametrize("form", ["plain", "skip"])
@pytest.mark.parametrize(
    "shape",
    [(41, 64), (27, 128), (21, 256), (6, 512), (5, 768), (5, 576), (4, 1152), (4, 2048), *GROUPED],
    ids=str,
)
def test_bits_of_a_row_do_not_depend_on_the_rows_behind_it(isa, dtype, form, shape):
    """Pass 1 runs ahead of pass 2, or pass 2 takes rows by columns: alone, some, all, in place, streamed."""
    norm = Norm(form, isa=isa, split=1, streaming=0)
    given = (samples(shape, dtype), None if form == "plain" else seconds(shape, dtype), scales(shape[1:]))
    alone, total = run(norm, *given)
    bound = reference.bound(OPS[form], shape[1], given[0].dtype, attributes(norm), additions=16)
    # Of the sum as it was rounded.
    wanted = exact(norm, *((given[0], None) if total is None else (total, np.zeros_like(total))), given[2])
    assert reference.ulps(alone, wanted, given[0].dtype).max() <= bound.ulps
    changes = ({"split": 0}, {"split": 19}, {"split": 0, "in_place": True}, {"split": 0, "streaming": 1})
    for change in (*changes, {"split": 0, "want_sum": False}):
        got, got_total = run(dataclasses.replace(norm, **change), *given)
        assert same_bits(got, alone)
        assert total is None or got_total is None or same_bits(got_total, total)


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


@isas
@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("count", [3, 9, 75, 1030])
def test_bits_of_a_column_do_not_depend_on_those_beside_it(isa, dtype, form, count):
    x = samples((2, count, 50), dtype)
    second = None if form == "plain" else seconds(x.shape, dtype)
    norm = Norm(form, isa=isa, axes=(1,))
    whole, total = run(norm, x, second, scales((count, 1)))
    for width in (2, 3, 7, 16, 33):  # one alone is a row
        some = np.s_[:, :, 50 - width :]
        given = (np.ascontiguousarray(x[some]), None if second is None else np.ascontiguousarray(second[some]))
        part, part_total = run(norm, *given, scales((count, 1)))
        assert same_bits(part, whole[some])
        assert total is None or same_bits(part_total, total[some])


@types
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((37, 5003), (-1,)), ((37, 5003), (0,)), ((3, 75, 7), (1,)), ((2, 9, 3), (1,))],
    ids=["rows", "columns", "short runs", "tiny"],
)
@pytest.mark.parametrize("stash", spec.STASH_TYPES)
def test_bits_do_not_depend_on_the_vector_width(dtype, form, shape, axes, stash):
    x = samples(shape, dtype)
    second = None if form == "plain" else seconds(x.shape, dtype)
    sets = [isa for isa in abi.isas() if isa != "baseline"]
    if len(sets) < 2:
        pytest.skip("needs two instruction sets with FMA")
    norms = [Norm(form=form, isa=isa, axes=axes, stash=stash) for isa in sets]
    first, *others = (run(norm, x, second, scales(shape[-1:])) for norm in norms)
    for other in others:
        assert same_bits(other[0], first[0])
        assert first[1] is None or same_bits(other[1], first[1])


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


@isas
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16], ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("shape", [(1, 320), (1, 4099), (11, 1024), (10, 2113), (7, 16544), (1, 131168)], ids=str)
def test_a_scale_of_16_bits_gives_the_bits_of_the_same_in_float32(isa, dtype, form, shape):
    """Kernels read it as it is where that takes less time: in a row alone, or in groups of them."""
    x, second = samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)
    for split in (0, 1):
        norm = Norm(form=form, isa=isa, split=split, streaming=0)
        own, in_float32 = (run(norm, x, second, scales(shape[-1], kind))[0] for kind in (dtype, DType.FLOAT))
        assert same_bits(own, in_float32)


@isas
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.DOUBLE], ids=lambda dtype: dtype.name.lower())
@pytest.mark.parametrize("form", ["skip", "gated"])
@pytest.mark.parametrize("shape", [(130, 4099), (1030, 1025), (260, 2080)], ids=str)
def test_bits_do_not_depend_on_what_pass_1_does_for_pass_2(isa, dtype, form, shape):
    """Where many rows read memory, it leaves silu(gate) in Y, unless that is X, or fetches lines of Y."""
    x, gate, scale = samples(shape, dtype), seconds(shape, dtype), scales(shape[-1])
    norm = Norm(form, isa=isa, stash=dtype, normalized=dtype, scaled=dtype, streaming=0)
    whole, _ = run(norm, x, gate, scale)
    for change in ({"in_place": True}, {"split": 7}, {"streaming": 1}):
        assert same_bits(run(dataclasses.replace(norm, **change), x, gate, scale)[0], whole)
    assert same_bits(run(norm, x[5:7], gate[5:7], scale)[0], whole[5:7])
