"""Tables and charts of a verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from rmsnorm_onnx.parity.records import (
    BODY,
    KERNEL,
    SUBGRAPH,
    Histogram,
    NodeParity,
    OutputParity,
    ParityReport,
    Reading,
    Verdict,
)
from rmsnorm_onnx.report import BarChart, Table

_Record = TypeVar("_Record")
#: Header, and what stands below it.
_Column = tuple[str, Callable[[_Record], str]]

_SHORT: Final = {SUBGRAPH: "original", BODY: "body", KERNEL: "kernel"}


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that count, and no exponent below ten millions; a dash for none."""
    if value is None:
        return "-"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if digits < 4 and 10**digits <= abs(value) < 1e7 else text


def label(node: NodeParity) -> str:
    """What a node gives, and in which iteration of the loops around it."""
    numbers = ", ".join(map(str, node.iterations))
    return f"{node.output} (iteration {numbers})" if numbers else node.output


def output_table(outputs: Sequence[OutputParity], *, several: bool) -> Table:
    """One line per output and set of inputs, narrow enough for a terminal."""
    columns: list[_Column[OutputParity]] = [
        ("output", lambda o: o.name),
        *([("inputs", _inputs)] if several else []),
        ("verdict", lambda o: o.verdict.name.lower().replace("_", "-")),
        ("ulps", _ulps),
        ("of bound", lambda o: number(o.worst[0].share if o.worst else None)),
        ("nearer", lambda o: o.nearer or "-"),
    ]
    failed = sum(not output.verdict.ok for output in outputs)
    return _table("Outputs: fused against original, and which is nearer to float64", columns, outputs, failed=failed)


def node_table(nodes: Sequence[NodeParity]) -> Table:
    """One line per fused node: of each way of computing it, the error on the set where it uses most of its bound."""
    by_output: dict[str, list[NodeParity]] = {}
    for node in nodes:
        by_output.setdefault(node.output, []).append(node)

    def largest(how: str) -> Callable[[list[NodeParity]], str]:
        return lambda same: _largest([r for n in same for r in n.readings if r.how == how and r.max_ulps is not None])

    columns: list[_Column[list[NodeParity]]] = [
        ("norm that gives", lambda same: same[0].output),
        *((short, largest(how)) for how, short in _SHORT.items()),
    ]
    failed = sum(not all(node.ok for node in same) for same in by_output.values())
    title = "Fused nodes alone: largest error against float64 / its bound, in ulps"
    return _table(title, columns, list(by_output.values()), failed=failed)


