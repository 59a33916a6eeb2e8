"""Models with norms in the bodies of loops, in ONNX's text form; by name, with what is looked at in them."""

from __future__ import annotations

import onnx

#: Types of the text form -> number of the type.
TYPES = {"float": 1, "float16": 10, "bfloat16": 16}


def norm(x, y, scale="w", dtype="float"):
    """Nodes that spell a norm of ``x``, with roundings to 16 bits as exporters place them."""
    wide, narrow = (x, f"{y}_n") if dtype == "float" else (f"{y}_x", f"{y}_c")
    casts = (
        ("", "")
        if dtype == "float"
        else (f"{wide} = Cast<to = 1>({x})", f"{narrow} = Cast<to = {TYPES[dtype]}>({y}_n)")
    )
    return f"""{casts[0]} {y}_q = Mul({wide}, {wide}) {y}_m = ReduceMean<axes = [-1]>({y}_q)
        {y}_e = Constant<value_float = 1e-5>() {y}_a = Add({y}_m, {y}_e) {y}_r = Sqrt({y}_a) {y}_n = Div({wide}, {y}_r)
        {casts[1]} {y} = Mul({narrow}, {scale})"""


def loop(nodes, *, out="y", init="x", trips="three", mark="", dtype="float", shape="3, 8"):
    """A Loop that carries ``v`` to ``u``; ``mark`` makes its names others."""
    i, c, v, u = (f"{name}{mark}" for name in "icvu")
    return f"""{out} = Loop({trips}, yes, {init}) <body = b{mark} (int64 {i}, bool {c}, {dtype}[{shape}] {v})
        => (bool {c}_on, {dtype}[{shape}] {u}) {{ {c}_on = Identity({c}) {nodes} }}>"""


def scan(nodes, *, out="y", given="x", takes="float[8] v", gives="float[8] u", scanned=1, attributes=""):
    """A Scan over one value."""
    return f"""{out} = Scan({given}) <num_scan_inputs = {scanned}{attributes}, body = b ({takes}) => ({gives})
        {{ {nodes} }}>"""


def branch(nodes, *, condition, out, value, otherwise, dtype="float", shape="3, 8"):
    """An If that gives ``value`` of ``nodes``, else the tanh of ``otherwise``."""
    return f"""{out} = If({condition}) <then_branch = t () => ({dtype}[{shape}] {value}) {{ {nodes} }},
        else_branch = e () => ({dtype}[{shape}] {value}_not) {{ {value}_not = Tanh({otherwise}) }}>"""


def model(nodes, *, takes="float[3, 8] x", gives="float[3, 8] y", opset=17):
    """A checked model of ``nodes``; they may read a scale ``w`` and some numbers."""
    text = f"""<ir_version: 9, opset_import: ["" : {opset}]> m ({takes}) => ({gives})
        <float[8] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, float[3] w3 = {{1, 3, 2}}, float half = {{0.5}}, bool yes = {{1}},
        int64 none = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64 three = {{3}}, int64 many = {{1000}}>
        {{ {nodes} }}"""
    made = onnx.parser.parse_model(text)
    onnx.checker.check_model(made, full_check=True)
    return made


PLAIN = norm("v", "k") + " u = Add(k, half)"
_INNER = norm("vv", "k") + " uv = Add(k, half)"
_GROWS = "h = Tanh(v) r = Concat<axis = 0>(v, h) " + norm("r", "k") + " u = Mul(k, half)"
_ROWS = norm("v", "k", "w3") + " u = Add(k, half)"
_INSIDE = loop(_INNER, out="u", init="v", trips="two", mark="v")
_TURNED = """, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [-1],
    scan_output_directions = [1]"""

#: Nodes, and (value, iterations) of every norm that is looked at.
CASES = {
    "in a loop": (model(loop(PLAIN)), [("k", (0,)), ("k", (2,))]),
    "a loop's own result": (model(loop(norm("v", "u"))), [("u", (0,)), ("u", (2,))]),
    "one iteration": (model(loop(PLAIN, trips="one")), [("k", (0,))]),
    "a thousand iterations": (model(loop(PLAIN, trips="many")), [("k", (0,)), ("k", (999,))]),
    "with a residual sum": (
        model(loop("s = Add(v, x) " + norm("s", "k") + " u = Add(k, s)")),
        [("k", (0,)), ("k", (2,))],
    ),
    "of another length each time, as a cache": (
        model(loop(_GROWS, shape="N, 8"), gives="float[M, 8] y"),
        [("k", (0,)), ("k", (2,))],
    ),
    "in a branch in a loop": (
        model(loop("is = Equal(i, one) " + branch(norm("v", "k"), condition="is", out="u", value="k", otherwise="v"))),
        [("k", (1,))],
    ),
    "in a loop in a branch": (
        model(
            "is = Cast<to = 9>(one) " + branch(loop(PLAIN, out="t"), condition="is", out="y", value="t", otherwise="x")
        ),
        [("k", (0,)), ("k", (2,))],
    ),
    "in a loop in a loop": (model(loop(_INSIDE)), [("k", (0, 0)), ("k", (0, 1)), ("k", (2, 0)), ("k", (2, 1))]),
    "with a scale from outside": (
        model("g = Add(w, half) " + loop(norm("v", "k", "g") + " u = Add(k, half)")),
        [("k", (0,)), ("k", (2,))],
    ),
    "two loops with the same names": (
        model(loop(PLAIN, out="z") + loop(norm("v", "k") + " u = Sub(half, k)", init="z")),
        [("k", (0,)), ("k", (0,)), ("k", (2,)), ("k", (2,))],
    ),
    "in a loop and of what it stacks": (
        model(
            """last, z = Loop(three, yes, x) <body = b (int64 i, bool c, float[3, 8] v)
            => (bool d, float[3, 8] u, float[3, 8] s) { d = Identity(c) """
            + f"{PLAIN} s = Tanh(u) }}> {norm('z', 'y')}",
            gives="float[3, 3, 8] y",
        ),
        [("k", (0,)), ("k", (2,)), ("y", ())],
    ),
    "in a scan": (model(scan(PLAIN)), [("k", (0,)), ("k", (2,))]),
    "in a scan and of what it stacks": (
        model(scan(PLAIN, out="z") + norm("z", "y")),
        [("k", (0,)), ("k", (2,)), ("y", ())],
    ),
    "in a scan of columns, backwards": (
        model(scan(_ROWS, takes="float[3] v", gives="float[3] u", attributes=_TURNED)),
        [("k", (0,)), ("k", (7,))],
    ),
    "of a state, with scales that are scanned": (
        model(
            scan(
                norm("v", "k", "one_w") + " u = Add(k, half)",
                given="x, W",
                takes="float[3, 8] v, float[8] one_w",
                gives="float[3, 8] u",
            ),
            takes="float[3, 8] x, float[5, 8] W",
        ),
        [("k", (0,)), ("k", (4,))],
    ),
    "in a branch in a scan": (
        model(
            scan(
                "a = ReduceMax<keepdims = 0>(v) is = Greater(a, half) "
                + branch(norm("v", "k"), condition="is", out="u", value="k", otherwise="v", shape="8")
            )
        ),
        [("k", (1,)), ("k", (2,))],
    ),
    "in a scan in a loop": (
        model(loop(scan(_INNER, out="u", given="v", takes="float[8] vv", gives="float[8] uv"))),
        [("k", (0, 0)), ("k", (0, 2)), ("k", (2, 0)), ("k", (2, 2))],
    ),
}
