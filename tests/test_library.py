"""The compiled library inside onnxruntime: every operator, type, error text and promise about bits."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import kernels_abi as abi
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from norm_models import check, execute, feeds_of, info, model, node, one_norm, session, types_of, values
from onnx import TensorProto, helper, numpy_helper

from rmsnorm_onnx import errors, library, spec
from rmsnorm_onnx.spec import DType


@pytest.fixture(autouse=True)
def _built_library(monkeypatch):
    """Sessions use the library built from this tree, installed or not."""
    monkeypatch.setattr(library, "get_library_path", abi.library_path)


ops = pytest.mark.parametrize("op", list(spec.OPS))
BUILT_IN = "SimplifiedLayerNormalization"


@ops
@pytest.mark.parametrize(("dtype", "scale_type"), list(itertools.product(DType, DType)), ids=str)
def test_every_type(op, dtype, scale_type):
    x, scale = values((6, 300), dtype), values(300, scale_type, 1)
    total = op == spec.SKIP.name
    types = types_of(op, dtype)
    feeds = feeds_of(op, x, scale)
    got = execute(one_norm(op, dtype, scale_type, total=total, **types), feeds, ("y", "t") if total else ("y",))
    check(op, feeds, types, *got)


@ops
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT])
@pytest.mark.parametrize("width", [64, 20000])  # float32: kept, and too large to be kept
@pytest.mark.parametrize("rows", [1, 5])  # one row reads a scale of 16 bits where the session holds it
def test_constant_scale_gives_the_bits_of_a_fed_one(op, dtype, width, rows):
    x = values((rows, width), dtype)
    for scale in (values(width, dtype, 1), np.ones(width, x.dtype), np.ones(1, x.dtype)):
        fed = execute(one_norm(op, dtype, dtype), feeds_of(op, x, scale))
        constant = execute(one_norm(op, dtype, scale=scale), feeds_of(op, x))
        assert fed[0].tobytes() == constant[0].tobytes()


@ops
@pytest.mark.parametrize(
    ("shape", "axes", "part"),
    [
        ((64, 2048), [-1], slice(5, 23)),
        ((64, 2048), [0], slice(5, 23)),
        # Rows that threads share.
        *(((rows, width), [-1], slice(rows - 1, rows)) for rows, width in ((1, 131072), (2, 262144), (3, 200003))),
    ],
    ids=str,
)
def test_bits_do_not_depend_on_threads_or_batch(op, shape, axes, part):
    x = values(shape)
    proto = one_norm(op, scale=values(1, seed=1), axes=axes)
    feeds = feeds_of(op, x)
    results = [execute(proto, feeds, threads=threads)[0] for threads in (1, 2, 4)]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    cut = {name: np.ascontiguousarray(a[part] if axes == [-1] else a[:, part]) for name, a in feeds.items()}
    whole = results[0][part] if axes == [-1] else results[0][:, part]
    assert execute(proto, cut)[0].tobytes() == np.ascontiguousarray(whole).tobytes()


def test_sum_is_optional_and_its_absence_changes_nothing():
    x, scale = values((4, 32)), values(32, seed=1)
    feeds = feeds_of(spec.SKIP.name, x, scale)
    both = execute(one_norm(spec.SKIP.name, total=True), feeds, ("y", "t"))
    alone = execute(one_norm(spec.SKIP.name), feeds)
    assert both[0].tobytes() == alone[0].tobytes()
    assert both[1].tobytes() == (x + feeds["z"]).tobytes()
    empty = one_norm(spec.SKIP.name)
    empty.graph.node[0].output.append("")
    assert execute(empty, feeds)[0].tobytes() == both[0].tobytes()


@ops
@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (0, 0)], ids=str)
def test_empty_tensors_give_empty_outputs(op, shape):
    feeds = feeds_of(op, np.zeros(shape, np.float32), np.ones(shape[1] or 1, np.float32))
    assert session(one_norm(op)).run(["y"], feeds)[0].shape == shape


REFUSED_ATTRIBUTES = [
    ({"axes": []}, "expected axes to name at least one axis, got an empty list"),
    ({"epsilon": -1e-5}, "expected epsilon to be finite and not negative, got -9.99999975e-06"),
    ({"epsilon": float("nan")}, "expected epsilon to be finite and not negative, got nan"),
    ({"epsilon": float("inf")}, "expected epsilon to be finite and not negative, got inf"),
    ({"epsilon": 1}, "expected attribute epsilon of type FLOAT, got an INT"),
    ({"epsilon": None}, "expected attribute epsilon of type FLOAT, got none"),
    ({"floor": -1.0}, "expected floor to be finite and not negative, got -1"),
    ({"epsilon_outside": -0.5}, "expected epsilon_outside to be finite and not negative, got -0.5"),
    ({"stash_type": 10}, "expected stash_type FLOAT (1) or DOUBLE (11), got 10"),
    ({"normalized_type": 7}, "expected normalized_type FLOAT (1), FLOAT16 (10), DOUBLE (11) or BFLOAT16 (16), got 7"),
    ({"axes": -1}, "expected attribute axes of type INTS, got an INT"),
]


@ops
@pytest.mark.parametrize(("attributes", "text"), REFUSED_ATTRIBUTES, ids=str)
def test_wrong_attribute_is_refused_at_creation(op, attributes, text):
    proto = one_norm(op, **{name: value for name, value in attributes.items() if value is not None})
    if None in attributes.values():
        kept = [a for a in proto.graph.node[0].attribute if a.name not in attributes]
        del proto.graph.node[0].attribute[:]
        proto.graph.node[0].attribute.extend(kept)
    with pytest.raises(Exception, match=re.escape(f"{op} node 'norm': {text}")):
        session(proto)


def test_wrong_scaled_type_is_refused():
    with pytest.raises(Exception, match=r"expected scaled_type FLOAT \(1\).*got 0"):
        session(one_norm(spec.GATED.name, scaled_type=0))


@ops
@pytest.mark.parametrize(
    ("shape", "scale", "axes", "text"),
    [
        ((2, 3), 3, [2], "expected axes from -2 to 1 for X of shape [2, 3], got axis 2"),
        ((2, 3), 3, [-3], "expected axes from -2 to 1 for X of shape [2, 3], got axis -3"),
        ((2, 3), 3, [1, -1], "expected each axis once, got axes [1, -1], which name axis 1 of X of shape [2, 3] twice"),
        ((2, 3), 4, [-1], "to X of shape [2, 3] without widening it, got scale of shape [4]"),
        ((2, 1), 5, [0], "to X of shape [2, 1] without widening it, got scale of shape [5]"),
        ((), 1, [-1], "expected X of rank 1 or more, got a scalar (rank 0)"),
    ],
    ids=str,
)
def test_wrong_shape_is_refused_at_the_call(op, shape, scale, axes, text):
    proto = one_norm(op, axes=axes, dims=None)
    feeds = feeds_of(op, np.ones(shape, np.float32), np.ones(scale, np.float32))
    with pytest.raises(Exception, match=re.escape(f"{op} node 'norm': expected")) as raised:
        session(proto).run(None, feeds)
    assert text in str(raised.value)


@pytest.mark.parametrize(("op", "name"), [(spec.SKIP.name, "skip"), (spec.GATED.name, "gate")])
def test_second_input_of_another_shape_is_refused(op, name):
    feeds = {"x": values((2, 3)), "z": values((3,)), "s": values(3)}
    with pytest.raises(Exception, match=re.escape(f"expected {name} of the shape of X, [2, 3], got [3]")):
        session(one_norm(op, dims=None)).run(None, feeds)


def test_instruction_set_is_read_when_a_session_is_made(monkeypatch):
    feeds = feeds_of(spec.RMS.name, values((4, 129)), values(129, seed=1))
    for isa in abi.isas():
        monkeypatch.setenv(spec.ISA_VARIABLE, isa)
        assert library.info().isa_active == isa
        assert np.isfinite(execute(one_norm(spec.RMS.name), feeds)[0]).all()
    monkeypatch.setenv(spec.ISA_VARIABLE, "mmx")
    with pytest.raises(Exception, match=r"RMSNORM_ONNX_ISA asks for instruction set 'mmx'.*support: .*baseline"):
        session(one_norm(spec.RMS.name))


def chain(op, length=6, last="Neg", **attributes):
    """Neg, ``length`` nodes of one operator, ``last``: every value between may be overwritten."""
    ours = spec.OPS.get(op)
    second = bool(ours) and len(ours.inputs) == 3
    nodes = [helper.make_node("Neg", ["x"], ["v0"])]
    for i in range(length):
        names = [f"v{i}", *["z"] * second, *["s"] * op.endswith("Normalization")]
        nodes.append(helper.make_node(op, names, [f"v{i + 1}"], domain=spec.DOMAIN if ours else "", **attributes))
    nodes.append(helper.make_node(last, [f"v{length}"], ["y"]))
    inputs = [info("x", 1, ["n", 64]), *[info("z", 1, ["n", 64])] * second, info("s", 1, [64])]
    return model(nodes, inputs, [info("y", 1, None)])


@ops
def test_chain_works_in_place(op):
    """Same numbers as node by node, in the memory of one value instead of many."""
    x, scale = values((2048, 64)), values(64, seed=1)
    feeds = feeds_of(op, x, scale)
    got = session(chain(op, epsilon=1e-5)).run(None, feeds)[0]
    step, value = session(one_norm(op)), -x
    for _ in range(6):
        value = step.run(["y"], {**feeds, "x": value})[0]
    assert got.tobytes() == (-value).tobytes()


def test_a_norm_takes_over_the_memory_of_its_input(tmp_path):
    """Peak memory of a chain is that of Relu, which works in place, one value below that of the built-in norm."""
    code = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1])\n"
        "options = ort.SessionOptions(); options.enable_cpu_mem_arena = False\n"
        "options.intra_op_num_threads = 1; options.register_custom_ops_library(sys.argv[1])\n"
        "made = ort.InferenceSession(sys.argv[2], options)\n"
        "feeds = {'x': np.ones((1 << 17, 64), np.float32), 's': np.ones(64, np.float32)}\n"
        "before = peak(); made.run(None, feeds); print(peak() - before)\n"
    )
    peaks = {}
    for op, attributes in ((spec.RMS.name, {"epsilon": 1e-5}), ("Relu", {}), (BUILT_IN, {"epsilon": 1e-5})):
        path = tmp_path / f"{op}.onnx"
        onnx.save(chain(op, last="ReduceMax", **attributes), path)
        command = [sys.executable, "-c", code, abi.library_path(), str(path)]
        peaks[op] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 2**15
    # In values of 32 MiB.
    assert abs(peaks[spec.RMS.name] - peaks["Relu"]) < 0.2
    assert peaks[BUILT_IN] - peaks["Relu"] > 0.8


def test_skip_of_a_value_with_itself():
    """X and skip in one buffer, which both outputs might take over."""
    nodes = [
        helper.make_node("Neg", ["x"], ["v"]),
        helper.make_node(spec.SKIP.name, ["v", "v", "s"], ["n", "t"], domain=spec.DOMAIN, epsilon=1e-5),
        helper.make_node("Neg", ["n"], ["y"]),
        helper.make_node("Neg", ["t"], ["u"]),
    ]
    dims = ["n", 64]
    proto = model(nodes, [info("x", 1, dims), info("s", 1, [64])], [info("y", 1, dims), info("u", 1, dims)])
    x, scale = values((300, 64)), values(64, seed=1)
    y, total = session(proto).run(None, {"x": x, "s": scale})
    assert total.tobytes() == (x + x).tobytes()
    want = session(one_norm(spec.RMS.name)).run(None, {"x": x + x, "s": scale})[0]
    assert y.tobytes() == want.tobytes()


@pytest.mark.parametrize("dims", [["batch", 64], [None, 64], [None, None], None], ids=str)
def test_shapes_are_inferred_and_unknown_lengths_are_left_open(dims):
    target = numpy_helper.from_array(np.array([-1, 16]), "target")
    nodes = [node(spec.RMS.name), helper.make_node("Reshape", ["y", "target"], ["reshaped"])]
    inputs = [info("x", 1, dims), info("s", 1, [64])]
    made = session(model(nodes, inputs, [info("y", 1, None), info("reshaped", 1, None)], [target]))
    if dims == ["batch", 64]:
        assert made.get_outputs()[0].shape == dims
    assert made.run(["reshaped"], {"x": values((3, 64)), "s": values(64)})[0].shape == (12, 16)


def test_scale_captured_by_a_branch():
    """A constant of the outer graph, used inside an If."""
    branch = helper.make_graph([node(spec.RMS.name)], "then", [], [info("y", 1, None)])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "else", [], [info("y", 1, None)])
    nodes = [helper.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=other)]
    inputs = [info("x", 1, ["n", 8]), info("c", TensorProto.BOOL, [])]
    x, scale = values((3, 8)), values(8, seed=1)
    proto = model(nodes, inputs, [info("out", 1, ["n", 8])], [numpy_helper.from_array(scale, "s")])
    got = session(proto).run(None, {"x": x, "c": np.array(True)})[0]
    assert got.tobytes() == session(one_norm(spec.RMS.name)).run(None, {"x": x, "s": scale})[0].tobytes()


def test_registering_twice_and_two_sessions():
    options = ort.SessionOptions()
    library.register(options)
    library.register(options)
    data = one_norm(spec.RMS.name).SerializeToString()
    feeds = feeds_of(spec.RMS.name, values((4, 16)), values(16))
    results = [ort.InferenceSession(data, options).run(None, feeds)[0] for _ in range(2)]
    assert results[0].tobytes() == results[1].tobytes()


def test_library_says_what_it_was_built_from():
    said = library.info()
    assert said.isa_supported == abi.isas()
    assert said.isa_active in said.isa_supported
    assert said.size_bytes > 0
    spec_now = {
        "domain": spec.DOMAIN,
        "version": spec.VERSION,
        "ort_api_version": spec.ORT_API_VERSION,
        "ops": {
            op.name: {
                "inputs": op.inputs,
                "outputs": op.outputs,
                "optional_outputs": op.optional_outputs,
                "attributes": {a.name: [a.kind.value, a.default] for a in op.attributes},
            }
            for op in spec.OPS.values()
        },
    }
    assert said.spec == json.loads(json.dumps(spec_now))


def test_exactly_one_symbol_is_exported():
    listing = subprocess.run(
        [abi.tool("nm"), "-D", "--defined-only", abi.library_path()], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == ["RegisterCustomOps"]


def test_missing_library_says_what_to_do(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(library, "LIBRARY_NAME", "no_such_library.so")
    with pytest.raises(errors.LibraryMissing, match="pip install"):
        library.get_library_path()


def test_missing_onnxruntime_names_both_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(errors.CannotRun, match=r"not both.*rmsnorm-onnx\[cpu\].*rmsnorm-onnx\[cuda\]"):
        library.info()


@pytest.mark.parametrize("version", ["1.17.3", "1.9.0", "0.5"])
def test_an_old_onnxruntime_is_refused_before_it_sees_the_library(monkeypatch, version):
    monkeypatch.setattr(ort, "__version__", version)
    monkeypatch.setattr(library, "get_library_path", lambda: pytest.fail("went on"))
    with pytest.raises(errors.CannotRun, match=rf"expected onnxruntime 1.18 or newer, got {version}; pip install"):
        library.register(ort.SessionOptions())


def test_newer_onnxruntimes_are_taken(monkeypatch):
    for version in ("1.18.0", "1.100.0.dev20300101", "2.0"):
        monkeypatch.setattr(ort, "__version__", version)
        assert library.import_onnxruntime() is ort


def test_a_broken_onnxruntime_is_not_called_missing(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("import numpy.core.no_such_part\n")
    with pytest.raises(errors.CannotRun, match=r"cannot be imported .*no_such_part.*numpy below 2, this is \d"):
        library.import_onnxruntime()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    with pytest.raises(errors.CannotRun, match=r"no SessionOptions.*then install one"):
        library.import_onnxruntime()


def test_slot_numbers_of_the_official_header():
    header = abi.installed_header()
    if header is None:
        pytest.skip("no onnxruntime_c_api.h on this machine; RMSNORM_ORT_HEADER may name one")
    text = header.read_text(encoding="utf-8")
    ours = (abi.ROOT / "custom_ops" / "src" / "ort" / "abi.h").read_text(encoding="utf-8")
    table = abi.function_table(text)
    slots = dict(re.findall(r"^  (\w+) = (\d+),$", ours[ours.index("enum class Slot") :], re.MULTILINE))
    assert len(slots) > 20
    # An older header ends before the slots that the library uses where they are there.
    known = {name: int(slot) for name, slot in slots.items() if int(slot) < len(table)}
    assert {name: table.index(name) for name in known} == known
