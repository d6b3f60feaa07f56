"""The one speller of figures: at every border, of every size, and nobody beside it."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvdeck.sessions import units
from kvdeck.sessions.model.records import Interval

ROOT = Path(__file__).parents[2]

SPELLERS: dict[str, tuple[Callable[[float], str], dict[str, float]]] = {
    "figure": (units.figure, {"": 1}),
    "number_text": (units.number_text, {"": 1}),
    "count_text": (units.count_text, {"": 1, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}),
    "size_text": (units.size_text, {" B": 1, **{f" {u}iB": 1024.0 ** (i + 1) for i, u in enumerate("KMGTPE")}}),
    "rate_text": (
        units.rate_text, {" B/s": 1, **{f" {u}B/s": 1000.0 ** (i + 1) for i, u in enumerate("kMGTPE")}}
    ),
    "time_text": (units.time_text, {" ns": 1e-3, " µs": 1, " ms": 1e3, " s": 1e6}),
    "percent_text": (units.percent_text, {" %": 0.01}),
    "ratio_text": (units.ratio_text, {"×": 1}),
}  # fmt: skip
THREE_DIGITS = ("size_text", "rate_text", "time_text")
BORDERS = sorted(
    {
        step * 10.0**power * (1 + shift)
        for power in range(-9, 19)
        for step in (1, 0.995, 0.9995, 0.99949, 0.99951, 0.99995, 9.995)
        for shift in (-1e-9, 0, 1e-9)
    }
    | {1024.0**power * step for power in range(7) for step in (1, 999 / 1024, 999.49 / 1024, 999.5 / 1024, 1023 / 1024)}
    | {float(1024**power + off) for power in range(1, 7) for off in (-1, 0, 1)}
)


def value_of(name: str, text: str) -> float:
    """What a text says, in the speller's own unit."""
    number = re.fullmatch(r"([<>]?)(-?[\d,]+(?:\.\d+)?)(.*)", text)
    assert number is not None, text
    factor = SPELLERS[name][1][number[3]]
    # `<0.1 %` says that it is less, yet not nothing.
    return float(number[2].replace(",", "")) * factor * (0.5 if number[1] == "<" else 1)


@pytest.mark.parametrize("name", SPELLERS)
def test_texts_grow_with_the_value_and_stay_near_it(name: str) -> None:
    spell, last = SPELLERS[name][0], 0.0
    for value in BORDERS:
        text = spell(value)
        if (name == "time_text" and "min" in text) or " h " in text:
            break
        said = value_of(name, text)
        assert said >= last, (value, text)
        last = said
        if not text.startswith((">", "<")) and value > 1e-3:
            assert math.isclose(said, value, rel_tol=0.0051, abs_tol=0.0006), (value, text)


@given(st.sampled_from(sorted(SPELLERS)), st.floats(-1e19, 1e19) | st.sampled_from(BORDERS) | st.floats(-2000, 2000))
@example("figure", -0.0)
@example("percent_text", -0.0)
@example("rate_text", 999_999.9)
@example("size_text", 1023.99)
def test_no_exponent_no_carry_no_negative_zero(name: str, value: float) -> None:
    text = SPELLERS[name][0](value)
    assert "e+" not in text
    assert "e-" not in text
    assert not re.match(r"-[0.]+(?![\d.])", text), text
    number = re.match(r"[<>]?-?([\d,]*\.?\d*)", text)
    assert number is not None
    if name in THREE_DIGITS and " B" not in text.removesuffix("/s"):
        digits = number[1].replace(",", "").replace(".", "").lstrip("0")
        assert len(digits) <= 3 or "min" in text or " h " in text or text.startswith((">", "<")), text
    whole = number[1].partition(".")[0]
    assert re.fullmatch(r"\d{1,3}(,\d{3})*", whole), text
    if name in ("rate_text", "count_text") and text[-1] in "kMGTPE":
        assert float(whole.replace(",", "")) < 1000
    if re.search(r" [KMGTPE]iB$| [kMGTPE]B/s$| [nµm]s$", text) and not text.startswith((">", "<")):
        assert float(whole.replace(",", "")) < 1000, text


