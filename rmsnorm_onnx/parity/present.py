"""A verification in the form that every renderer takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rmsnorm_onnx.parity.records import SCHEMA_VERSION, InputSet, ModelFile, OutputParity, ParityReport, Verdict
from rmsnorm_onnx.report import Case, Report, Status, Table


def report(result: ParityReport) -> Report:
    """Verdict, facts, tables, cases and document of a verification."""
    return Report(
        title="Parity of original and fused model",
        status=_status(result.ok),
        verdict=_verdict(result),
        facts=_facts(result),
        tables=tuple(table for table in (_outputs(result.outputs), _worst_elements(result.outputs)) if table.rows),
        cases=_cases(result),
        document=_document(result),
    )


def _status(ok: bool) -> Status:
    return Status.PASSED if ok else Status.FAILED


def _verdict(result: ParityReport) -> str:
    outputs, nodes = len(result.outputs), len(result.nodes)
    wrong = [output for output in result.outputs if not output.verdict.ok]
    wrong_nodes = sum(not node.ok for node in result.nodes)
    sets = f" on {len(result.sets)} sets of inputs" if len(result.sets) > 1 else ""
    if result.ok:
        return f"equal: {outputs} of {outputs} outputs{sets}" + (f", {nodes} of {nodes} nodes" if nodes else "")
    parts = [f"{len(wrong)} of {outputs} outputs{sets} differ"] if wrong else []
    parts += [f"{wrong_nodes} of {nodes} nodes are out of their bound"] if wrong_nodes else []
    return "; ".join((f"NOT equal: {', '.join(parts)}", *_answers(wrong)))


def _answers(wrong: list[OutputParity]) -> list[str]:
    """To the question behind a mismatch, once for each answer: which model is further from the truth."""
    words = {
        "original": "the fused model is further from float64 than the original",
        "fused": "the fused model is nearer to float64 than the original",
        "neither": "both are equally far from float64",
    }
    return [f"{text}: {', '.join(names)}" for key, text in words.items() if (names := _named(wrong, key))]


def _named(outputs: list[OutputParity], nearer: str) -> list[str]:
    return list(dict.fromkeys(output.name for output in outputs if output.nearer == nearer))


def _cases(result: ParityReport) -> tuple[Case, ...]:
    return (
        *(Case(f"{o.name} ({o.inputs})", _status(o.verdict.ok), o.detail or o.verdict.value) for o in result.outputs),
        *(Case(f"{n.op} {n.output} ({n.inputs})", _status(n.ok), n.detail or Verdict.NODE.value) for n in result.nodes),
        *(Case(miss.node, Status.SKIPPED, f"{miss.reason}: {miss.detail}") for miss in result.near_misses),
    )


def _document(result: ParityReport) -> dict[str, Any]:
    """JSON-ready values; non-finite numbers are left to the writer."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": "verify",
        "ok": result.ok,
        "verdict": _verdict(result),
        **asdict(result),
    }
    for record, output in zip(document["outputs"], result.outputs, strict=True):
        record["verdict"] = output.verdict.name.lower().replace("_", "-")
        record["ok"] = output.verdict.ok
        record["nearer"] = output.nearer
    for record, node in zip(document["nodes"], result.nodes, strict=True):
        record["ok"] = node.ok
    return document


def _facts(result: ParityReport) -> tuple[tuple[str, str], ...]:
    repeat = result.repeat
    facts = [
        ("original", _model(result.original)),
        ("fused", _model(result.fused)),
        *(fact for one in result.sets for fact in _set_facts(one)),
        ("versions", ", ".join(f"{name} {version}" for name, version in repeat.versions.items())),
        ("machine", repeat.machine + (f", kernels for {repeat.isa}" if repeat.isa else "")),
        ("repeat", repeat.command),
    ]
    return tuple(fact for fact in facts if fact[1])


def _model(model: ModelFile) -> str:
    return f"{model.name} ({model.sha256[:12]})"


def _set_facts(one: InputSet) -> list[tuple[str, str]]:
    dims = ", ".join(f"{name}={value}" for name, value in one.dims.items())
    return [
        ("inputs", f"{one.name}: {one.origin}; {dims or 'all dimensions fixed'}"),
        ("run by", f"original: {one.original.how}; fused: {one.fused.how}"),
        ("exact runs", f"original: {one.original.exact}; fused: {one.fused.exact}"),
        *(("note", note) for note in one.notes),
    ]


def _outputs(outputs: tuple[OutputParity, ...]) -> Table:
    columns = ("inputs", "output", "type and shape", "verdict", "max abs error", "ulps", "error / bound", "nearer")
    rows = tuple(
        (
            o.inputs,
            o.name,
            f"{o.dtype}[{', '.join(map(str, o.shape))}]",
            o.verdict.value,
            _number(o.max_abs_error),
            _number(o.worst[0].ulps if o.worst else None),
            _number(o.worst[0].share if o.worst else None),
            o.nearer or "-",
        )
        for o in outputs
    )
    return Table("outputs", columns, rows)


def _worst_elements(outputs: tuple[OutputParity, ...]) -> Table:
    columns = ("inputs", "output", "worst at", "fused", "original", "float64", "rms: original", "rms: fused")
    rows = tuple(
        (
            o.inputs,
            o.name,
            str(list(o.worst[0].index)),
            _number(o.worst[0].got, 9),
            _number(o.worst[0].expected, 9),
            _number(o.worst[0].exact, 9),
            _number(o.original_error, unit=" u"),
            _number(o.fused_error, unit=" u"),
        )
        for o in outputs
        if o.worst
    )
    return Table("worst elements, and errors against float64 in roundoffs u of the type", columns, rows)


def _number(value: float | None, digits: int = 3, unit: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}g}{unit}"
