"""Inputs from files: .npz and ONNX test data, as people have them and as they come broken."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from feed_models import parse
from onnx import numpy_helper

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime import make_feed_sets, make_feeds

BF16 = ml_dtypes.bfloat16
PAIR = ir.from_proto(parse("p (float[n, 2] attention, bfloat16[n] bias) => (float[n, 2] y) { y = Neg (attention) }"))
ARRAYS = {"attention": np.ones((3, 2), np.float32), "bias": np.array([1.5, -2, 3], BF16)}


def given(inputs):
    return make_feeds(PAIR, inputs=inputs).arrays


def folder_of(path, arrays, names=("", "")):
    path.mkdir(parents=True)
    for index, (array, name) in enumerate(zip(arrays, names, strict=True)):
        onnx.save_tensor(numpy_helper.from_array(array, name), path / f"input_{index}.pb")
    return path


# --- types --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [BF16, np.uint16, np.float32])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_bfloat16_from_an_archive(stored, save, tmp_path):
    bias = ARRAYS["bias"]
    save(
        tmp_path / "in.npz",
        attention=ARRAYS["attention"],
        bias=bias.view(stored) if stored is np.uint16 else bias.astype(stored),
    )
    got = given(tmp_path / "in.npz")["bias"]
    assert got.dtype == BF16
    np.testing.assert_array_equal(got, bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.full(3, 1.001, np.float32)}, "bfloat16 cannot hold these float32 values"),
        ({"bias": np.zeros(3, np.int16)}, "input bias: expected bfloat16, got int16"),
        ({"attention": np.zeros((3, 2), np.float16)}, "input attention: expected float32, got float16"),
        ({"attention": np.zeros((3, 2), np.int64)}, "input attention: expected float32, got int64"),
        ({"attention": np.zeros((4, 2), np.float32)}, r"input bias: expected shape \['n'\] with n = 4, got \[3\]"),
        ({"attention": np.zeros((3, 3), np.float32)}, r"input attention: expected shape \['n', 2\]"),
        ({"attention": np.zeros(3, np.float32)}, r"expected shape \['n', 2\], got \[3\]"),
        ({"attention": None, "atention": np.zeros((3, 2))}, "did you mean attention by atention"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    arrays = {name: array for name, array in (ARRAYS | change).items() if array is not None}
    with pytest.raises(InvalidInput, match=message):
        given(arrays)


def test_nan_and_inf_are_values():
    values = np.array([np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(given(ARRAYS | {"bias": values})["bias"].astype(np.float32), values)


# --- broken archives ----------------------------------------------------------------------------------------------


def npy(shape, dtype="<f4", data=b""):
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


BROKEN = {
    "a huge claim": npy((1 << 40, 2)),
    "a negative size": npy((-3, 2), data=bytes(24)),
    "a size beyond int64": npy((1 << 80, 0)),
    "too few bytes": npy((3, 2), data=bytes(20)),
    "too many bytes": npy((3, 2), data=bytes(28)),
    "pickled objects": npy((3, 2), "|O", bytes(48)),
    "no array": b"text",
    "an unknown version": b"\x93NUMPY\x07\x00" + bytes(80),
    "an empty member": b"",
    "a header that is code": npy("__import__('os')"),
    "a header of brackets": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_archives_with_a_broken_member(kind, tmp_path):
    with pytest.raises(InvalidInput, match=r"expected an \.npz file"):
        given(archive(tmp_path / "in.npz", attention=BROKEN[kind], bias=npy((3,), "<u2", bytes(6))))


@pytest.mark.parametrize("kept", [0, 1, 30, 100, 0.5, 0.9, -1])
def test_truncated_archives(kept, tmp_path):
    np.savez(tmp_path / "in.npz", **ARRAYS)
    whole = (tmp_path / "in.npz").read_bytes()
    end = int(kept * len(whole)) if isinstance(kept, float) else kept
    (tmp_path / "in.npz").write_bytes(whole[:end])
    with pytest.raises(InvalidInput, match=r"\.npz"):
        given(tmp_path / "in.npz")


def test_any_changed_byte_is_an_answer_or_a_refusal(tmp_path):
    np.savez_compressed(tmp_path / "in.npz", **ARRAYS)
    whole = (tmp_path / "in.npz").read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        (tmp_path / "in.npz").write_bytes(changed)
        try:
            given(tmp_path / "in.npz")
        except InvalidInput:
            refused += 1
    assert refused > len(whole) / 12


def test_a_claim_of_the_directory_is_not_believed(tmp_path):
    """The header and the archive's directory both claim 2 GB of zeros; the member holds 100 bytes."""
    data = npy((1 << 29,), data=bytes(100))
    archive(tmp_path / "in.npz", attention=data, bias=npy((3,), "<u2", bytes(6)))
    whole = (tmp_path / "in.npz").read_bytes()
    claimed = whole.replace(struct.pack("<I", len(data)), struct.pack("<I", len(data) - 100 + (1 << 31)))
    assert claimed != whole
    (tmp_path / "in.npz").write_bytes(claimed)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"\.npz"):
            given(tmp_path / "in.npz")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_other_files_are_no_archives(tmp_path):
    np.save(tmp_path / "in.npy", np.zeros(3))
    archive(tmp_path / "text.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as file:
        file.writestr("attention.txt", "1 2 3")
    np.savez(tmp_path / "locked.npz", **ARRAYS)
    locked = bytearray((tmp_path / "locked.npz").read_bytes())
    locked[6] |= 1  # "encrypted", in the first local header and in the directory
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(locked)
    for name in ("in.npy", "text.npz", "locked.npz", "absent.npz"):
        with pytest.raises(InvalidInput, match=name):
            given(tmp_path / name)


# --- test data folders --------------------------------------------------------------------------------------------


def test_a_folder_of_sets_gives_them_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        arrays = [ARRAYS["attention"] * number, ARRAYS["bias"]]
        folder_of(tmp_path / f"test_data_set_{number}", arrays)
    (tmp_path / "test_data_set_x").mkdir()
    made = make_feed_sets(PAIR, inputs=tmp_path)
    assert [feeds.name for feeds in made] == [f"test_data_set_{number}" for number in (0, 2, 10)]
    assert [feeds.arrays["attention"][0, 0] for feeds in made] == [0, 2, 10]
    (alone,) = make_feed_sets(PAIR, inputs=tmp_path / "test_data_set_2")
    assert alone.name == "test_data_set_2"
    assert alone.dims == {"n": 3}


def test_several_files_have_names_of_their_own(tmp_path):
    np.savez(tmp_path / "in.npz", **ARRAYS)
    one = folder_of(tmp_path / "a" / "test_data_set_0", ARRAYS.values())
    two = folder_of(tmp_path / "b" / "test_data_set_0", ARRAYS.values())
    made = make_feed_sets(PAIR, inputs=[tmp_path / "in.npz", one, str(two), ARRAYS])
    assert [feeds.name for feeds in made] == ["in.npz", "test_data_set_0", "test_data_set_0 (2)", "given"]
    with pytest.raises(InvalidInput, match="at least one"):
        make_feed_sets(PAIR, inputs=[])


def tensor(**fields):
    return onnx.TensorProto(**({"data_type": 1, "dims": [3, 2], "raw_data": bytes(24)} | fields)).SerializeToString()


def external(location):
    made = onnx.TensorProto(data_type=1, dims=[3, 2], data_location=onnx.TensorProto.EXTERNAL)
    made.external_data.add(key="location", value=location)
    return made.SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 40,
        tensor()[:-5],
        tensor(raw_data=bytes(20)),
        tensor(dims=[1 << 40, 2]),
        tensor(dims=[-1, 2]),
        tensor(dims=[-3, -2]),
        tensor(data_type=99),
        tensor(raw_data=b"", float_data=[1, 2]),
        external("../secret"),
        external("/etc/passwd"),
        external("beside.bin"),
    ],
)
def test_broken_tensors_are_named(content, tmp_path):
    folder = folder_of(tmp_path / "set", ARRAYS.values())
    (tmp_path / "secret").write_bytes(bytes(24))
    (folder / "beside.bin").write_bytes(bytes(24))
    (folder / "input_0.pb").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"input_0\.pb|input attention"):
        given(folder)


def test_files_that_are_no_inputs_are_passed_over(tmp_path):
    folder = folder_of(tmp_path / "set", ARRAYS.values())
    (folder / "input_x.pb").write_bytes(b"")
    (folder / "output_0.pb").write_bytes(b"")
    np.testing.assert_array_equal(given(folder)["bias"], ARRAYS["bias"])
    (folder / "input_1.pb").unlink()
    with pytest.raises(InvalidInput, match="expected 2 files"):
        given(folder)
