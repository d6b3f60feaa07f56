"""Alerts: limits that an operator sets on a flow or pinned series, and their crossings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kvdeck.app.text.monitor_names import short, source_name
from kvdeck.app.text.monitor_report import arrow, labels_text
from kvdeck.app.tui.modes.monitor.history import flow_key, flow_rate, is_counter, number_key
from kvdeck.engine.quantities import MOST
from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot
from kvdeck.sessions.errors import UsageError

TOLD_AGAIN_S = 60.0
"""Minimum seconds between two notifications of one alert; the log has every crossing."""
MEND = "write `> 5 GB/s`, `< 100 blocks/s`, `> 3 failures` or `> 90 %`; leave it empty to remove the alert"
_TEXT = re.compile(r"\s*([<>])=?\s*(\d+(?:[,_]\d{3})*(?:\.\d+)?)\s*([kKMGT]?)(i?)\s*([A-Za-z%]*(?:/s)?)\s*")
_SCALES = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_BYTES = ("B", "bytes", "byte")


@dataclass(frozen=True, slots=True)
class Threshold:
    """An alert's limit, such as `> 5 GB/s`: alert when the value is above (or below) it."""

    above: bool
    value: float
    unit: str
    """`B/s`, `blocks/s`, `%`, …; empty: the unit of the series."""
    text: str

    def met(self, measured: float) -> bool:
        return measured > self.value if self.above else measured < self.value


def parse(text: str) -> Threshold:
    """Return the limit that a text describes, scaled to its base unit (`%`: to a share).

    Raises:
        UsageError: The text is not a limit, or has a binary prefix for something other than bytes.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not an alert", MEND)
    side, number, prefix, binary, unit = found.groups()
    if binary and unit.removesuffix("/s") not in _BYTES:
        raise UsageError(f"{text!r}: {prefix}{binary} is a prefix of bytes only", MEND)
    base = unit.removesuffix("/s")
    unit = "B" + unit[len(base) :] if base in _BYTES else unit
    scale = float(1024 if binary else 1000) ** _SCALES[prefix]
    value = float(number.replace("_", "").replace(",", "")) * scale
    if value > MOST:
        raise UsageError(f"{text[:40]!r} does not fit in 64 bits", MEND)
    return Threshold(side == ">", value / 100 if unit == "%" else value, unit, " ".join(text.split()))


def of_flow(flow: Flow, unit: str) -> float | None:
    """Return the flow's value in that unit (empty: its rate); None if its source has no such counter."""
    if unit in ("", "/s"):
        return flow_rate(flow)
    return {
        "B/s": flow.bytes_per_s,
        "B": flow.bytes_total,
        "blocks/s": flow.blocks_per_s,
        "blocks": flow.blocks_total,
        "transfers/s": flow.transfers_per_s,
        "transfers": flow.transfers_total,
        "failures": flow.failures_total,
    }.get(unit)


def of_number(number: Number, unit: str) -> float | None:
    """Return a series' rate for a unit per second if it is a counter, else its value."""
    return number.per_s if unit.endswith("/s") and is_counter(number) else number.value


_UNITS = {"bytes": ("B",), "ratio": ("%",), "s": ("s", "seconds"), "seconds": ("s", "seconds")}
"""How a series' unit is written in an alert, if not as it is."""
_EXAMPLES = {"B": "GB", "B/s": "GB/s"}


def units_of(row: Flow | Number) -> tuple[str, ...] | None:
    """Return the units of an alert on a flow or series, other than none; None if any, as its unit isn't known."""
    if isinstance(row, Flow):
        counted = {
            "B": row.bytes_total,
            "blocks": row.blocks_total,
            "transfers": row.transfers_total,
            "failures": row.failures_total,
        }
        bases = [base for base, total in counted.items() if total is not None]
        return tuple(unit for base in bases for unit in (base, f"{base}/s") if unit != "failures/s")
    if not row.unit:
        return None
    units = _UNITS.get(row.unit, (row.unit,))
    return (*units, *(f"{unit}/s" for unit in units)) if is_counter(row) else units


