"""Models to mutate: the committed exports (mostly cut down to a piece), the zoo, and random graphs of the grammar."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnx
from grammar import draw
from zoo import CASES

MODELS = Path(__file__).resolve().parents[2] / "models"
#: Norms are around them.
_STATISTICS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "RMSNormalization", "SimplifiedLayerNormalization"}
)


def seed(dice: random.Random) -> tuple[str, onnx.ModelProto]:
    """A model nobody has touched yet, and where it is from."""
    kind = dice.random()
    if kind < 0.4:
        number = dice.randrange(1_000_000)
        return f"grammar {number}", draw(number).write()[0]
    if kind < 0.65:
        case = dice.choice(CASES)
        return f"zoo {case.id}", case.build()
    path = dice.choice(exports())
    model = onnx.ModelProto.FromString(path.read_bytes())
    if dice.random() < 0.93:
        cut(model, dice)
    return path.parent.name, model


@cache
def exports() -> tuple[Path, ...]:
    """The committed models, always in the same order."""
    return tuple(sorted(MODELS.glob("*/model.onnx")))


def cut(model: onnx.ModelProto, dice: random.Random) -> None:
    """Keep a piece of the main graph: a value near a statistic, and up to 60 nodes that lead to it."""
    graph = model.graph
    types = _types(model)
    readers: dict[str, list[int]] = {}
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        producers.update(dict.fromkeys(node.output, index))
        for name in reads(node):
            readers.setdefault(name, []).append(index)
    at = dice.choice([i for i, n in enumerate(graph.node) if n.op_type in _STATISTICS] or range(len(graph.node)))
    for _ in range(dice.choice([2, 4, 5, 6, 8])):
        at = dice.choice([i for o in graph.node[at].output for i in readers.get(o, [])] or [at])
    kept, pending, most = set[int](), [at], dice.choice([6, 12, 25, 60])
    while pending and len(kept) < most:
        index = pending.pop(0)
        kept.add(index)
        pending += [producers[n] for n in reads(graph.node[index]) if n in producers and producers[n] not in kept]
    nodes = [graph.node[i] for i in sorted(kept)]
    made = {name for node in nodes for name in node.output}
    initial = {i.name for i in graph.initializer}
    needed = dict.fromkeys(n for node in nodes for n in reads(node) if n and n not in made)
    given = [types[n] for n in needed if n not in initial and n in types]
    results = [types[o] for node in nodes[-2:] for o in node.output if o in types]
    held = [i for i in graph.initializer if i.name in needed]
    for field, items in (("node", nodes), ("input", given), ("output", results), ("initializer", held)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("value_info")


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, its subgraphs' included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            made = {o for n in graph.node for o in n.output} | {i.name for i in (*graph.input, *graph.initializer)}
            yield from (name for n in graph.node for name in reads(n) if name not in made)


def _types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:  # an operator without an import, as onnxruntime's tools leave them
        inferred = model.graph
    return {i.name: i for i in (*inferred.value_info, *inferred.input, *inferred.output)}
