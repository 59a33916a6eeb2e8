"""A verification in the form that every renderer takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

from rmsnorm_onnx.parity.records import (
    SCHEMA_VERSION,
    NodeParity,
    OutputParity,
    ParityReport,
    Reading,
    Verdict,
    Worst,
)
from rmsnorm_onnx.parity.tables import charts, detail_tables, label, node_table, number, output_table
from rmsnorm_onnx.report import Case, Report, Status

#: Worst elements told in words, and names listed in a sentence.
_TOLD: Final = 3
_NAMED: Final = 5

_Judged = TypeVar("_Judged", OutputParity, NodeParity)


def report(result: ParityReport) -> Report:
    """Verdict, facts, tables, charts, cases and document of a verification."""
    outputs, nodes = _failed_first(result.outputs), _failed_first(result.nodes)
    several = len(result.sets) > 1
    tables = (
        output_table(outputs, several=several),
        node_table(nodes),
        *detail_tables(result, outputs, nodes),
    )
    return Report(
        title="rmsnorm-onnx verify",
        status=_status(result.ok),
        verdict=_verdict(result),
        facts=tuple(_facts(result)),
        tables=tuple(table for table in tables if table.rows),
        document=_document(result),
        cases=_cases(result, outputs, nodes),
        charts=charts(outputs),
        repeat=tuple(_repeat(result)),
        command=result.repeat.command,
        file=result.fused.name,
        seconds=result.seconds,
    )


def _failed_first(records: Sequence[_Judged]) -> tuple[_Judged, ...]:
    return tuple(sorted(records, key=_is_ok))


def _is_ok(record: OutputParity | NodeParity) -> bool:
    return record.verdict.ok if isinstance(record, OutputParity) else record.ok


def _status(ok: bool) -> Status:
    return Status.PASSED if ok else Status.FAILED


def _verdict(result: ParityReport) -> str:
    outputs, nodes = len(result.outputs), _nodes(result.nodes)
    wrong = [output for output in result.outputs if not output.verdict.ok]
    wrong_nodes = _nodes([node for node in result.nodes if not node.ok])
    sets = f" on {len(result.sets)} sets of inputs" if len(result.sets) > 1 else ""
    if result.ok:
        return f"equal: {outputs} of {outputs} outputs{sets}" + (f", {nodes} of {nodes} nodes" if nodes else "")
    parts = [f"{len(wrong)} of {outputs} outputs{sets} differ"] if wrong else []
    parts += [f"{wrong_nodes} of {nodes} nodes are out of their bound"] if wrong_nodes else []
    return "; ".join((f"NOT equal: {', '.join(parts)}", *_answers(wrong)))


def _nodes(records: Sequence[NodeParity]) -> int:
    """How many nodes, on each set of inputs; one in a loop has a record for each iteration that was looked at."""
    return len({(record.inputs, record.node, record.output) for record in records})


def _answers(wrong: list[OutputParity]) -> list[str]:
    """To the question behind a mismatch, once for each answer: which model is further from the truth."""
    return [
        f"{text}: {_few(names)}"
        for key, text in _NEARER.items()
        if (names := list(dict.fromkeys(output.name for output in wrong if output.nearer == key)))
    ]


_NEARER: Final = {
    "original": "the fused model is further from float64 than the original",
    "fused": "the fused model is nearer to float64 than the original",
    "neither": "both are equally far from float64",
}


def _few(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _facts(result: ParityReport) -> Iterable[tuple[str, str]]:
    sets = result.sets
    yield "original", result.original.name
    yield "fused", result.fused.name
    norms = Counter(fusion.op for fusion in result.fusions)
    listed = ", ".join(f"{count} {op}" for op, count in norms.items())
    yield "fused nodes", f"{listed or 'none'}; near misses: {len(result.near_misses)}"
    names = [one.name if one.name == one.origin else f"{one.name} ({one.origin})" for one in sets]
    yield "inputs", f"{len(sets)} sets: {_few([one.name for one in sets])}" if len(sets) > 1 else _few(names)
    yield "run by", _both((one.original.how for one in sets), (one.fused.how for one in sets))
    yield "float64", _both((one.original.exact for one in sets), (one.fused.exact for one in sets))
    for side, runs in (("original", [s.original for s in sets]), ("fused", [s.fused for s in sets])):
        for reason in dict.fromkeys(reason for run in runs for reason in run.passed_over):
            yield "note", f"{side}: {reason}"
    for note in dict.fromkeys(note for one in sets for note in one.notes):
        yield "note", note
    odd = dict.fromkeys(f"{label(node)}: {node.detail}" for node in result.nodes if node.ok and node.detail)
    if odd:
        yield "note", _few(list(odd))
    worst = max((o for o in result.outputs if o.worst), key=lambda o: o.worst[0].share, default=None)
    if worst is not None and result.ok and worst.worst[0].share > 0:
        yield "largest error", f"{worst.name}{_at(worst.worst[0])}" + (f", {worst.inputs}" if len(sets) > 1 else "")


def _both(original: Iterable[str], fused: Iterable[str]) -> str:
    left, right = (_few(list(dict.fromkeys(texts))) for texts in (original, fused))
    return f"both: {left}" if left == right else f"original: {left}; fused: {right}"


def _at(worst: Worst) -> str:
    """One element, in words."""
    exact = "" if worst.exact is None else f", float64 {number(worst.exact, 9)}"
    return (
        f" at {list(worst.index)}: fused {number(worst.got, 9)}, original {number(worst.expected, 9)}{exact} "
        f"({number(worst.ulps)} {'ulp' if worst.ulps == 1 else 'ulps'} apart, {number(worst.share)} of the bound)"
    )


def _repeat(result: ParityReport) -> Iterable[tuple[str, str]]:
    repeat = result.repeat
    yield "seed", f"{repeat.seed}, {repeat.samples} sampled rounding runs"
    yield "original sha256", result.original.sha256
    yield "fused sha256", result.fused.sha256
    yield "versions", ", ".join(f"{name} {version}" for name, version in repeat.versions.items())
    yield "machine", repeat.machine
    yield "instruction set", repeat.isa or "none: the library did not run"
    yield "providers", ", ".join(repeat.providers) or "none: onnxruntime did not run"


def _cases(result: ParityReport, outputs: Sequence[OutputParity], nodes: Sequence[NodeParity]) -> tuple[Case, ...]:
    return (
        *(Case(o.name, _status(o.verdict.ok), _output_message(o), f"outputs, {o.inputs}") for o in outputs),
        *(Case(f"{n.op} {label(n)}", _status(n.ok), _node_message(n), f"nodes, {n.inputs}") for n in nodes),
        *(Case(m.node, Status.SKIPPED, f"{m.reason}: {m.detail}", "near misses") for m in result.near_misses),
    )


def _output_message(output: OutputParity) -> str:
    detail = f": {output.detail}" if output.detail else ""
    lines = [output.verdict.value + detail]
    if not output.verdict.ok:
        lines += [f" {_at(worst)}" for worst in output.worst[:_TOLD]]
        if output.nearer is not None:
            errors = f"{number(output.original_error)} and {number(output.fused_error)} roundoffs"
            lines.append(f"  {_NEARER[output.nearer]} (rms error of original and fused: {errors})")
    return "\n".join(lines)


def _node_message(node: NodeParity) -> str:
    if node.ok:
        return "within the bound"
    lines = [f"{Verdict.NODE.value}: {node.detail}", *(f"  {_reading(reading)}" for reading in node.readings)]
    return "\n".join([*lines, *([f" {_at(node.worst)}"] if node.worst is not None else [])])


def _reading(reading: Reading) -> str:
    if reading.max_ulps is None:
        return f"{reading.how}: not run, {reading.why_not}"
    bound = "" if reading.bound_ulps is None else f", {number(reading.bound_ulps)} are allowed"
    return f"{reading.how}: up to {number(reading.max_ulps)} ulps from float64{bound}"


def _document(result: ParityReport) -> dict[str, Any]:
    """JSON-ready values; non-finite numbers are left to the writer."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": "verify",
        "ok": result.ok,
        "verdict": _verdict(result),
        **asdict(result),
    }
    # Whoever repeats a verification on the same machine gets the same document.
    del document["seconds"]
    for record, output in zip(document["outputs"], result.outputs, strict=True):
        record["verdict"] = output.verdict.name.lower().replace("_", "-")
        record["ok"] = output.verdict.ok
        record["nearer"] = output.nearer
    for record, node in zip(document["nodes"], result.nodes, strict=True):
        record["ok"] = node.ok
    return document
