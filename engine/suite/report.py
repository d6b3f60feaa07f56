"""A suite's results as Markdown and as JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from kvdeck.engine.suite.judgement import both_units
from kvdeck.engine.suite.runner import FAILED, RateResult, SuiteStepResult
from kvdeck.engine.suite.spec import Suite
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.text.markdown import inline, table
from kvdeck.sessions.units import UNKNOWN, many, percent_text, plain_text, seconds_text, size_text

TITLES = ("step", "figure", "message", "expected", "measured", "bound", "of bound", "status")


def summary(results: Sequence[SuiteStepResult]) -> str:
    """Return how many steps have which status: `4 PASS · 1 SKIP`."""
    order = ("PASS", "DEGRADED", "XFAIL", "FAIL", "SUSPECT", "SKIP")
    counts = {status: sum(result.status == status for result in results) for status in order}
    return " · ".join(f"{count} {status}" for status, count in counts.items() if count) or "no step has run"


def figure_rows(results: Sequence[SuiteStepResult]) -> list[tuple[str, ...]]:
    """Return a row per figure, or one for a step without figures, in the columns of `TITLES`."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        rows += (
            (result.id, rate.name, size_text(rate.message_bytes), _rate(rate.expected_bytes_per_s), _measured(rate),
             _rate(rate.bound_bytes_per_s), percent_text(rate.efficiency), _status(result, rate))
            for rate in result.rates
        )  # fmt: skip
        if not result.rates:
            rows.append((result.id, result.kind, *[UNKNOWN] * 5, result.status))
    return rows


def reasons(results: Sequence[SuiteStepResult]) -> list[str]:
    """Return why steps failed, were skipped or are suspect, a line each."""
    lines = [f"{result.id}: {result.reason}" for result in results if result.reason]
    for result in results:
        for rate in result.rates:
            if rate.status != "SKIP":
                lines += (f"{result.id}, {rate.name}: {reason}" for reason in rate.reasons)
    if results and not any(rate.expected_bytes_per_s for result in results for rate in result.rates):
        lines.append("No rate was expected: PASS says that a step ran, and not that it was fast.")
    return lines


def markdown_report(suite: Suite, results: Sequence[SuiteStepResult], host: str) -> str:
    """Return the whole report as Markdown."""
    lines = [
        f"# Suite {suite.name} on {inline(host)}", "", summary(results) + ".", "",
        *table(TITLES, figure_rows(results)), "",
        *(f"- {inline(reason)}" for reason in reasons(results)), "",
        "## Commands", "",
        *(f"- {result.id}: {inline(command)}" for result in results for command in result.commands),
        "", "GB/s = 1e9 bytes/s, Gb/s = 1e9 bits/s; one direction.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def junit_report(suite: Suite, results: Sequence[SuiteStepResult]) -> bytes:
    """Return the results as JUnit XML; FAIL and SUSPECT are failures, SKIP and XFAIL are skipped."""
    root = ElementTree.Element("testsuite", name=suite.name, tests=str(len(results)))
    root.set("failures", str(sum(result.status in FAILED for result in results)))
    root.set("skipped", str(sum(result.status in ("SKIP", "XFAIL") for result in results)))
    for result in results:
        case = ElementTree.SubElement(
            root,
            "testcase",
            classname=f"{suite.name}.{result.kind}",
            name=result.id,
            time=plain_text(result.seconds, 3),
        )
        why = "; ".join(map(visible, reasons([result])))
        if result.status in FAILED:
            ElementTree.SubElement(case, "failure", type=result.status, message=why)
        elif result.status in ("SKIP", "XFAIL"):
            ElementTree.SubElement(case, "skipped", message=why)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def step_line(result: SuiteStepResult) -> str:
    """Return one line for a step that has ended."""
    figures = ", ".join(f"{rate.name} {both_units(rate.bytes_per_s)}" for rate in result.rates[:2])
    more = f", {many(len(result.rates) - 2, 'figure')} more" if len(result.rates) > 2 else ""
    return f"{result.status:8} {result.id}  {seconds_text(result.seconds)}  {result.reason or figures + more}".rstrip()


def _rate(bytes_per_s: float | None) -> str:
    return UNKNOWN if bytes_per_s is None else both_units(bytes_per_s)


def _measured(rate: RateResult) -> str:
    text = both_units(rate.bytes_per_s)
    if rate.low is None or rate.high is None:
        return text
    return f"{text}, 95 % {both_units(rate.low)} to {both_units(rate.high)}"


def _status(result: SuiteStepResult, rate: RateResult) -> str:
    # A figure of which nothing is expected was still measured: the step's own status would hide nothing better.
    return "measured" if rate.status == "SKIP" else result.status if result.status == "XFAIL" else rate.status
