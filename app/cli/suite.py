"""`kvdeck suite`: judge what benchmark programs printed, against what is expected and what physics allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.sessions.errors import UsageError

if TYPE_CHECKING:
    from kvdeck.engine.suite.judgement import Judgement
    from kvdeck.engine.suite.outputs import OutputRate

_MOST_BYTES = 8 << 20
_BAD = ("FAIL", "SUSPECT")


@click.group()
def suite() -> None:
    """Judge benchmark results: PASS, DEGRADED, FAIL, or SUSPECT where a figure breaks physics."""


@suite.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bounds(as_json: bool) -> int:
    """List physical bounds: of known links, and of this host's network interfaces."""
    from kvdeck.engine.suite.bounds import host_bounds, known_bounds
    from kvdeck.engine.suite.judgement import both_units
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import TextColumn, fit, render

    rows = (*known_bounds().values(), *host_bounds())
    if as_json:
        print_json([
            {"name": row.name, "bytes_per_s": row.bytes_per_s, "what": row.what, "source": row.source} for row in rows
        ])  # fmt: skip
        return 0
    columns = [
        TextColumn("", "name", tuple(row.name for row in rows), left=True),
        TextColumn("", "one direction", tuple(both_units(row.bytes_per_s) for row in rows)),
        TextColumn("", "what", tuple(row.what for row in rows), left=True, rank=1),
        TextColumn("", "source", tuple(row.source for row in rows), left=True, rank=2),
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    return 0


@suite.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "--bound", metavar="RATE|NAME", help="What physics allows: 400Gb/s, or a name from `kvdeck suite bounds`."
)
@click.option("--expect", metavar="RATE", help="The rate to reach, such as 46.48GB/s.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    help="How far below --expect a result passes, as a fraction. Default: 0.1.",
)
@click.option("--size", metavar="SIZE", help="Judge results of this message size only, such as 64M.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    logs: tuple[str, ...], bound: str | None, expect: str | None, tolerance: float, size: str | None, as_json: bool
) -> int:
    """Judge what ucx_perftest, fi_pingpong or nccl-tests printed.

    Each LOG is a file with what the client printed. Rates are of one direction; of ucx_perftest the overall bandwidth
    counts, since its percentile is the time to post. A rate above the bound is SUSPECT, with the causes that fit. Exits
    with 1 if a result fails or is suspect.
    """
    from kvdeck.engine.quantities import parse_size
    from kvdeck.engine.suite.bounds import find_bound, parse_rate
    from kvdeck.engine.suite.judgement import judge
    from kvdeck.engine.suite.outputs import read_rates

    limit = None if bound is None else find_bound(bound)
    expected = None if expect is None else parse_rate(expect)
    wanted = None if size is None else parse_size(size)
    judged: list[tuple[str, OutputRate, Judgement]] = []
    for log in logs:
        rates = [rate for rate in read_rates(_text(log), log) if wanted in (None, rate.message_bytes)]
        if not rates:
            raise UsageError(f"{log} holds no result of {size}", "leave --size out to see all")
        judged += (
            (log, rate, judge(rate.bytes_per_s, expected=expected, tolerance=tolerance, bound=limit,
                              evidence=rate.evidence))
            for rate in rates
        )  # fmt: skip
    if as_json:
        print_json([_json(*row) for row in judged])
    else:
        _print(judged)
    return int(any(judgement.status in _BAD for _, _, judgement in judged))


def _text(log: str) -> str:
    from kvdeck.sessions.host.files import read_regular

    try:
        return read_regular(Path(log), _MOST_BYTES).decode(errors="replace")
    except OSError as error:
        raise UsageError(f"can't read {log}: {error.strerror or error}", "give a file") from error


def _json(log: str, rate: OutputRate, judgement: Judgement) -> dict[str, Any]:
    return {
        "log": log, "program": rate.program, "test": rate.name or None, "message_bytes": rate.message_bytes,
        "bytes_per_s": rate.bytes_per_s, "status": judgement.status, "score": judgement.score,
        "efficiency": judgement.efficiency, "reasons": list(judgement.reasons),
    }  # fmt: skip


def _print(judged: list[tuple[str, OutputRate, Judgement]]) -> None:
    from kvdeck.engine.suite.judgement import both_units
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import TextColumn, fit, render
    from kvdeck.sessions.units import percent_text, size_text

    columns = [
        TextColumn("", "log", tuple(log for log, _, _ in judged), left=True, rank=1),
        TextColumn("", "test", tuple(rate.name or rate.program for _, rate, _ in judged), left=True),
        TextColumn("", "message", tuple(size_text(rate.message_bytes) for _, rate, _ in judged)),
        TextColumn("", "measured", tuple(both_units(rate.bytes_per_s) for _, rate, _ in judged)),
        TextColumn("", "of expected", tuple(percent_text(row.score) for _, _, row in judged), rank=2),
        TextColumn("", "of bound", tuple(percent_text(row.efficiency) for _, _, row in judged), rank=2),
        TextColumn("", "status", tuple(row.status for _, _, row in judged), left=True),
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    for log, rate, judgement in judged:
        for reason in judgement.reasons:
            print_lines([Line(f"{rate.name or Path(log).name}: {reason}")])
