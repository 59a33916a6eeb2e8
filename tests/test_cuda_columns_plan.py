"""How CUDA norms that lie side by side are launched: a pure function, asked without a GPU."""

from __future__ import annotations

import pytest
from test_cuda_plan import plan

from rmsnorm_onnx.spec import DType


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((32, 256, 56, 56), DType.FLOAT16, (8, 256, 1, 1568)),
        ((8, 512, 64, 64), DType.FLOAT16, (8, 512, 1, 512)),
        ((8, 64, 128, 128), DType.FLOAT, (4, 64, 2, 2048)),
        ((32, 32, 128, 128), DType.FLOAT, (4, 32, 4, 4096)),
        ((1, 32, 128), DType.FLOAT, (4, 32, 1, 4)),
        ((64, 2048, 7, 7), DType.BFLOAT16, (1, 512, 1, 98)),
        ((2, 3, 2), DType.DOUBLE, (2, 32, 1, 1)),
    ],
    ids=str,
)
def test_columns_are_dealt_to_warps_by_their_height(shape, dtype, expected):
    found = plan(shape, dtype, axes=(1,), scale_shape=(shape[1], *[1] * (len(shape) - 2)))
    assert found["path"] == "columns"
    assert tuple(found[name] for name in ("vector", "threads", "rows", "blocks")) == expected


def test_columns_that_do_not_begin_at_16_bytes_go_element_by_element():
    whole = plan((2, 64, 64), axes=(1,))
    for other in (
        plan((2, 64, 63), axes=(1,)),
        plan((2, 64, 64), axes=(1,), x=(1 << 40) + 2),
        plan((2, 64, 64), axes=(1,), y=(4 << 40) + 8),
        plan((2, 64, 64), axes=(1,), stash=DType.DOUBLE),
        plan((8, 2, 8, 64), axes=(0, 2)),
    ):
        assert other["vector"] == 1
        assert other["threads"] == whole["threads"]
