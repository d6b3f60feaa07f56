"""The verdict of a run: one sentence, and a row for each path with its ratio, interval and rates on one scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.lines import Lines, Row, cell
from kvdeck.sessions.model.references import against_text
from kvdeck.sessions.units import (
    figure,
    layout_name,
    many,
    number_text,
    range_text,
    ratio_text,
    short_layout_name,
    size_text,
)

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Comparison, Session, StepResult
    from kvdeck.sessions.model.run_state import RunState, StepState

LEAST_ROUNDS = 6
"""Rounds below which a ratio that isn't final is only said to be measured."""
LEAST_SCALE = 2.0
FASTER = 14
"""Width of the column that names the faster layout."""
_TICKS = (1 / 64, 1 / 16, 1 / 8, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0, 16.0, 64.0)
_TICK_TEXTS = {1 / 64: "1/64", 1 / 16: "1/16", 1 / 8: "⅛", 0.25: "¼", 0.5: "½"}


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """Two layouts on one path: the time of the candidate over that of the baseline, for the same bytes."""

    path: str
    block_bytes: int
    batch: int
    baseline: str
    candidate: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    """The final comparison's; empty while it is measured, and without one."""
    instead: str = ""
    """What stands in place of a verdict: `measuring`, or why there is none."""
    rates: tuple[float | None, float | None] = (None, None)
    """GB/s of baseline and candidate."""
    against: str = ""
    """Both rates against the reference of the run, such as `58 %, 33 % of memcpy`."""

    @property
    def final(self) -> bool:
        return bool(self.verdict)

    @property
    def winner(self) -> str:
        """The layout that is faster; empty if none is."""
        return {"slower": self.baseline, "faster": self.candidate}.get(self.verdict, "")

    @property
    def verdict_text(self) -> str:
        """Return the verdict in a word: the faster layout, `same`, or `can't tell`."""
        if self.winner:
            return short_layout_name(self.winner)
        return {"no difference": "same", "undecided": "can't tell"}.get(self.verdict, self.instead)


def rows_of_run(run: RunState) -> list[VerdictRow]:
    """Return a row for each pair of layouts that a run compares; what is not measured yet is None."""
    found = []
    trials = dict.fromkeys(step.plan.trial for step in run.steps)
    for trial in trials:
        baseline, *candidates = (step for step in run.steps if step.plan.trial == trial)
        found += [_row_of_steps(baseline, candidate, run.over) for candidate in candidates]
    return found


def _row_of_steps(baseline: StepState, candidate: StepState, over: bool) -> VerdictRow:
    compared, plan = candidate.compared, candidate.plan
    ratio: float | None
    low: float | None
    high: float | None
    if compared is not None:
        ratio, low, high = compared.ratio, compared.low, compared.high
    else:
        ratio, low, high = (candidate.counter(name) for name in ("ratio", "ratio_low", "ratio_high"))
    rounds = candidate.counter("round") or 0
    states = [step.state for step in (baseline, candidate)]
    ended = next((state for state in states if state in ("unavailable", "failed", "suspect", "cancelled")), "")
    instead = ended or ("not compared" if over else "measuring …" if "running" in states else "waits")
    if compared is None and rounds < LEAST_ROUNDS:
        low = high = None
    return VerdictRow(
        plan.path, plan.block_bytes, plan.batch, baseline.plan.layout, plan.layout, ratio, low, high,
        "" if compared is None else compared.verdict, instead, (baseline.gb_per_s, candidate.gb_per_s),
        _against(baseline.reference_ratio, candidate.reference_ratio, candidate.reference,
                 candidate.reference_is_limit),
    )  # fmt: skip


def rows_of_session(session: Session) -> list[VerdictRow]:
    """Return a row for each comparison of a stored run."""
    results = {(r.trial, r.layout): r for r in session.results}
    return [
        _row_of_comparison(item, results.get((item.trial, item.baseline)), results.get((item.trial, item.candidate)))
        for item in session.comparisons
    ]


def _row_of_comparison(item: Comparison, baseline: StepResult | None, candidate: StepResult | None) -> VerdictRow:
    rates = tuple(None if r is None or r.gb_per_s is None else r.gb_per_s.median for r in (baseline, candidate))
    against = ""
    if baseline is not None and candidate is not None:
        against = _against(baseline.reference_ratio, candidate.reference_ratio, candidate.reference or "",
                           candidate.reference_is_limit)  # fmt: skip
    return VerdictRow(
        item.path, item.block_bytes, item.batch, item.baseline, item.candidate, item.ratio, item.low, item.high,
        item.verdict, "", (rates[0], rates[1]), against,
    )  # fmt: skip


def _against(first: float | None, second: float | None, name: str, is_limit: bool | None) -> str:
    if first is None or second is None or not name:
        return ""
    one, other = (against_text(ratio, is_limit).strip() for ratio in (first, second))
    return f"{one}, {other} of {name}" if is_limit else f"{one}, {other} {name}"


