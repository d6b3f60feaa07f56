"""`kvdeck suite`: run benchmarks in order, and judge figures against what is expected and what physics allows."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import to_builtins

from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.app.cli.standard_output import echo_own
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.units import count_text, many, seconds_text

if TYPE_CHECKING:
    from kvdeck.engine.suite.judgement import Judgement
    from kvdeck.engine.suite.outputs import OutputRate
    from kvdeck.engine.suite.runner import SuiteStepResult

_MOST_BYTES = 8 << 20
_BAD = ("FAIL", "SUSPECT")


@click.group()
def suite() -> None:
    """Run benchmarks in order, and judge each figure: PASS, DEGRADED, FAIL, or SUSPECT if it breaks physics."""


@suite.command(name="list")
def list_suites() -> int:
    """List the suites that kvdeck brings."""
    from kvdeck.engine.suite.spec import load_suite, shipped_suites

    for name in shipped_suites():
        found = load_suite(name)
        click.echo(f"{name}  {many(len(found.steps), 'step')}  {' '.join(found.description.split())}")
    return 0


@suite.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Value of a variable; repeatable.")
def plan(name: str, variables: tuple[str, ...]) -> int:
    """Print every command of a suite, and what is missing for it. Nothing is started or written."""
    from kvdeck.engine.suite.programs import missing_program
    from kvdeck.engine.suite.runner import commands_of
    from kvdeck.engine.suite.spec import load_suite

    found = load_suite(name, _variables(variables))
    for step in found.steps:
        commands = commands_of(step, Path("FOLDER") / "steps" / step.id)
        repeated = f" · {count_text(step.repeat)} times" if step.repeat > 1 else ""
        echo_own(visible(f"{step.id} · {step.kind}{repeated} · at most {seconds_text(step.timeout)}"))
        prefix = "".join(f"{key}={shlex.quote(value)} " for key, value in step.env.items())
        for argv in (commands.server, commands.client):
            if argv:
                echo_own(visible(f"    {prefix}{shlex.join(argv)}"))
        if step.expect.rate or step.expect.bound:
            parts = (
                f"expected: {step.expect.rate}" if step.expect.rate else "",
                f"bound: {step.expect.bound}" if step.expect.bound else "",
                f"source: {step.expect.source}" if step.expect.source else "",
            )
            echo_own(visible("    " + " · ".join(filter(None, parts))))
        if missing := missing_program(step):
            echo_own(visible(f"    skipped here: {missing}"))
    return 0


@suite.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--output", metavar="FOLDER", help="Folder of the results. Default: in kvdeck's home, named by the time.")
@click.option("--resume", is_flag=True, help="Keep the results in --output, and run the other steps.")
@click.option("--step", "only", multiple=True, metavar="ID", help="Run this step; repeatable. Default: all.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Value of a variable; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def run(
    name: str, output: str | None, resume: bool, only: tuple[str, ...], variables: tuple[str, ...], as_json: bool
) -> int:
    """Run the steps of a suite one after the other, in the foreground, and judge them.

    The folder of the results holds report.md, results.json, junit.xml, and each step's output. Exits with 1 if a step
    is FAIL or SUSPECT.
    """
    from kvdeck.engine.children.program import noted_signals
    from kvdeck.engine.suite import report
    from kvdeck.engine.suite.runner import FAILED, kept_results, run_suite
    from kvdeck.engine.suite.spec import load_suite
    from kvdeck.sessions.host.files import replace_file

    found = load_suite(name, _variables(variables))
    if unknown := next((each for each in only if each not in {step.id for step in found.steps}), None):
        raise UsageError(f"{name} has no step {unknown!r}", f"see kvdeck suite plan {name}")
    folder = _folder(found.name, output, resume=resume)
    kept = kept_results(folder) if resume else {}
    done = {name: result for name, result in kept.items() if result.status != "SKIP"}

    def tell(step: str, result: SuiteStepResult | None) -> None:
        if result is not None:
            echo_own(visible(report.step_line(result)), err=True)
        else:
            echo_own(f"running  {step}", err=True)

    with noted_signals() as signals:
        results = run_suite(found, folder, signals, done, tell, only)
        replace_file(folder / "report.md", report.markdown_report(found, results, platform.node()).encode(), mode=0o644)
        replace_file(folder / "junit.xml", report.junit_report(found, results), mode=0o644)
    if as_json:
        print_json({"suite": found.name, "folder": str(folder), "results": [to_builtins(each) for each in results]})
    else:
        _print_results(results, folder)
    if signals.came:
        echo_own("kvdeck: cancelled; `--resume` runs the other steps", err=True)
        return 128 + signals.came[0]
    return int(any(result.status in FAILED for result in results))


@suite.command(name="report")
@click.argument("folder", metavar="FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def show_report(folder: str, as_json: bool) -> int:
    """Print the results in a folder of `kvdeck suite run`."""
    from kvdeck.engine.suite.runner import FAILED, kept_results

    results = tuple(kept_results(Path(folder)).values())
    if not results:
        raise UsageError(f"{folder} holds no results", "give the folder that `kvdeck suite run` printed")
    if as_json:
        print_json({"folder": folder, "results": [to_builtins(each) for each in results]})
    else:
        _print_results(results, Path(folder))
    return int(any(result.status in FAILED for result in results))


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    if bad := next((each for each, (name, equals, _) in zip(given, pairs, strict=True) if not (name and equals)), None):
        raise UsageError(f"--var {bad} is no NAME=VALUE", "write it as --var size=2M")
    return {name: value for name, _, value in pairs}


def _folder(suite_name: str, output: str | None, *, resume: bool) -> Path:
    """Return the folder of the results, made if needed.

    Raises:
        UsageError: It holds results that are not resumed, or can't be made.
    """
    from kvdeck.engine.client.client import home
    from kvdeck.sessions.units import local_time

    if output is None and resume:
        raise UsageError("--resume needs the folder of the results", "give --output FOLDER")
    now = local_time(time.time(), "%Y%m%d-%H%M%S")
    folder = Path(output) if output is not None else home() / "suites" / f"{now}-{suite_name}"
    if not resume and (folder / "results.json").exists():
        raise UsageError(f"{folder} holds results already", "give --resume, or another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"can't make {folder}: {error.strerror or error}", "give another --output") from error
    return folder


def _print_results(results: Sequence[SuiteStepResult], folder: Path) -> None:
    from kvdeck.engine.suite import report
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import TextColumn, fit, render

    rows = report.figure_rows(results)
    ranks = (0, 0, 4, 2, 0, 3, 1, 0)
    columns = [
        TextColumn("", title, tuple(row[at] for row in rows), left=at < 2 or at == 7, rank=ranks[at])
        for at, title in enumerate(report.TITLES)
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    print_lines(Line(text) for text in (*report.reasons(results), f"{report.summary(results)} · {folder}"))


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
        TextColumn("", "log", tuple(log for log, _, _ in judged), left=True, rank=3),
        TextColumn("", "test", tuple(rate.name or rate.program for _, rate, _ in judged), left=True),
        TextColumn("", "message", tuple(size_text(rate.message_bytes) for _, rate, _ in judged)),
        TextColumn("", "measured", tuple(both_units(rate.bytes_per_s) for _, rate, _ in judged)),
        TextColumn("", "of expected", tuple(percent_text(row.score) for _, _, row in judged), rank=2),
        TextColumn("", "of bound", tuple(percent_text(row.efficiency) for _, _, row in judged), rank=2),
        TextColumn("", "status", tuple(row.status for _, _, row in judged), left=True),
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    for log, rate, judgement in judged:
        for reason in () if judgement.status == "SKIP" else judgement.reasons:
            print_lines([Line(f"{rate.name or Path(log).name}: {reason}")])