@given(st.floats(1, 1e13), st.sampled_from([units.time_text, units.rate_text, units.size_text, units.count_text]))
def test_a_column_of_nine_holds_any(value: float, spell: Callable[[float], str]) -> None:
    assert len(spell(value)) <= (9 if spell is not units.time_text or value < 5e7 else 15)


@given(st.floats(0, 1e10))
def test_time_goes_on_where_seconds_become_minutes(us: float) -> None:
    text = units.time_text(us)
    assert not re.match(r"[\d,]{4,}", text)
    assert "60 s" not in text


@pytest.mark.parametrize("spell", [*(spell for spell, _ in SPELLERS.values()), units.duration_text, units.done_text])
def test_what_is_unknown_is_a_dash(spell: Callable[[float | None], str]) -> None:
    assert spell(None) == units.UNKNOWN
    assert spell(math.nan) == units.UNKNOWN
    assert "∞" in spell(math.inf)
    assert "∞" in spell(10**400)


@pytest.mark.parametrize("unit", ["B", "bytes", "B/s", "bytes/s", "s", "ratio", "%", "", "tokens"])
def test_an_unknown_quantity_is_a_dash_in_every_unit(unit: str) -> None:
    assert units.quantity_text(None, unit) == units.UNKNOWN


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (units.size_text(2_097_152), "2 MiB"),
        (units.quantity_text(2_097_152.0, "bytes"), "2 MiB"),
        (units.exact_size_text(2_097_152), "2,097,152 B = 2 MiB"),
        (units.exact_size_text(1_124_352), "1,124,352 B ≈ 1.07 MiB"),
        (units.exact_size_text(576), "576 B"),
        (units.rate_text(1e3), "1.00 kB/s"),
        (units.rate_text(999_999), "1.00 MB/s"),
        (units.rate_text(0.5), "0.5 B/s"),
        (units.rate_interval_text(999.6e6, 990e6, 1.2e9, "B/s"), "1.00 (0.990–1.20) GB/s"),
        (units.rate_interval_text(12.34, 11, 13.5, "blocks/s"), "12.3 (11.0–13.5) blocks/s"),
        (units.percent_text(1.0), "100 %"),
        (units.percent_text(0.99951), "100 %"),
        (units.percent_text(0.0004), "<0.1 %"),
        (units.percent_text(12.3456), "1,235 %"),
        (units.done_text(0.999), "99 %"),
        (units.change_text(-0.01), "0 %"),
        (units.change_text(4.25), "+4.2 %"),
        (units.change_text(None), "new"),
        (units.count_text(999_999.6), "1.00M"),
        (units.count_text(36_864), "36,864"),
        (units.count_text(0.25), "0.25"),
        (units.ratio_text(1.31, 1.28, 1.35), "1.31× (1.28–1.35)"),
        (units.ratio_text(0.0123), "0.0123×"),
        (units.range_text(None, 1.2), "–"),
        (units.interval_text(Interval(10.4, 10.2, 10.6)), "10.4 (10.2–10.6)"),
        (units.clock_text(3723), "1:02:03"),
        (units.clock_text(None), "–:––"),
        (units.plain_text(1e21), "1000000000000000000000"),
        (units.plain_text(None), ""),
        (units.plain_text(12.5, 2), "12.50"),
        (units.plain_text(-0.0001, 2), "0.00"),
        (units.many(1, "source"), "1 source"),
        (units.many(1024, "token"), "1,024 tokens"),
    ],
)
def test_each_kind_of_figure(made: str, wanted: str) -> None:
    assert made == wanted