def sentence(rows: Sequence[VerdictRow], width: int = 1000) -> str:
    """Return who wins, in one sentence; a shorter one if it is wider than `width`."""
    long = _sentence(rows, False)
    return long if len(long) <= width else _sentence(rows, True)


def _sentence(rows: Sequence[VerdictRow], short: bool) -> str:
    if not rows:
        return "One layout was measured: nothing is compared."
    known = [row for row in rows if row.final]
    what = "path" if len({row.path for row in rows}) == len(rows) else "comparison"
    if not known:
        doing = any(row.instead in ("measuring …", "waits") for row in rows)
        return "Measuring …" if doing else f"No verdict: {rows[0].instead}."
    wins: dict[str, list[VerdictRow]] = {}
    for row in known:
        if row.winner:
            wins.setdefault(row.winner, []).append(row)
    rest = [row for row in known if not row.winner]
    parts = [
        _wins(layout, found, len(rows), what, short) for layout, found in sorted(wins.items(), key=lambda i: -len(i[1]))
    ]
    for verdict, words in (("no difference", "no difference on"), ("undecided", "can't tell on")):
        if count := sum(row.verdict == verdict for row in rest):
            parts.append(f"{words} {'all ' if count == len(rows) > 1 else ''}{many(count, what)}")
    if missing := len(rows) - len(known):
        doing = any(row.instead in ("measuring …", "waits") for row in rows)
        parts.append(f"{missing} to come" if doing else f"{many(missing, what)} without a verdict")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _wins(layout: str, rows: Sequence[VerdictRow], total: int, what: str, short: bool) -> str:
    where = f"on all {many(total, what)}" if len(rows) == total > 1 else f"on {len(rows)} of {many(total, what)}"
    if total == 1:
        where = f"on {rows[0].path}"
    losers = {row.candidate if row.winner == row.baseline else row.baseline for row in rows}
    times = sorted(_loss(row) for row in rows)
    least, most = ratio_text(times[0]), ratio_text(times[-1])
    span = least if least == most else f"{least} to {most}"
    if short:
        return f"{layout_name(layout)} wins {where} ({span})"
    if len(losers) == 1:
        return f"{layout_name(layout)} wins {where}: {layout_name(next(iter(losers)))} takes {span} its time"
    return f"{layout_name(layout)} wins {where}: the others take {span} its time"


def _loss(row: VerdictRow) -> float:
    assert row.ratio is not None
    return row.ratio if row.verdict == "slower" else 1 / row.ratio


def scale_of(bounds: Sequence[float | None], least: float = LEAST_SCALE) -> float:
    """Return the largest ratio of a scale around 1 that fits all bounds: a power of two, at least `least`."""
    widest = max((abs(math.log2(bound)) for bound in bounds if bound is not None and bound > 0), default=0.0)
    return float(2 ** max(math.log2(least), math.ceil(min(widest, 6.0))))