def refuse_unit(threshold: Threshold, row: Flow | Number) -> None:
    """Raise UsageError if the alert's unit is none of the row's."""
    units = units_of(row)
    per_second = isinstance(row, Flow) or is_counter(row)
    if units is None or threshold.unit in units or not threshold.unit or (threshold.unit == "/s" and per_second):
        return
    shown = [_EXAMPLES.get(unit, unit) for unit in units]
    raise UsageError(
        f"{_name(row)} is not counted in {threshold.unit}: the alert {threshold.text!r} would never be met",
        f"use {' or '.join(shown)}, or a number without a unit",
    )


def _name(row: Flow | Number) -> str:
    if isinstance(row, Flow):
        return f"{arrow(row)} ({short(row.name)})"
    return f"{row.name}{labels_text(row)} of {source_name(row.source)}"


@dataclass(frozen=True, slots=True)
class Crossing:
    """One crossing of an alert's limit at Unix time `t`, in either direction."""

    key: str
    t: float
    text: str
    out: bool
    """True if the value now meets the alert's condition."""
    told: bool
    """True if a notification is due."""


class Thresholds:
    """Alerts by the key of a flow or series, and whether each is active."""

    def __init__(self, kept: Mapping[str, str] | None = None) -> None:
        self.set_: dict[str, Threshold] = {}
        self._out: dict[str, bool] = {}
        self._told: dict[str, float] = {}
        self.problems: list[str] = []
        """Alerts that can't be met, saved by another version or by an editor; for the operator, once each."""
        self._fit: set[str] = set()
        """Keys of which the unit was compared with the flow's or series'."""
        for key, text in (kept or {}).items():
            try:
                self.set_[key] = parse(text)
            except UsageError as error:
                self.problems.append(f"a saved alert of {key} is ignored: {error}")

    @property
    def texts(self) -> dict[str, str]:
        return {key: threshold.text for key, threshold in self.set_.items()}

    def text(self, key: str) -> str:
        """Return the alert's text of a key; empty without one."""
        threshold = self.set_.get(key)
        return threshold.text if threshold is not None else ""

    def put(self, key: str, text: str, row: Flow | Number | None = None) -> None:
        """Set the alert of a key, or remove it if the text is empty.

        Args:
            row: The flow or series, if known.

        Raises:
            UsageError: The text is not a limit, or is in a unit that the row hasn't.
        """
        threshold = parse(text) if text.strip() else None
        if threshold is not None and row is not None:
            refuse_unit(threshold, row)
        self._out.pop(key, None)
        self._told.pop(key, None)
        if threshold is None:
            self.set_.pop(key, None)
        else:
            self.set_[key] = threshold

    def is_out(self, key: str) -> bool:
        """True if the key's alert was active in the last sample with a value."""
        return self._out.get(key, False)

    def take(self, moment: Snapshot) -> list[Crossing]:
        """Return the crossings in a sample; an alert whose condition is met already when set counts as one."""
        found = []
        if self.set_:
            for flow in moment.flows:
                if (threshold := self.set_.get(flow_key(flow))) is not None:
                    self._compare(flow_key(flow), threshold, flow)
                    found.append((flow_key(flow), threshold, of_flow(flow, threshold.unit), _name(flow)))
            for number in moment.pinned:
                if (threshold := self.set_.get(number_key(number))) is not None:
                    self._compare(number_key(number), threshold, number)
                    found.append((number_key(number), threshold, of_number(number, threshold.unit), _name(number)))
        crossings = (self._crossed(moment.t, *item) for item in found)
        return [crossing for crossing in crossings if crossing is not None]

    def _compare(self, key: str, threshold: Threshold, row: Flow | Number) -> None:
        """Note an alert in a unit that the row hasn't, once."""
        if key not in self._fit:
            self._fit.add(key)
            try:
                refuse_unit(threshold, row)
            except UsageError as error:
                self.problems.append(str(error))

    def _crossed(self, t: float, key: str, threshold: Threshold, value: float | None, name: str) -> Crossing | None:
        if value is None:
            return None
        out = threshold.met(value)
        if out == self._out.get(key, False):
            return None
        self._out[key] = out
        told = out and t - self._told.get(key, float("-inf")) >= TOLD_AGAIN_S
        if told:
            self._told[key] = t
        return Crossing(key, t, f"{name} {threshold.text}" if out else f"{name} no longer {threshold.text}", out, told)
