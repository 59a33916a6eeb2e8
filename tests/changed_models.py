"""A small model with one norm, and ways to change it into what no exporter would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import onnx
from onnx import TensorProto, helper

TEXT: Final = """<ir_version: 8, opset_import: ["" : 17]> g (float[B, 8] x, bool c) => (float[B, 8] y)
    <float[8] scale = {1, 2, 3, 4, 5, 6, 7, 8}, float two = {2}, float epsilon = {1e-5}> {
        square = Pow(x, two) mean = ReduceMean <axes = [-1]> (square) sum = Add(mean, epsilon) root = Sqrt(sum)
        quotient = Div(x, root) y = Mul(quotient, scale) }"""
#: Changes the model in place; what is not a model any more comes back as bytes.
Change: TypeAlias = Callable[[onnx.ModelProto], "bytes | None"]


def norm_model() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


def tensor_of(model: onnx.ModelProto, name: str = "scale") -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def data(name: str = "scale", **fields: Any) -> Change:
    """Give a tensor these fields, and its data only if they are among them."""

    def change(model: onnx.ModelProto) -> None:
        tensor = tensor_of(model, name)
        kept = TensorProto(name=name, dims=tensor.dims, data_type=tensor.data_type)
        for field in fields.keys() & {"dims"}:
            kept.ClearField(field)
        kept.MergeFrom(TensorProto(**fields))
        tensor.CopyFrom(kept)

    return change


def field(name: str, value: Any) -> Change:
    """Give the scale another field beside its data."""

    def change(model: onnx.ModelProto) -> None:
        tensor_of(model).ClearField(name)
        tensor_of(model).MergeFrom(TensorProto(**{name: value}))

    return change


def node(op_type: str, inputs: list[str], outputs: list[str], first: bool = False, **attributes: Any) -> Change:
    """Add a node."""

    def change(model: onnx.ModelProto) -> None:
        made = helper.make_node(op_type, inputs, outputs, **attributes)
        model.graph.node.insert(0 if first else len(model.graph.node), made)

    return change


def wire(before: bytes, after: bytes) -> Change:
    """Replace bytes of the serialized model, for what no library writes."""

    def change(model: onnx.ModelProto) -> bytes:
        serialized = model.SerializeToString()
        assert before in serialized
        return serialized.replace(before, after)

    return change


def opset(version: int, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        if domain == "":
            del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid(domain, version))

    return change


def functions(*bodies: str, uses: str = "F0", domain: str = "own") -> Change:
    """Functions F0, F1, ... of one input and output, each of calls in a row, and a call of one of them."""

    def change(model: onnx.ModelProto) -> None:
        imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
        for index, body in enumerate(bodies):
            calls = body.split()
            nodes = [
                helper.make_node(call, [f"v{at}"], [f"v{at + 1}"], domain=domain if call[1:].isdigit() else "")
                for at, call in enumerate(calls)
            ]
            model.functions.append(
                helper.make_function(domain, f"F{index}", ["v0"], [f"v{len(calls)}"], nodes, imports)
            )
        model.opset_import.append(helper.make_opsetid(domain, 1))
        model.graph.node.append(helper.make_node(uses, ["x"], ["z"], domain=domain))
        model.graph.output.append(helper.make_tensor_value_info("z", 1, ["B", 8]))

    return change


def branch(value: str = "x", output: str = "o", **attributes: Any) -> onnx.GraphProto:
    made = helper.make_node("Neg", [value], ["o"], **attributes)
    return helper.make_graph([made], "branch", [], [helper.make_tensor_value_info(output, 1, ["B", 8])])


def condition(then: onnx.GraphProto, output: str = "z") -> Change:
    return node("If", ["c"], [output], then_branch=then, else_branch=branch())


def nested(levels: int) -> Change:
    """Branches in branches; protobuf itself does not copy deep messages, so they grow in place."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        for _ in range(levels):
            outer = graph.node.add(op_type="If", input=["c"], output=["deep" if graph is model.graph else "o"])
            outer.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(branch())
            graph = outer.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
            graph.output.add(name="o")
        graph.node.add(op_type="Neg", input=["x"], output=["o"])

    return change


def both(*changes: Change) -> Change:
    def change(model: onnx.ModelProto) -> bytes | None:
        results = [one(model) for one in changes]
        return results[-1]

    return change


def renamed(new: str) -> Change:
    """Call the norm's output and one value inside it by another name."""

    def change(model: onnx.ModelProto) -> None:
        names = {"y": f"y{new}", "square": f"square{new}"}
        for one in model.graph.node:
            for values in (one.input, one.output):
                values[:] = [names.get(value, value) for value in values]
        model.graph.output[0].name = names["y"]

    return change


def chain(length: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for index in range(length):
            model.graph.node.add(op_type="Neg", input=[f"c{index}" if index else "y"], output=[f"c{index + 1}"])
        model.graph.output[0].name = f"c{length}"

    return change


def backwards(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _at(model: onnx.ModelProto, path: str) -> tuple[Any, str]:
    """The message that holds the last field of ``path``; numbers are indices."""
    *steps, last = path.split(".")
    target: Any = model
    for step in steps:
        target = target[int(step)] if step.isdigit() else getattr(target, step)
    return target, last


def set_field(path: str, value: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        target, last = _at(model, path)
        if last.isdigit():
            target[int(last)] = value
        else:
            setattr(target, last, value)

    return change


def clear(path: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        target, last = _at(model, path)
        target.ClearField(last)

    return change


def append(path: str, value: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        getattr(*_at(model, path)).append(value)

    return change