def detail_tables(
    result: ParityReport, outputs: Sequence[OutputParity], nodes: Sequence[NodeParity]
) -> tuple[Table, ...]:
    """What a page has room for."""
    worst = [(o, worst) for o in outputs for worst in (o.worst[:1] if o.verdict.ok else o.worst)]
    readings = [(node, reading) for node in nodes for reading in node.readings]
    return (
        _table(
            "What was fused, and where",
            [
                ("operator", lambda f: f.op),
                ("gives", lambda f: f.output),
                ("in place of", lambda f: f"{len(f.replaced)} nodes: {f.pattern}" if f.replaced else "-"),
                ("node", lambda f: f.node),
            ],
            result.fusions,
            detail=True,
        ),
        _table(
            "Errors against float64: root mean square, in roundoffs of the type at the output's size",
            [
                ("output", lambda o: o.name),
                ("inputs", _inputs),
                ("type and shape", lambda o: _type(o.dtype, o.shape)),
                ("original", lambda o: number(o.original_error)),
                ("fused", lambda o: number(o.fused_error)),
                ("original's rounding noise", lambda o: number(o.noise)),
                ("largest difference, absolute", lambda o: number(o.max_abs_error)),
            ],
            outputs,
            detail=True,
        ),
        _table(
            "Worst elements",
            [
                ("output", lambda p: p[0].name),
                ("inputs", lambda p: p[0].inputs),
                ("at", lambda p: str(list(p[1].index))),
                ("fused", lambda p: number(p[1].got, 9)),
                ("original", lambda p: number(p[1].expected, 9)),
                ("float64", lambda p: number(p[1].exact, 9)),
                ("ulps apart", lambda p: number(p[1].ulps)),
                ("of bound", lambda p: number(p[1].share)),
            ],
            worst,
            failed=sum(not output.verdict.ok for output, _ in worst),
            detail=True,
        ),
        _table(
            "Fused nodes alone, on the inputs that they get in the model",
            [
                ("operator", lambda p: p[0].op),
                ("gives", lambda p: label(p[0])),
                ("inputs", lambda p: p[0].inputs),
                ("type and shape", lambda p: _type(p[0].dtype, p[0].shape)),
                ("width", lambda p: str(p[0].width)),
                ("computed by", lambda p: p[1].how),
                ("largest error, ulps", lambda p: number(p[1].max_ulps)),
                ("rms, ulps", lambda p: number(p[1].rms_ulps)),
                ("bound, ulps", lambda p: number(p[1].bound_ulps)),
                ("verdict", lambda p: _reading_verdict(p[1])),
            ],
            sorted(readings, key=lambda p: p[1].ok),
            failed=sum(not reading.ok for _, reading in readings),
            detail=True,
        ),
        _table(
            "Near misses: what only looks like an RMS norm in the fused model",
            [
                ("node", lambda m: m.node),
                ("reason", lambda m: m.why),
                ("what was seen", lambda m: "\n".join((f"{m.reason}: {m.detail}", *m.tree))),
            ],
            result.near_misses,
            detail=True,
        ),
        _table(
            "Inputs, and what ran on them",
            [
                ("inputs", lambda s: s.name),
                ("dimensions", lambda s: " ".join(f"{name}={value}" for name, value in s.dims.items()) or "all fixed"),
                ("values", lambda s: s.origin),
                ("original run by", lambda s: s.original.how),
                ("fused run by", lambda s: s.fused.how),
                ("float64 of original", lambda s: s.original.exact),
                ("float64 of fused", lambda s: s.fused.exact),
            ],
            result.sets,
            detail=True,
        ),
    )


def charts(outputs: Sequence[OutputParity]) -> tuple[BarChart, ...]:
    """Errors of each output as a histogram: what failed first, then by how much of the bound is used."""

    def share(output: OutputParity) -> float:
        return output.worst[0].share if output.worst else 0.0

    ordered = sorted(outputs, key=lambda o: (o.verdict.ok, -share(o)))
    return tuple(_chart(output, output.histogram) for output in ordered if output.histogram is not None)


def _chart(output: OutputParity, histogram: Histogram) -> BarChart:
    used = max(
        (bin_ for bin_, pair in enumerate(zip(histogram.original, histogram.fused, strict=True)) if any(pair)),
        default=0,
    )
    labels = [*(f"{edge:g}" for edge in histogram.edges), f">{histogram.edges[-1]:g}"]
    shown = min(len(labels), used + 2)
    return BarChart(
        f"{output.name} ({output.inputs})",
        "elements by error against float64, up to so many ulps",
        tuple(labels[:shown]),
        (("original", histogram.original[:shown]), ("fused", histogram.fused[:shown])),
    )


def _table(
    title: str,
    columns: Sequence[_Column[_Record]],
    records: Sequence[_Record],
    *,
    failed: int = 0,
    detail: bool = False,
) -> Table:
    rows = tuple(tuple(text(record) for _, text in columns) for record in records)
    return Table(title, tuple(header for header, _ in columns), rows, failed=failed, detail=detail)


def _inputs(record: OutputParity | NodeParity) -> str:
    return record.inputs


def _type(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _ulps(output: OutputParity) -> str:
    if not output.worst:
        return "0" if output.verdict is Verdict.IDENTICAL else "-"
    return number(output.worst[0].ulps)


def _largest(readings: Sequence[Reading]) -> str:
    if not readings:
        return "-"
    worst = max(readings, key=lambda r: (not r.ok, (r.max_ulps or 0.0) / (r.bound_ulps or 1.0)))
    return number(worst.max_ulps) + ("" if worst.bound_ulps is None else f" / {number(worst.bound_ulps)}")


def _reading_verdict(reading: Reading) -> str:
    if reading.why_not:
        return f"not run: {reading.why_not}"
    return "shown, not judged" if reading.bound_ulps is None else "within" if reading.ok else "OUTSIDE"
