"""Writes a program as an ONNX model, with every norm spelled out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from rmsnorm_onnx.spec import DType

from . import emit
from .spelling import Kind, Shape, Spelling
from .tape import Tape, Value, weight_values

#: The domain of an operator nobody knows: its output has no type.
OPAQUE_DOMAIN = "test.opaque"


class Writer(Tape):
    """Collects nodes; ``model()`` wraps them up."""

    def __init__(self, opset: int):
        self.opset = opset
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._functions: dict[str, onnx.FunctionProto] = {}
        self._domains: dict[str, int] = {"": opset}
        self._count: Counter[str] = Counter()
        self._in_function = False

    def model(self) -> onnx.ModelProto:
        """Return the model with what has been written so far."""
        graph = helper.make_graph(
            self._scopes[0], "zoo", self._inputs, self._outputs, list(self._initializers.values())
        )
        imports = [helper.make_opsetid(domain, version) for domain, version in self._domains.items()]
        model = helper.make_model(graph, opset_imports=imports, functions=list(self._functions.values()))
        # Initializers need not be inputs from IR version 4 on, functions exist from 8 on.
        known = helper.find_min_ir_version_for(imports[:1])
        model.ir_version = max(4, known, 8 if self._functions else 0)
        model.producer_name = "zoo"
        return _with_output_shapes(model)

    def fresh(self, stem: str) -> str:
        """Return a name not used before, in any scope."""
        self._count[stem] += 1
        return f"{stem}_{self._count[stem]}"

    # leaves

    def input(self, name: str, shape: Shape | None, dtype: int = DType.FLOAT) -> Value:
        if name not in {i.name for i in self._inputs}:
            self._inputs.append(helper.make_tensor_value_info(name, int(dtype), shape))
        return name

    def weight(self, name: str, shape: Sequence[int], dtype: DType = DType.FLOAT) -> Value:
        return self.tensor(name, weight_values(name, shape, dtype), dtype)

    def constant(self, values: Any, dtype: int = DType.FLOAT) -> Value:
        return self.number(values, dtype)

    def tensor(self, name: str, values: Any, dtype: int) -> str:
        """An initializer; inside a function, where there are none, a Constant node."""
        array = np.asarray(values)
        proto = helper.make_tensor(name, int(dtype), array.shape, array.ravel().tolist())
        if self._in_function:
            return self.op("Constant", value=proto)
        self._initializers[name] = proto
        return name

    def number(self, values: Any, dtype: int, kind: Kind = "initializer", like: str = "") -> str:
        """A constant, or what only looks like one, written as ``kind`` says; ``like`` is what CastLike follows."""
        shape = np.shape(values)
        if kind in ("cast-float", "cast-double"):
            source = DType.FLOAT if kind == "cast-float" else DType.DOUBLE
            return self.op("Cast", self.number(values, source), to=int(dtype))
        if kind == "castlike":
            return self.op("CastLike", self.number(values, DType.FLOAT), like)
        if kind == "constant":
            array = np.asarray(values)
            return self.op("Constant", value=helper.make_tensor("", int(dtype), shape, array.ravel().tolist()))
        if kind == "value":
            return self.op("Constant", value_float=float(values))
        name = self.fresh("constant")
        if kind in ("input", "overridable"):
            self.input(name, shape, dtype)
        return name if kind == "input" else self.tensor(name, values, dtype)

    # nodes

    def op(self, op_type: str, *inputs: Value, domain: str = "", **attributes: Any) -> Value:
        output = self.fresh(op_type.lower())
        return self.ops(op_type, inputs, (output,), domain, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> Sequence[str]:
        """One node with these output names."""
        if domain:
            self._domains.setdefault(domain, 1)
        node = helper.make_node(op_type, inputs, outputs, name=self.fresh(op_type), domain=domain, **attributes)
        self._scopes[-1].append(node)
        return outputs

    def output(self, value: Value, name: str, dtype: int = DType.FLOAT, shape: Shape | None = None) -> None:
        """Rename ``value`` to ``name`` where it was made, so that the graph's last node is not an Identity."""
        for node in self._scopes[-1]:
            node.output[:] = [name if v == value else v for v in node.output]
            node.input[:] = [name if v == value else v for v in node.input]
        self._outputs.append(helper.make_tensor_value_info(name, int(dtype), shape))

    # norms

    def lift(self, x: Value, s: Spelling) -> Value:
        return self.cast(x, s.stash) if s.stash else x

    def mean_square(self, x: Value, s: Spelling) -> Value:
        return emit.mean_square(self, x, s)

    def root(self, mean: Value, s: Spelling) -> Value:
        return emit.root(self, mean, s)

    def normalized(self, x: Value, root: Value, s: Spelling) -> Value:
        return emit.normalized(self, x, root, s)

    def scaled(self, normalized: Value, s: Spelling, scale: Value | None = None) -> Value:
        return emit.scaled(self, normalized, s, scale)

    def norm(self, x: Value, s: Spelling, scale: Value | None = None) -> Value:
        lifted = self.lift(emit.inserted(self, x, s, "x"), s)
        root = self.root(self.mean_square(lifted, s), s)
        if s.quotient_in == "model":
            lifted, root = x, self.cast(root, s.dtype)
        return self.scaled(self.normalized(lifted, root, s), s, scale)

    # scopes

    def branch(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        return self.op("If", condition, then_branch=self._body(then), else_branch=self._body(otherwise))

    def loop(self, trips: int, body: Callable[[Value], Value], initial: Value, shape: Shape) -> Value:
        step, going, carried = (self.fresh(stem) for stem in ("step", "going", "carried"))
        inputs = [
            helper.make_tensor_value_info(step, TensorProto.INT64, ()),
            helper.make_tensor_value_info(going, TensorProto.BOOL, ()),
            helper.make_tensor_value_info(carried, DType.FLOAT, shape),
        ]
        graph = self._body(lambda: body(carried), inputs, keep_going=going)
        return self.op("Loop", self.constant(trips, TensorProto.INT64), "", initial, body=graph)

    def scan(self, body: Callable[[Value], Value], rows: Value) -> Value:
        row = self.fresh("row")
        graph = self._body(lambda: body(row), [helper.make_tensor_value_info(row, DType.FLOAT, None)])
        return self.op("Scan", rows, body=graph, num_scan_inputs=1)

    def call(self, name: str, body: Callable[..., Value], *arguments: Value) -> Value:
        if name not in self._functions:
            inputs = [self.fresh("argument") for _ in arguments]
            with self._scope(in_function=True) as nodes:
                result = body(*inputs)
            imports = [helper.make_opsetid("", self.opset)]
            self._functions[name] = helper.make_function("test.local", name, inputs, [result], nodes, imports)
        return self.op(name, *arguments, domain="test.local")

    def _body(
        self, write: Callable[[], Value], inputs: Sequence[onnx.ValueInfoProto] = (), keep_going: str = ""
    ) -> onnx.GraphProto:
        with self._scope() as nodes:
            outputs = [helper.make_tensor_value_info(write(), DType.FLOAT, None)]
            if keep_going:
                still = self.op("Identity", keep_going)
                outputs.insert(0, helper.make_tensor_value_info(still, TensorProto.BOOL, ()))
        return helper.make_graph(nodes, self.fresh("body"), list(inputs), outputs)

    @contextmanager
    def _scope(self, in_function: bool = False):
        self._scopes.append([])
        outer, self._in_function = self._in_function, in_function or self._in_function
        try:
            yield self._scopes[-1]
        finally:
            self._scopes.pop()
            self._in_function = outer


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Declare the outputs that a program gave no shape: the checker wants one."""
    if all(o.type.tensor_type.HasField("shape") for o in model.graph.output):
        return model
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    for mine, theirs in zip(model.graph.output, inferred.graph.output, strict=True):
        mine.type.CopyFrom(theirs.type)
    return model
