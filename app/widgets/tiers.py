"""What moves between the tiers: a row a flow, offload and onboard apart, with its last two minutes."""

from __future__ import annotations

from collections import deque
from textwrap import wrap

from kvdeck.app.widgets.lines import Lines, Row, cell, heading
from kvdeck.engine.watch.report import amount, arrow, flow_rate, flow_total, labels_text
from kvdeck.engine.watch.snapshot import Flow, Number, Snapshot

HISTORY_S = 120
SPARK_WIDTH = 24
_BARS = "▁▂▃▄▅▆▇█"
_TIERS = ("G1", "G2", "G3", "G4", "remote")
_STATE_TONES = {"live": "ok", "idle": "dim", "partial": "warn", "reset": "warn", "stale": "bad", "unreachable": "bad"}
_VERDICT_TONES = {"ok": "ok", "note": "", "look": "warn"}

Key = tuple[str, str]


def direction(flow: Flow) -> str:
    """`offload` is down the tiers, `onboard` up; what neither source nor target tells is a `transfer`."""
    if flow.source_tier not in _TIERS or flow.target_tier not in _TIERS:
        return "transfer"
    down = _TIERS.index(flow.target_tier) - _TIERS.index(flow.source_tier)
    return "offload" if down > 0 else "onboard" if down < 0 else "transfer"


def rate(flow: Flow) -> float | None:
    """Bytes a second, else blocks a second."""
    return flow.bytes_per_s if flow.bytes_per_s is not None else flow.blocks_per_s


class Past:
    """The rates of each flow over the last two minutes. It grows while the picture is paused."""

    def __init__(self) -> None:
        self._rates: dict[Key, deque[tuple[float, float | None]]] = {}

    def note(self, moment: Snapshot) -> None:
        """Take a moment's rates; flows that are gone for two minutes are forgotten."""
        for flow in moment.flows:
            self._rates.setdefault((flow.source, flow.name), deque()).append((moment.t, rate(flow)))
        for key, rates in list(self._rates.items()):
            while rates and rates[0][0] < moment.t - HISTORY_S:
                rates.popleft()
            if not rates:
                del self._rates[key]

    def spark(self, flow: Flow, now: float, width: int = SPARK_WIDTH) -> str:
        """Bars of the greatest rate in each step of time, the newest at the right; a space where nothing is known."""
        most: list[float | None] = [None] * width
        for t, value in self._rates.get((flow.source, flow.name), ()):
            slot = width - 1 - int((now - t) / HISTORY_S * width)
            if value is not None and 0 <= slot < width:
                most[slot] = max(most[slot] or 0.0, value)
        top = max((value for value in most if value is not None), default=0.0)
        return "".join(" " if value is None else _bar(value, top) for value in most)


def _bar(value: float, top: float) -> str:
    return _BARS[0] if top <= 0 else _BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))]


class Tiers(Lines):
    """Flows between tiers, offload first."""

    moment = Snapshot(0.0)
    error = ""
    past = Past()

    def apply(self, moment: Snapshot, past: Past, error: str) -> None:
        self.moment, self.past, self.error = moment, past, error
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = [heading("Tiers", width, note="G1 device · G2 host · G3 disk · G4 object")]
        if not self.moment.flows:
            said = self.error or "nothing that is watched says what moves between tiers"
            return [*rows, (cell(f" {said}", width, "dim"),)]
        for way in ("offload", "onboard", "transfer"):
            flows = sorted((flow for flow in self.moment.flows if direction(flow) == way), key=_by_tier)
            if flows:
                rows.append((cell(f" {way}", width, "!dim"),))
                rows += [self._row(flow, width) for flow in flows]
        return rows

    def _row(self, flow: Flow, width: int) -> Row:
        moving = bool(rate(flow))
        tone = "" if moving else "dim"
        spark = min(SPARK_WIDTH, max(8, width - 66))
        return (
            cell(f"  {arrow(flow)}", 12, tone),
            cell(flow_rate(flow), 13, "ok" if moving else "dim", right=True),
            cell(flow_total(flow), 15, tone, right=True),
            cell("  " + self.past.spark(flow, self.moment.t, spark), spark + 2),
            cell(f"  {flow.name.replace('_blocks_', ' ')}", max(0, width - 42 - spark), "dim"),
        )


def _by_tier(flow: Flow) -> tuple[str, str, str]:
    return (flow.source_tier or "~", flow.target_tier or "~", flow.name)


class Sources(Lines):
    """Every source with its state and why."""

    moment = Snapshot(0.0)

    def apply(self, moment: Snapshot) -> None:
        self.moment = moment
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = [heading("Sources", width)]
        for source in self.moment.sources:
            tone = _STATE_TONES[source.state]
            rows.append((cell(f" {source.state}", 13, tone), cell(source.kind, 11), cell(source.name, width - 24)))
            rows += [(cell(f"   {line}", width, "dim"),) for line in wrap(source.reason, width - 4)]
        return rows


class Checks(Lines):
    """The cross-checks, each with its evidence and what to try."""

    moment = Snapshot(0.0)

    def apply(self, moment: Snapshot) -> None:
        self.moment = moment
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = [heading("Checks", width)]
        for found in self.moment.checks:
            tone = _VERDICT_TONES.get(found.verdict, "")
            rows += [(cell(f" {line}", width, tone),) for line in wrap(f"{found.verdict}: {found.evidence}", width - 2)]
            rows += [(cell(f"   {line}", width, "key"),) for line in wrap(found.advice, width - 4)]
        return rows


GROUPS = {
    "queue": "queue",
    "tokens": "where tokens came from",
    "hits": "hits and what they are out of",
    "memory": "memory",
    "host": "this host",
    "errors": "errors",
}


class Numbers(Lines):
    """Counters and gauges by what they are about; errors that never happened are left out."""

    moment = Snapshot(0.0)

    def apply(self, moment: Snapshot) -> None:
        self.moment = moment
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        rows: list[Row] = [heading("Numbers", width)]
        for group, title in GROUPS.items():
            found = [n for n in (*self.moment.gauges, *self.moment.counters) if n.group == group]
            found = [number for number in found if number.value or group != "errors"]
            if found:
                rows.append((cell(f" {title}", width, "!dim"),))
                rows += [_number_row(number, width) for number in found]
        return rows


def _number_row(number: Number, width: int) -> Row:
    name, labels, room = number.name.removeprefix("vllm:").removesuffix("_total"), labels_text(number), width - 29
    name = cell(name, max(4, min(len(name), room - 2 - len(labels))))[0] + labels
    now = "" if number.per_s is None else amount(number.per_s, "B/s" if number.unit == "bytes" else "/s")
    if number.per_s and number.limit_per_s:
        now += f" {number.per_s / number.limit_per_s:.0%}"
    tone = "ok" if number.per_s else ""
    return (
        cell(f"  {name}", max(10, room)),
        cell(amount(number.value, number.unit), 15, tone, right=True),
        cell(now, 14, tone or "dim", right=True),
    )