NUMERIC_SPEC = re.compile(r"[,_]|\.\d*|[eEfFgGn%d]$|^[<>=^+ -]*0\d")
PERCENT_FORMAT = re.compile(r"%[-+ #0]*[\d*]*(\.\d+)?[diufFeEgG]")
UNIT = re.compile(
    r" ?(?:B|bytes|[KMGTP]i?B|kB|%|µs|ms|ns|s|min|h|Hz|×|(?:block|request|transfer|token|layer|descriptor|moment|sample"
    r"|session|step|row|shape|operation|pair|file|GPU|client|point|region|result|event)s?)(?![\w-])(?!\()"
)
ALLOWED = {
    **dict.fromkeys(
        [
            "engine/daemon/runtime.py: os.major(status.st_dev):02x",
            "engine/daemon/runtime.py: os.minor(status.st_dev):02x",
        ],
        "a device's number, as /proc/locks writes it",
    ),
    **dict.fromkeys(
        [
            f"sessions/host/escapes.py: {text}"
            for text in ("code - 56320:02x", "code:02x", "code:04x", "code:08x", "unit:04x")
        ],
        "a character's number in an escape",
    ),
    **dict.fromkeys(
        [
            "sessions/host/documents.py: MAX_VALUES:,",
            "sessions/host/documents.py: len(text):,",
            "sessions/host/documents.py: limit >> 20",
            "sessions/host/files.py: limit",
            "sessions/host/files.py: limit >> 20",
        ],
        "a limit in whole MiB, in modules that the speller itself stands on",
    ),
    "app/cli/plan.py: config.isl": "KVBench's own lines, compared byte for byte with what it prints",
    "app/cli/plan.py: round(value, 2)": "KVBench's own lines, compared byte for byte with what it prints",
    "sessions/store/telemetry/segments.py: number:06d": "a file's name, of one width so that names sort",
    "sessions/store/telemetry/segments.py: int(begin * 1000):013d": "a file's name, of one width so that names sort",
    "engine/daemon/runtime.py: mode:04o": "a file's mode, in octal as chmod takes it",
    "engine/planning/precision.py: self.bits // 8": "the bytes of one element, at most 8",
    "engine/planning/precision.py: self.scale_bytes": "the bytes of one scale, at most 8",
    "engine/daemon/server.py: hz": "what a client sent, whatever it is, by its repr",
    "engine/daemon/samplers.py: hz": "what a client sent, whatever it is, by its repr",
    "engine/daemon/samplers.py: block_bytes": "what a client sent, whatever it is, by its repr",
    "engine/daemon/runtime.py: length": "the bytes of a path beside the kernel's limit of 107: a few digits",
    "engine/planning/models.py: kind.name": "a name",
    "engine/telemetry/block_size.py: config.page_size": "a setting, as its program takes it",
    "engine/telemetry/checks.py: of_all": "a text that was spelled above",
    "engine/telemetry/metrics/vllm.py: what": "a part of a metric's name",
    "engine/telemetry/sources/devices.py: way": "a key of a file of the kernel",
    "sessions/text/sweep_report.py: per_block": "a text that was spelled above",
    "engine/io/cuda.py: size": "an error of the program itself, for who fixes it",
    "engine/io/endpoints.py: blocks": "an error of the program itself, for who fixes it",
    "engine/io/endpoints.py: files": "an error of the program itself, for who fixes it",
    "app/tui/modes/base.py: MIN_WIDTH": "columns of a terminal",
    "app/tui/modes/base.py: self.app.size.width": "columns of a terminal",
    "app/tui/modes/plan/figures.py: count": "stages of one size, at most as many as the layers",
    "app/cli/plan.py: model.name:<.": "a width that names are filled up to",
    "app/text/peer_doctor.py: label:<.": "a width that labels are filled up to",
    **dict.fromkeys(
        ["engine/planning/kvbench.py: data['model']:.40", "engine/planning/nixlbench_config.py: value:.60"],
        "a text cut to a length",
    ),
    **dict.fromkeys(
        ["engine/planning/huggingface.py: layers", "engine/planning/layer_words.py: layers"],
        "a model's layers, beside numbers of single layers",
    ),
    **dict.fromkeys(
        ["engine/traffic/deployment.py: side.pp", "engine/traffic/deployment.py: side.tp"],
        "sizes of a division, as they were given",
    ),
    **dict.fromkeys(
        [
            f"sessions/text/traffic_report.py: {text}"
            for text in (
                "found.high:..f",
                "found.low:..f",
                "found.median:..f",
                "result.prepared_s:.3f",
                "total",
                "value:..f",
            )
        ],
        "upstream's tables, with its decimals",
    ),
    "engine/traffic/rank_host.py: zlib.crc32(self._received(message).data):08x": "a checksum, in hexadecimal",
    "engine/traffic/upstream_generator.py: round(size, 2):g": "upstream's files, byte for byte",
    **dict.fromkeys(
        ["engine/transfer/worker.py: max(1.0, timeout / 6):g", "engine/transfer/worker.py: timeout:g"],
        "a variable's value, as UCX reads it",
    ),
}
"""Where a number is formatted outside of units.py, and why: what programs read, or no number."""


