"""Other implementations: torch, and packages that take part where they can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional

from custom_ops.bench.gpu.buffers import EPSILON, Sets
from custom_ops.bench.gpu.contestants import Contestant
from rmsnorm_onnx.bench.contestant import Absent, Group

Tensors = tuple[torch.Tensor, ...]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a package for another CUDA fails in its own way
        raise Absent(f"cannot be imported: {type(error).__name__}") from error


def _only(sets: Sets, forms: str, *, sixteen_bits: bool = False) -> None:
    """Absent unless the cell is of these forms, over the last axis."""
    if sets.cell.form not in forms.split() or sets.cell.axis != -1:
        raise Absent(f"{' and '.join(forms.split())} over the last axis only")
    if sixteen_bits and sets.dtype.itemsize != 2:
        raise Absent("16 bits only")


def _expression(sets: Sets) -> Callable[[Any, Any, Any], Tensors]:
    """The cell in torch's functions, as a model is written."""
    cell, width = sets.cell, sets.cell.width

    def norm(value: Any, scale: Any) -> Any:
        if cell.axis == -1:
            return functional.rms_norm(value, (width,), scale, EPSILON)
        last = functional.rms_norm(value.movedim(cell.axis, -1), (width,), scale.reshape(-1), EPSILON)
        return last.movedim(-1, cell.axis).contiguous()

    def skip(x: Any, second: Any, scale: Any) -> Tensors:
        total = x + second
        return norm(total, scale), total

    forms: dict[str, Callable[[Any, Any, Any], Tensors]] = {
        "plain": lambda x, _, scale: (norm(x, scale),),
        "skip": skip,
        "gated": lambda x, gate, scale: (norm(x, scale) * functional.silu(gate),),
        "pregated": lambda x, gate, scale: (norm(x * functional.silu(gate), scale),),
    }
    return forms[cell.form]


def eager(sets: Sets) -> Contestant:
    """torch.nn.functional.rms_norm and what else the form needs, each a kernel."""
    compute = _expression(sets)
    return Contestant("torch", Group.PEER, lambda i: compute(sets.x[i], sets.second[i], sets.scale[i]))


def compiled(sets: Sets) -> Contestant:
    """The same under torch.compile."""
    torch._dynamo.reset()
    compute = torch.compile(_expression(sets), dynamic=False, fullgraph=True)
    return Contestant("torch.compile", Group.PEER, lambda i: compute(sets.x[i], sets.second[i], sets.scale[i]))


def triton(sets: Sets) -> Contestant:
    """A kernel of our own in Triton."""
    _only(sets, "plain skip gated pregated")
    own = _import("custom_ops.bench.gpu.triton_norm")
    if sets.cell.width > own.WIDEST:
        raise Absent("rows of more than 65536 elements do not fit a block")
    y, total = sets.unwritten(), sets.unwritten() if sets.cell.form == "skip" else sets.total

    def launch(i: int) -> Tensors:
        own.launch(sets.cell.form, sets.x[i], sets.second[i], sets.scale[i], y[i], total[i], EPSILON)
        return (y[i],) if total[i] is None else (y[i], total[i])

    return Contestant("Triton", Group.PEER, launch)


def liger(sets: Sets) -> Contestant:
    """liger-kernel's Triton kernels."""
    _only(sets, "plain skip")
    if sets.cell.form == "skip":
        added = _import("liger_kernel.ops.fused_add_rms_norm").fused_add_rms_norm_forward

        def skip(i: int) -> Tensors:
            result: Tensors = added(sets.x[i], sets.second[i], sets.scale[i], EPSILON, 0.0, "gemma")[:2]
            return result

        return Contestant("Liger", Group.PEER, skip)
    plain = _import("liger_kernel.ops.rms_norm").rms_norm_forward
    return Contestant("Liger", Group.PEER, lambda i: plain(sets.x[i], sets.scale[i], EPSILON, 0.0, "gemma", None)[:1])


def quack(sets: Sets) -> Contestant:
    """The CuTe DSL kernels of quack."""
    _only(sets, "plain skip")
    norm = _import("quack.rmsnorm").rmsnorm
    if sets.cell.form == "skip":
        return Contestant(
            "quack",
            Group.PEER,
            lambda i: norm(sets.x[i], sets.scale[i], residual=sets.second[i], eps=EPSILON, prenorm=True)[:2],
        )
    return Contestant("quack", Group.PEER, lambda i: (norm(sets.x[i], sets.scale[i], eps=EPSILON),))


