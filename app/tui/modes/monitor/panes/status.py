"""Checks, Sources and Log panes: cross-checks, source states, annotations."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from kvdeck.app.text.monitor_names import age_text, ago, source_name, steady, time_of_day
from kvdeck.app.tui.modes.monitor.annotations import TONES
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.units import many, plain_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

_VERDICTS = {"warning": ("▲", "warn"), "info": ("•", ""), "ok": ("✓", "ok")}
_STATES = {"live": "ok", "idle": "dim", "partial": "warn", "reset": "warn", "stale": "bad", "unreachable": "bad"}


class Checks(Panel):
    """Sources that don't answer, then the cross-checks with evidence and advice, warnings first."""

    title = "Health"

    def note(self) -> str:
        looks = sum(check.verdict == "warning" for check in self.view.moment.checks) + self.view.down
        return f"{looks} to look at" if looks else ""

    def body(self, width: int, height: int) -> list[Row]:
        rows = [row for source in self.view.moment.sources if source.stale for row in _down_rows(source, width)]
        for check in sorted(self.view.moment.checks, key=lambda check: list(_VERDICTS).index(check.verdict)):
            mark, tone = _VERDICTS[check.verdict]
            first, *rest = wrap(check.evidence, max(20, width - 4)) or [""]
            rows.append(((f" {mark} ", tone), cell(first, width - 3, tone)))
            rows += [(cell("", 3), cell(line, width - 3, tone)) for line in rest]
            advice = wrap(check.advice_text, max(20, width - 9)) if check.advice else []
            hang = "     " if check.advice_text.startswith("fix: ") else ""
            rows += [(cell(f"   {'' if i == 0 else hang}{line}", width, "dim"),) for i, line in enumerate(advice)]
        if self.view.down and not self.view.moment.checks:
            sources, down = len(self.view.moment.sources), self.view.down
            rows.append(said(f"{down} of {many(sources, 'source')} down: what they export isn't checked", width, "bad"))
        if not rows:
            sources = len(self.view.moment.sources)
            none = f"No problems found ({many(sources, 'source')} checked)" if sources else "Nothing to check yet"
            return [said(none, width)]
        return rows

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple((check.verdict, check.id, check.evidence, check.advice) for check in self.view.moment.checks)
        return Table("checks", ("verdict", "check", "evidence", "fix"), rows)


def _down_rows(source: SourceStatus, width: int) -> list[Row]:
    """Return what is known of a source that doesn't answer, and how old its figures are."""
    text = f"{_name(source)} {source.kind}: {_why(source) or source.state}"
    if source.age_s is not None and source.series:
        text += f". Its figures are {age_text(source.age_s)}, shown dim"
    first, *rest = wrap(text, max(20, width - 4)) or [""]
    return [((" ✗ ", "bad"), cell(first, width - 3, "bad")), *((cell(f"   {line}", width, "bad"),) for line in rest)]


class Sources(Panel):
    """Every source with state, reason, and time since a counter changed (a gauge may freeze at its last value)."""

    title = "Sources"

    def note(self) -> str:
        return "s selects"

    def body(self, width: int, height: int) -> list[Row]:
        # Failed sources first, so that a low pane doesn't cut them off.
        sources = sorted(self.view.moment.sources, key=lambda source: source.state not in ("unreachable", "stale"))
        widest = max((len(_name(source)) for source in sources), default=0)
        name = min(widest, max(10, width - 42)) + 1
        rows: list[Row] = []
        for source in sources:
            tone, why = _STATES[source.state], _why(source)
            room = width - 13 - 11 - name
            rows.append(
                (cell(f" {source.state}", 13, tone), cell(source.kind, 11), cell(_name(source), name - 1), (" ", ""),
                 cell(_moved(source), max(0, room), "dim"))
            )  # fmt: skip
            rows += [
                (cell(f"     {line}", width, tone if tone in ("bad", "warn") else "dim"),)
                for line in wrap(why, width - 6)
            ]
        return rows or [said("No source selected · s selects sources", width)]

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple(
            (s.state, s.kind, s.name, _seconds(s.age_s), _seconds(s.moved_s), str(s.series), str(s.unknown), s.reason)
            for s in self.view.moment.sources
        )
        titles = ("state", "kind", "source", "age_s", "moved_s", "series", "unknown", "reason")
        return Table("sources", titles, rows)


def _name(source: SourceStatus) -> str:
    return source_name(source.name) if source.name.startswith("http") else source.name


def _why(source: SourceStatus) -> str:
    # `_moved` shows the idle time in coarse steps: a count of seconds would repaint an idle screen each second.
    return "" if source.state == "idle" and source.reason.startswith("no counter changed") else steady(source.reason)


def _moved(source: SourceStatus) -> str:
    if source.age_s is None or source.state == "unreachable":
        return ""
    return ago(source.moved_s)


def _seconds(value: float | None) -> str:
    return plain_text(value, 1)


class AnnotationLog(Panel):
    """Annotations up to the time shown, newest last; follows the newest unless focused."""

    title = "Log"

    def note(self) -> str:
        return "a annotates"

    def body(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = []
        for mark in self.view.marks[-200:]:
            first, *rest = wrap(mark.text, max(20, width - 11)) or [""]
            tone = TONES.get(mark.kind, "")
            rows.append((cell(f" {time_of_day(mark.t)} ", 10, "dim"), cell(first, width - 10, tone)))
            rows += [(cell("", 10), cell(line, width - 10, tone)) for line in rest]
        return rows or [said("annotations, alerts, and sources that appeared or were lost", width)]

    def rows(self, width: int, height: int) -> list[Row]:
        if not self.has_focus:
            self.top = FAR_DOWN
        return super().rows(width, height)

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple((time_of_day(mark.t), mark.kind, mark.text) for mark in self.view.marks)
        return Table("annotations", ("time", "kind", "annotation"), rows)


FAR_DOWN = 1 << 30