def scale_text(scale: float, width: int) -> str:
    """Return the ticks of a scale over its columns."""
    cells = Cells(width)
    taken = -1
    ticks = _TICKS if width >= 25 else (1 / scale, 1.0, scale)
    for tick in ticks:
        if 1 / scale <= tick <= scale:
            text = _TICK_TEXTS.get(tick, number_text(tick))
            place = _column(tick, scale, width)
            start = max(0, min(width - len(text), place - len(text) // 2))
            if start > taken:
                cells.put(start, text)
                taken = start + len(text)
    return "".join(text for text, _ in cells.row())


def forest(ratio: float | None, low: float | None, high: float | None, width: int, scale: float) -> str:
    """Return a ratio on the scale: `━` over its interval, `●` at it, `│` at 1; an arrow where it goes beyond."""
    cells = ["┄"] * width
    middle = _column(1.0, scale, width)
    cells[middle] = "│"
    if ratio is None or ratio <= 0:
        return "".join(cells)
    if low and high:
        for place in range(_column(low, scale, width), _column(high, scale, width) + 1):
            cells[place] = "┿" if place == middle else "━"
        if low < 1 / scale:
            cells[0] = "◀"
        if high > scale:
            cells[-1] = "▶"
    cells[_column(ratio, scale, width)] = "●" if 1 / scale <= ratio <= scale else "▶" if ratio > 1 else "◀"
    return "".join(cells)


def _column(ratio: float, scale: float, width: int) -> int:
    place = (math.log2(ratio) / math.log2(scale) + 1) / 2
    return max(0, min(width - 1, round(place * (width - 1))))


def verdict_rows(rows: Sequence[VerdictRow], width: int, most: int) -> list[Row]:
    """Return the table: path, ratio, interval, the scale, both rates, and who is faster; at most `most` rows."""
    if not rows:
        return []
    one_shape = len({(row.block_bytes, row.batch) for row in rows}) == 1
    name = 14 if one_shape else 22
    baseline, candidate = short_layout_name(rows[0].baseline).upper(), short_layout_name(rows[0].candidate).upper()
    same = len({(row.baseline, row.candidate) for row in rows}) == 1
    title = f"{candidate}/{baseline}" if same else "time"
    rate = 11 if width >= 100 else 8
    fixed = name + 8 + 14 + 2 * rate + FASTER
    against = 24 if width >= 122 else 0
    bar = max(0, min(61, width - fixed - against))
    bar = 0 if bar < 11 else bar - (bar % 2 == 0)
    scale = scale_of([bound for row in rows for bound in (row.ratio, row.low, row.high)])
    heads = (baseline, candidate) if same else ("first", "second")
    head: Row = (
        cell(" path", name + 1, "dim"), cell(title, 7, "dim", right=True), cell("  95 %", 14, "dim"),
        (scale_text(scale, bar) if bar else "", "dim"),
        cell(heads[0] + " GB/s", rate, "dim", right=True), cell(heads[1] + " GB/s", rate, "dim", right=True),
        cell("  faster", FASTER, "dim"), cell("of reference" if against else "", against, "dim"),
    )  # fmt: skip
    shown = [head]
    for row in rows[: max(1, most - 1)]:
        shown.append(_table_row(row, name, one_shape, bar, scale, against, rate))
    if len(rows) > most - 1:
        shown[-1] = (cell(f" … {many(len(rows) - most + 2, 'more row')}: Enter opens the report", width, "dim"),)
    return shown


def _table_row(row: VerdictRow, name: int, one_shape: bool, bar: int, scale: float, against: int, rate: int) -> Row:
    text = row.path if one_shape else f"{row.path} {size_text(row.block_bytes)}×{row.batch}"
    ratio = ratio_text(row.ratio) if row.ratio is not None else "–"
    tone = "" if row.final else "dim"
    bounds = range_text(row.low, row.high) if row.low and row.high else "–"
    return (
        cell(f" {text}", name + 1, f"path:{row.path}"),
        cell(
            ratio if row.final or row.ratio is None else f"≈{ratio}", 7, f"!{tone}" if row.final else tone, right=True
        ),
        cell(f"  {bounds}", 14, tone),
        (
            forest(row.ratio, row.low, row.high, bar, scale) if bar else "",
            f"layout:{row.winner}" if row.winner else "dim",
        ),
        cell(figure(row.rates[0]), rate, tone, right=True),
        cell(figure(row.rates[1]), rate, tone, right=True),
        cell(f"  {row.verdict_text}", FASTER, f"!layout:{row.winner}" if row.winner else "dim"),
        cell(row.against, against, "dim"),
    )


def framed(title: str, note: str, body: Sequence[Row], width: int) -> list[Row]:
    """Return rows in a frame with a title, and a note at its right."""
    inner = width - 2
    note = f" {note} " if note and cell_len(note) + cell_len(title) + 8 < width else ""
    rule = "─" * max(0, inner - 3 - cell_len(title) - cell_len(note))
    top: Row = (("╭─ ", "rule"), (title, "title"), (f" {rule}", "rule"), (note, "dim"), ("╮", "rule"))
    rows: list[Row] = [top]
    for line in body:
        used = sum(cell_len(text) for text, _ in line)
        rows.append((("│", "rule"), *line, (" " * max(0, inner - used), ""), ("│", "rule")))
    return [*rows, ((f"╰{'─' * inner}╯", "rule"),)]


class VerdictBox(Lines):
    """The verdict of the followed run; its rows fill in their places while it runs."""

    run: RunState | None = None
    most = 6

    def apply(self, run: RunState | None) -> None:
        """Show a run's verdict; nothing without a run."""
        before = self.height_of(self.run)
        self.run = run
        if before != self.height_of(run):
            self.styles.height = self.height_of(run)
        self.redraw()

    def height_of(self, run: RunState | None) -> int:
        """Return how many rows a run's verdict takes."""
        return 0 if run is None else 3 + min(self.most, 1 + len(rows_of_run(run)))

    def rows(self, width: int, height: int) -> list[Row]:
        if self.run is None:
            return []
        rows = rows_of_run(self.run)
        verified = self.run.state == "done" and bool(self.run.results) and all(r.verified for r in self.run.results)
        note = "95 % intervals · every byte verified" if verified else "95 % intervals" if rows else ""
        answer = (cell(f" {sentence(rows, width - 4)}", width - 2, "!"),)
        return framed("Verdict", note, [answer, *verdict_rows(rows, width - 2, self.most)], width)


def short_path(path: str) -> str:
    """Return a path by its initials: `H→D`; device is `G`, as the tiers name it apart from disk."""
    initials = {"Host": "H", "Disk": "D", "Device": "G"}
    return "→".join(initials.get(end, end) for end in path.split("To"))


def result_text(session: Session) -> str:
    """Return a run's verdicts in one line: `H→H 1.33×  D→H can't tell`, or how many of each if they are many."""
    rows = rows_of_session(session)
    if len(rows) <= 4:
        return "  ".join(
            f"{short_path(row.path)} {ratio_text(row.ratio) if row.winner else row.verdict_text}" for row in rows
        )
    counts = Counter(row.verdict_text for row in rows)
    return f"{many(len(rows), 'comparison')}: " + ", ".join(f"{word} {count}" for word, count in counts.most_common())
