"""What a session decides before a kernel runs: which stores pass the caches by, and whether a call is split."""

import ctypes
import itertools

import kernels_abi as abi
import pytest

from rmsnorm_onnx.spec import DType

pytestmark = pytest.mark.skipif(abi.is_emulated(), reason="asks the library of this machine")

MB = 1 << 20
#: A cache counts as one of 8 to 32 MB, whatever a machine states.
NEVER, ALWAYS = 4 * MB, 64 * MB
X, SECOND, Y, SUM = 0x1000000, 0x2000000, 0x3000000, 0x4000000


def streams(moved, form="plain", dtype=DType.FLOAT, alone=True, **changes):
    """Whether Y of a norm passes the caches by that reads and writes so many bytes, each array once."""
    given = {"x": X, "second": None if form == "plain" else SECOND, "y": Y, "sum": SUM if form == "skip" else None}
    given |= changes
    arrays = sum(place is not None for place in given.values())
    width = 1024
    rows = -(-moved // (arrays * width * abi.NUMPY[dtype].itemsize))
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    problem = abi.TestProblem(
        form=abi.FORMS.index(form), type=dtype, scale_type=dtype, stash=stash, normalized=stash, scaled=stash,
        shape=abi.int64s((rows, width)), axes=abi.int64s((-1,)), scale_shape=abi.int64s((width,)),
        rank=2, axis_count=1, scale_rank=1, **given,
    )  # fmt: skip
    answer = abi.native().rmsnorm_test_streams(ctypes.byref(problem), int(alone))
    assert answer >= 0
    return bool(answer)


EVERY = list(itertools.product(abi.FORMS, abi.NUMPY, (True, False)))


@pytest.mark.parametrize(("form", "dtype", "alone"), EVERY)
def test_what_fits_in_the_caches_stays_there(form, dtype, alone):
    assert not streams(NEVER, form, dtype, alone)


@pytest.mark.parametrize(("form", "dtype", "alone"), EVERY)
def test_what_does_not_fit_passes_them_by(form, dtype, alone):
    assert streams(2 * ALWAYS, form, dtype, alone)


@pytest.mark.parametrize("change", [{"y": X}, {"form": "skip", "y": SECOND}], ids=["x", "skip"])
def test_never_in_place(change):
    assert not streams(4 * ALWAYS, **change)


@pytest.mark.parametrize(("form", "dtype"), [("plain", DType.FLOAT), ("plain", DType.BFLOAT16), ("skip", DType.FLOAT)])
def test_one_thread_streams_earlier(form, dtype):
    """Several would wait for each other."""
    first = [next(n for n in range(1, 65) if streams(n * MB, form, dtype, alone)) for alone in (True, False)]
    assert first[0] <= first[1] <= 2 * first[0]
    assert 8 <= first[0] <= 16
    assert 8 <= first[1] <= 32


def test_a_sum_that_nobody_wants_does_not_count():
    first = [next(n for n in range(1, 65) if streams(n * MB, "skip", sum=place)) for place in (SUM, None)]
    assert first[0] == first[1]


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16], ids=lambda dtype: dtype.name)
def test_sums_of_16_bits_are_streamed_later(dtype):
    """They go through the caches all the same."""
    first = next(n for n in range(1, 129) if streams(n * MB, "skip", dtype))
    assert first > next(n for n in range(1, 129) if streams(n * MB, "skip"))


def splits(calls):
    """Which calls of a node are split: pairs of bytes and of whether other threads would come."""
    sizes, others = zip(*calls, strict=True)
    split = (ctypes.c_int32 * len(calls))()
    abi.native().rmsnorm_test_company(
        abi.int64s(sizes), (ctypes.c_int32 * len(calls))(*others), ctypes.c_int64(len(calls)), split
    )
    return [bool(one) for one in split]


PATIENCE = 16


def test_calls_to_which_others_come_are_split():
    assert all(splits([(MB, True)] * 100))


def test_calls_to_which_nobody_comes_are_split_now_and_then():
    split = splits([(MB, False)] * (PATIENCE + 160))
    assert all(split[:PATIENCE])
    assert sum(split[PATIENCE:]) == 160 // PATIENCE


def test_larger_calls_are_split_whatever_smaller_ones_met():
    """Threads that sleep come too late for a small tensor, not for a large one."""
    split = splits([(MB, False)] * 32 + [(2 * MB, True)] + [(MB, False)])
    assert not all(split[:32])
    assert split[32:] == [True, True]


def test_smaller_calls_are_not_split_where_larger_ones_met_nobody():
    split = splits([(2 * MB, False)] * PATIENCE + [(MB, False)] * 32)
    assert sum(split[PATIENCE:]) == 2


def test_others_that_come_again_are_noticed():
    split = splits([(MB, False)] * 40 + [(MB, True)] * 40)
    first = next(i for i in range(40, 80) if split[i])
    assert first < 40 + PATIENCE
    assert all(split[first:])
