"""Nodes in an onnxruntime session on the GPU: ours and onnxruntime's own, a chain of each."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from custom_ops.bench.gpu.results import Ort
from rmsnorm_onnx import spec
from rmsnorm_onnx.bench.timing import Effort, Times, interleave

_EPSILON: Final = 1e-5
#: Nodes of one run, which waits for the device once.
CHAIN: Final = 32
CELLS: Final = (
    *(("plain", dtype, shape) for dtype in ("float16", "float32") for shape in ((1, 4096), (32, 8192), (4096, 4096))),
    *(("skip", "float16", shape) for shape in ((1, 4096), (32, 8192), (2048, 4096))),
)
_EFFORT: Final = Effort(rounds=11, sample_s=5e-3, budget_s=0.5, warm=True)


def has_cuda() -> bool:
    """Whether onnxruntime is one for CUDA."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def chain(form: str, dtype: str, shape: tuple[int, int], *, ours: bool) -> ModelProto:
    """A model of ``CHAIN`` norms, each of the one before; of ours or of onnxruntime's own."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    skip = ["skip"] * (form == "skip")
    nodes = []
    for i in range(CHAIN):
        inputs, y = [f"Y_{i - 1}" if i else "X", *skip, "scale"], f"Y_{i}" if i < CHAIN - 1 else "Y"
        total = "sum" if i == CHAIN - 1 else f"sum_{i}"
        if ours:
            op = spec.SKIP if skip else spec.RMS
            attributes: dict[str, Any] = {"epsilon": _EPSILON, "stash_type": 1, "normalized_type": 1}
            nodes.append(
                helper.make_node(op.name, inputs, [y, total] if skip else [y], domain=spec.DOMAIN, **attributes)
            )
        elif skip:
            outputs, name = [y, "", "", total], "SkipSimplifiedLayerNormalization"
            nodes.append(helper.make_node(name, inputs, outputs, domain="com.microsoft", epsilon=_EPSILON))
        else:
            nodes.append(helper.make_node("SimplifiedLayerNormalization", inputs, [y], axis=-1, epsilon=_EPSILON))
    given = [helper.make_tensor_value_info(name, element, shape) for name in ("X", *skip)]
    results = [helper.make_tensor_value_info(name, element, shape) for name in ("Y", *["sum"] * bool(skip))]
    # Near one: after so many norms the values still are.
    scale = numpy_helper.from_array(np.random.default_rng(1).uniform(0.95, 1.05, shape[-1:]).astype(dtype), "scale")
    opsets = [helper.make_opsetid(*one) for one in (("", 18), ("com.microsoft", 1), (spec.DOMAIN, spec.VERSION))]
    graph = helper.make_graph(nodes, "chain", given, results, [scale])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(library: str, device: str = "cuda") -> list[Ort]:
    """Every cell; RuntimeError where the two results are not alike.

    Args:
        library: path of ours; for CUDA, with that part.
        device: as onnxruntime calls it.
    """
    found = []
    for form, dtype, shape in CELLS:
        sessions = {ours: _Session(chain(form, dtype, shape, ours=ours), library, device) for ours in (True, False)}
        rng = np.random.default_rng(0)
        names = ("X", "skip") if form == "skip" else ("X",)
        inputs = {name: rng.standard_normal(shape).astype(dtype) for name in names}
        mine, theirs = (session.bind(inputs).astype(np.float32) for session in sessions.values())
        # After so many norms in a row, each rounded.
        tolerance = 0.1 if dtype == "float16" else 1e-4
        if not np.allclose(mine, theirs, atol=tolerance, rtol=tolerance):
            raise RuntimeError(f"onnxruntime's {form} {dtype} {shape} and ours differ")
        samples = interleave({str(ours): session.repeat for ours, session in sessions.items()}, _EFFORT)
        us = {name: Times.of(taken).p50 * 1e6 / CHAIN for name, taken in samples.items()}
        found.append(Ort(f"{form} {dtype} {'x'.join(map(str, shape))}", us["True"], us["False"]))
    return found


class _Session:
    """On a GPU all nodes, or none: a node that falls back to the CPU is an error."""

    def __init__(self, model: ModelProto, library: str, device: str) -> None:
        import onnxruntime

        self._values, self._device = onnxruntime.OrtValue, device
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(library)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = f"{device.upper()}ExecutionProvider"
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
        self._binding = self._session.io_binding()

    def bind(self, inputs: dict[str, Any]) -> Any:
        """Put the inputs on the device, run once, and return Y."""
        like = inputs["X"]
        self._kept = {name: self._values.ortvalue_from_numpy(a, self._device, 0) for name, a in inputs.items()}
        for name, value in self._kept.items():
            self._binding.bind_ortvalue_input(name, value)
        for output in self._session.get_outputs():
            value = self._values.ortvalue_from_shape_and_type(like.shape, like.dtype, self._device, 0)
            self._kept[output.name] = value
            self._binding.bind_ortvalue_output(output.name, value)
        self.repeat(1)
        return self._kept["Y"].numpy()

    def repeat(self, times: int) -> None:
        """Run so often; each run waits for the device."""
        for _ in range(times):
            self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
