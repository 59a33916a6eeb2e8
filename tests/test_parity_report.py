"""What a verification looks like in every form, and the schemas of all documents."""

from __future__ import annotations

import copy
import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import jsonschema
import onnx
import pytest
from command import run, run_process
from exports import MODELS
from report_examples import PAGE, block, fields
from rich.console import Console
from schemas import FOLDER, in_words, schemas
from test_report import check_junit

import rmsnorm_onnx
from rmsnorm_onnx import report, spec
from rmsnorm_onnx.parity.records import KERNEL, NearMiss, ParityReport

MODEL = MODELS / "llama-norm-torchscript11-f16" / "model.onnx"
QWEN = MODELS / "qwen3-next-dynamo18-f32" / "model.onnx"
DIMS = {"batch": (1, 2), "sequence": (1, 3)}
SETS = 4
NORMS = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The model, fused, and fused with another epsilon in one norm."""
    folder = tmp_path_factory.mktemp("models")
    fused = rmsnorm_onnx.optimize(MODEL).model
    onnx.save(fused, folder / "fused.onnx")
    node = [node for node in fused.graph.node if node.domain == spec.DOMAIN][2]
    next(a for a in node.attribute if a.name == "epsilon").f = 0.01
    onnx.save(fused, folder / "wrong.onnx")
    return folder


@pytest.fixture(scope="module")
def equal(models) -> ParityReport:
    return rmsnorm_onnx.verify(MODEL, models / "fused.onnx", dims=DIMS, per_node=True)


@pytest.fixture(scope="module")
def mixed(models, equal) -> ParityReport:
    """Equal on all sets of inputs but one, with a node that is out of its bound, and near misses."""
    wrong = rmsnorm_onnx.verify(MODEL, models / "wrong.onnx", dims={"batch": 2, "sequence": 3})
    outputs = (*equal.outputs[:-1], replace(wrong.outputs[0], inputs=equal.outputs[-1].inputs))
    readings = tuple(replace(r, max_ulps=1e4, ok=r.how != KERNEL) for r in equal.nodes[-1].readings)
    nodes = (*equal.nodes[:-1], replace(equal.nodes[-1], readings=readings, detail="the kernel is far off"))
    found = rmsnorm_onnx.inspect(QWEN).near_misses
    misses = tuple(NearMiss(m.node, m.why.value, m.why.text, m.detail, m.tree) for m in found)
    return replace(equal, outputs=outputs, nodes=nodes, near_misses=misses)


def text_of(result: ParityReport) -> list[str]:
    out = io.StringIO()
    report.print_text(result.report(), Console(file=out, width=80, no_color=True))
    return out.getvalue().splitlines()


def test_the_terminal_shows_one_line_per_output_and_set_of_inputs(equal):
    lines = text_of(equal)
    assert len([line for line in lines if re.match(r"output +batch=\d seq=\d +within-bound +\d+ +0[.]", line)]) == SETS
    assert len([line for line in lines if re.fullmatch(r"[\w/.]+( +[\d.]+ / [\d.]+){3} *", line)]) == NORMS
    assert (
        lines[-1] == f"equal: {SETS} of {SETS} outputs on {SETS} sets of inputs, {NORMS * SETS} of {NORMS * SETS} nodes"
    )
    assert len([line for line in lines if line.startswith("largest error: output at [")]) == 1
    assert max(map(len, (line for line in lines if not line.startswith(("repeat", "original:", "fused:"))))) <= 80


def test_what_failed_comes_first_everywhere(mixed):
    lines = text_of(mixed)
    rows = [line for line in lines if re.match("output +batch", line)]
    assert "function" in rows[0]
    assert all("within-bound" in row for row in rows[1:])
    assert any(line.startswith("output (outputs, batch=2 seq=3): another function") for line in lines)
    assert sum(line.startswith("  at [") for line in lines) == 3 + 1
    text = re.sub(" +", " ", " ".join(lines))
    assert "outside the bound of the operator: the kernel is far off" in text
    assert text.endswith(
        f"NOT equal: 1 of {SETS} outputs on {SETS} sets of inputs differ, 1 of {NORMS * SETS} nodes are out of their "
        "bound; the fused model is further from float64 than the original: output"
    )
    page, summary = report.to_html(mixed.report()), report.to_markdown(mixed.report())
    assert page.index('class="failed"') < page.index("within-bound")
    assert summary.index("another function") < summary.index("within-bound")
    assert page.index("<figcaption>output (batch=2 seq=3)") < page.index("<figcaption>output (batch=1")


def test_junit_has_a_case_per_output_and_set_and_per_node_and_skips_near_misses(mixed):
    root = ElementTree.fromstring(report.to_junit(mixed.report()))
    check_junit(root)
    assert len(root) == 2 * SETS + 1
    assert int(root.get("tests")) == SETS + SETS * NORMS + len(mixed.near_misses)
    assert (root.get("failures"), root.get("skipped")) == ("2", str(len(mixed.near_misses)))
    assert float(root.get("time")) > 0
    assert all(case.get("file") == mixed.fused.name for case in root.iter("testcase"))
    assert [skipped.get("message").partition(":")[0] for skipped in root.iter("skipped")] == [
        miss.reason for miss in mixed.near_misses
    ]


@pytest.mark.parametrize("form", [report.to_html, report.to_markdown, report.to_junit, report.to_json])
def test_every_form_says_how_to_repeat_it(form, equal):
    text = form(equal.report())
    repeat = equal.repeat
    for part in (
        f"rmsnorm-onnx verify {MODEL}",
        "--dim batch=1,2 --dim sequence=1,3 --per-node",
        equal.original.sha256,
        equal.fused.sha256,
        repeat.versions["onnxruntime"],
        repeat.isa,
        "CPUExecutionProvider",
    ):
        assert part in text
    assert re.search(r"seed\W+(</dt><dd>|value=.)?0", text)


def test_the_page_shows_every_part(mixed):
    page = report.to_html(mixed.report())
    for part in (
        "What was fused, and where",
        "/norms.1/Mul_1_output_0",
        "9 nodes: Cast-Pow",
        "Worst elements",
        "function body",
        "OUTSIDE",
        "change: divide the sum of squares",
        "onnxruntime in float64",
    ):
        assert part in page
    assert page.count("<svg") == SETS
    # Counts of the histogram are those of the record.
    histogram = mixed.outputs[0].histogram
    assert sum(histogram.fused) == 32
    assert f"fused: 0.5 {histogram.fused[0]}" in page


def test_outputs_without_numbers_to_compare_are_shown_all_the_same(equal):
    bare = replace(equal.outputs[0], worst=(), histogram=None, original_error=None, fused_error=None, noise=None)
    result = replace(equal, outputs=(bare,), nodes=(), fusions=(), near_misses=())
    assert any(re.match(r"output +batch=1 seq=1 +within-bound +- +- +-", line) for line in text_of(result))
    assert "<svg" not in report.to_html(result.report())


def strict(schema):
    """The same schema, but a field that it does not name is an error: whatever is printed is documented."""
    found = copy.deepcopy(schema)
    stack = [found]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if "properties" in part:
                part["additionalProperties"] = False
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    return jsonschema.Draft202012Validator(found)


def test_the_shipped_schemas_are_those_of_the_dataclasses():
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == {
        name: in_words(schema) for name, schema in schemas().items()
    }
    for schema in schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_documents_of_a_verification_follow_the_schema(equal, mixed):
    validator = strict(json.loads((FOLDER / "verify.json").read_text()))
    for result in (equal, mixed):
        document = json.loads(report.to_json(result.report()))
        validator.validate(document)
        assert document["ok"] is result.ok
    assert document["outputs"][-1]["verdict"] == "function"
    assert not document["nodes"][-1]["ok"]
    document["outputs"][0]["verdict"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimize", QWEN),
        ("inspect", QWEN),
        ("info",),
        ("benchmark", "model", MODELS / "gated-dynamo18-f16" / "model.onnx", "--seconds", "0.01", "--threads", "1"),
        ("benchmark", "kernels", "--quick", "--form", "skip", "--shape", "1x64", "--chain", "2"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])) if len(arguments) > 2 else arguments[0],
)
def test_every_document_follows_its_schema(arguments):
    document = json.loads(run(*arguments, "--json").stdout)
    name = document["command"].replace(" ", "-")
    strict(json.loads((FOLDER / f"{name}.json").read_text())).validate(document)


def test_the_page_about_reports_shows_real_ones():
    page = PAGE.read_text()
    document = json.loads(block("json", page).partition("\n")[2].rpartition("```")[0])
    strict(schemas()["verify.json"]).validate(document)
    assert block("fields", page) == fields()
    check_junit(ElementTree.fromstring(block("junit", page).partition("\n")[2].rpartition("```")[0].strip().encode()))
    assert all(
        part in page for part in (f"`{name.removesuffix('.json')}" for name in schemas() if name != "verify.json")
    )


def test_what_was_found_is_printed_where_a_report_cannot_be_written(models):
    done = run("verify", MODEL, models / "fused.onnx", "--html", "/dev/full", code=2)
    assert "equal: 1 of 1 outputs" in done.stdout
    assert "No space left on device" in done.stderr


def test_names_that_the_encoding_lacks_are_no_error(tmp_path, monkeypatch):
    model = onnx.load(MODEL)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "\N{LATIN SMALL LETTER E WITH ACUTE}"
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "\\xe9" in run_process("inspect", tmp_path / "model.onnx").stdout
    document = json.loads(run_process("inspect", tmp_path / "model.onnx", "--json").stdout)
    assert "\N{LATIN SMALL LETTER E WITH ACUTE}" in {record["output"] for record in document["fused"]}