def formatted(path: Path) -> list[str]:
    """What a file formats as a number by itself: format specs, `%`, `format()`, rounding into a text, raw counts."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            if isinstance(node.left.value, str) and PERCENT_FORMAT.search(node.left.value):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "format":
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            text = node.func.value
            if isinstance(text, ast.Constant) and re.search(r"\{[^}]*:[^}]*[\d,.][^}]*\}", str(text.value)):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.JoinedStr):
            found += _in_text(node)
    return [f"{path.relative_to(ROOT)}: {text}" for text in found]


def _in_text(node: ast.JoinedStr) -> list[str]:
    found = []
    for value, after in zip(node.values, [*node.values[1:], None], strict=True):
        if not isinstance(value, ast.FormattedValue):
            continue
        text = ast.unparse(value.value)
        spec = value.format_spec
        if isinstance(spec, ast.JoinedStr):
            written = "".join(str(part.value) if isinstance(part, ast.Constant) else "." for part in spec.values)
            if NUMERIC_SPEC.search(written) or written.endswith("o"):
                found.append(f"{text}:{written}")
        elif isinstance(value.value, ast.Call) and not _is_number(value.value):
            continue
        elif isinstance(after, ast.Constant) and UNIT.match(str(after.value)):
            found.append(text)
    return found


def _is_number(call: ast.Call) -> bool:
    """Whether a call gives a number and no text."""
    return isinstance(call.func, ast.Name) and call.func.id in (
        "len",
        "sum",
        "round",
        "int",
        "float",
        "max",
        "min",
        "abs",
    )


def test_no_number_is_spelled_anywhere_else() -> None:
    files = [file for room in ("app", "engine", "sessions") for file in sorted((ROOT / room).rglob("*.py"))]
    assert len(files) > 200
    found = {text for file in files if file != ROOT / "sessions" / "units.py" for text in formatted(file)}
    assert sorted(found - set(ALLOWED)) == [], "let sessions/units.py spell it, or say here why not"
    assert sorted(set(ALLOWED) - found) == [], "no longer there: take it out of the list"


@pytest.mark.parametrize(
    "text",
    ['f"{x:.3g}"', 'f"{x:,}"', 'f"{x:>8.1f}"', 'f"{x:.{n}f}"', '"%.1f" % x', 'format(x, ",")', '"{:.2f}".format(x)',
     'f"{x} B"', 'f"{round(x, 2)} s"', 'f"{a.b[1]} blocks"', 'f"{x:02d}"', 'f"{x * 100:.0f} %"'],
)  # fmt: skip
def test_the_look_for_spellers_finds_them(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formatted.__globals__, "ROOT", tmp_path)
    file = tmp_path / "one.py"
    file.write_text(text)
    assert formatted(file)