def _in_place(name: str, sets: Sets, plain: Callable[..., Any], skip: Callable[..., Any]) -> Contestant:
    """``plain(y, x, scale)``, or ``skip(x, residual, scale)``, which leaves Y in x and the sum in the residual."""
    if sets.cell.form == "skip":
        x, residual = sets.unwritten(), sets.unwritten()
        for i in range(sets.count):
            x[i].copy_(sets.x[i])
            residual[i].copy_(sets.second[i])

        def add(i: int) -> Tensors:
            skip(x[i], residual[i], sets.scale[i])
            return x[i], residual[i]

        return Contestant(name, Group.PEER, add)
    y = sets.unwritten()

    def launch(i: int) -> Tensors:
        plain(y[i], sets.x[i], sets.scale[i])
        return (y[i],)

    return Contestant(name, Group.PEER, launch)


def flashinfer(sets: Sets) -> Contestant:
    """FlashInfer."""
    _only(sets, "plain skip", sixteen_bits=True)
    norm = _import("flashinfer.norm")
    return _in_place(
        "FlashInfer",
        sets,
        lambda y, x, scale: norm.rmsnorm(x, scale, eps=EPSILON, out=y),
        lambda x, residual, scale: norm.fused_add_rmsnorm(x, residual, scale, eps=EPSILON),
    )


def vllm(sets: Sets) -> Contestant:
    """The CUDA kernels of vLLM."""
    _only(sets, "plain skip", sixteen_bits=True)
    ops = _import("vllm._custom_ops")
    return _in_place(
        "vLLM",
        sets,
        lambda y, x, scale: ops.rms_norm(y, x, scale, EPSILON),
        lambda x, residual, scale: ops.fused_add_rms_norm(x, residual, scale, EPSILON),
    )


def cudnn(sets: Sets) -> Contestant:
    """The norm of cuDNN, through its frontend's graph."""
    _only(sets, "plain")
    package = _import("cudnn")
    kinds = {"bfloat16": "BFLOAT16", "float16": "HALF", "float32": "FLOAT", "float64": "DOUBLE"}
    rows, width = sets.cell.elements // sets.cell.width, sets.cell.width
    handle = package.create_handle()
    graph = package.pygraph(
        io_data_type=getattr(package.data_type, kinds[sets.cell.dtype]),
        intermediate_data_type=package.data_type.FLOAT,
        compute_data_type=package.data_type.FLOAT,
        handle=handle,
    )
    x = graph.tensor(name="X", dim=[rows, width, 1, 1], stride=[width, 1, width, width])
    scale = graph.tensor(name="scale", dim=[1, width, 1, 1], stride=[width, 1, width, width])
    epsilon = graph.tensor(
        name="epsilon", dim=[1] * 4, stride=[1] * 4, is_pass_by_value=True, data_type=package.data_type.FLOAT
    )
    phase = package.norm_forward_phase.INFERENCE
    y, _ = graph.rmsnorm(norm_forward_phase=phase, input=x, scale=scale, epsilon=epsilon, name="norm")
    y.set_output(True)
    graph.build([package.heur_mode.A, package.heur_mode.FALLBACK])
    workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device="cuda")
    outputs, small = sets.unwritten(), torch.full((1, 1, 1, 1), EPSILON)

    def launch(i: int) -> Tensors:
        package.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph.execute({x: sets.x[i], scale: sets.scale[i], epsilon: small, y: outputs[i]}, workspace, handle=handle)
        return (outputs[i],)

    return Contestant("cuDNN", Group.PEER, launch)


#: Those that compile for every shape last: they are left out where time is short.
PEERS: Final[dict[str, Callable[[Sets], Contestant]]] = {
    "torch": eager,
    "Triton": triton,
    "Liger": liger,
    "quack": quack,
    "FlashInfer": flashinfer,
    "vLLM": vllm,
    "cuDNN": cudnn,
    "torch.compile": compiled,
}
#: Seconds that a compilation may take; a cell that has less does without.
COMPILES: Final = {"torch.compile": 4.0, "quack": 4.0, "Triton": 1.0, "Liger": 1.0}
