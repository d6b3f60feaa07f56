"""Running totals of a telemetry session, in constant memory."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msgspec import UNSET

from kvdeck.sessions import stats
from kvdeck.sessions.model.telemetry import (
    CounterTotals,
    FlowTotals,
    GaugeTotals,
    HistogramTotals,
    SourceSeen,
    Spread,
    TelemetryTotals,
)
from kvdeck.sessions.store.telemetry.delta import Moment, Row

MOST_VALUES = 512
"""Maximum values per flow or gauge; above, every second value is dropped, repeatedly."""
MOST_ROWS = 2000
"""Maximum flows, gauges and counters (each); further series are not summarised."""
LONGEST_S = 60.0
"""Seconds; a longer time between two samples is a gap and doesn't count as moving time."""
_GAUGES = ("queue", "hits", "memory")
_COUNTERS = ("queue", "hits", "tokens", "errors")

Key = tuple[Any, ...]


@dataclass(slots=True)
class Sample:
    """A subset of values, spread evenly over all that were added."""

    values: list[float] = field(default_factory=list)
    every: int = 1
    seen: int = 0

    def add(self, value: float) -> None:
        if self.seen % self.every == 0:
            self.values.append(value)
            if len(self.values) >= MOST_VALUES:
                self.values = self.values[::2]
                self.every *= 2
        self.seen += 1

    def spread(self, sure: bool = False) -> Spread | None:
        """Return the distribution of the values, with an interval if `sure`; None if there are no values."""
        if not self.values:
            return None
        ordered = sorted(self.values)
        interval = stats.block_median_interval(self.values) if sure else None
        return Spread(
            moments=self.seen,
            median=statistics.median(ordered),
            low=None if interval is None else interval.low,
            high=None if interval is None else interval.high,
            p95=stats.percentile(ordered, 0.95),
            least=ordered[0],
            greatest=ordered[-1],
        )


@dataclass(slots=True)
class Gained:
    """Growth of a counter over the session; null until it first appears.

    The source's own `gained` handles resets and wraps, and starts at 0 when monitoring starts.
    """

    last: float = 0.0
    moved: float | None = None

    def take(self, total: float | None, gained: float | None, began: bool = False) -> float:
        """Return the growth since the previous sample.

        Args:
            began: Whether an earlier sample of the recording has its source without this counter, which a source
                doesn't export before its first use. Then all that it gained belongs to the recording.
        """
        if total is None:
            return 0.0
        if gained is None:  # first reading of the source
            self.last, self.moved = 0.0, self.moved or 0.0
            return 0.0
        # What it gained before the recording isn't part of the recording.
        if self.moved is None and not began:  # monitored since before the telemetry session started
            self.last = gained
        grown = gained - self.last if gained >= self.last else gained  # monitoring restarted
        self.last, self.moved = gained, (self.moved or 0.0) + grown
        return grown


@dataclass(slots=True)
class Grown:
    """Growth of a total without its own `gained`; a total that falls restarted from 0."""

    last: float | None = None
    moved: float | None = None

    def take(self, total: float | None) -> None:
        if total is None:
            return
        grown = 0.0 if self.last is None else total - self.last if total >= self.last else total
        self.last, self.moved = total, (self.moved or 0.0) + grown


@dataclass(slots=True)
class Observed:
    """Growth of a histogram's counts and sum over the session."""

    counts: list[Gained] = field(default_factory=list)
    total: Gained = field(default_factory=Gained)

    def take(self, row: Row, began: bool = False) -> None:
        """Add a sample; a histogram with other buckets than before begins again."""
        gained = row["gained"] or [None] * len(row["before"])
        if len(self.counts) != len(gained):
            self.counts = [Gained() for _ in gained]
        for count, value in zip(self.counts, gained, strict=True):
            count.take(0.0, value, began)
        self.total.take(row["sum_before"], row["sum_gained"], began)


@dataclass(slots=True)
class _Flow:
    row: Row
    bytes: Gained = field(default_factory=Gained)
    blocks: Gained = field(default_factory=Gained)
    failures: Gained = field(default_factory=Gained)
    transfers: Grown = field(default_factory=Grown)
    moving_s: float = 0.0
    rates: Sample = field(default_factory=Sample)


class Summary:
    """Totals of the samples so far."""

    def __init__(self) -> None:
        self.begin: float | None = None
        self.end: float | None = None
        self.moments = 0
        self._kinds: dict[str, str] = {}
        self._answered: set[str] = set()
        """Sources that have answered so far."""
        self._known: frozenset[str] = frozenset()
        """Sources that had answered before the last sample."""
        self._states: dict[str, Counter[str]] = {}
        self._flows: dict[Key, _Flow] = {}
        self._gauges = _Numbers(Sample, _GAUGES)
        self._counters = _Numbers(Gained, _COUNTERS)
        self._histograms: dict[Key, tuple[Row, Observed]] = {}

    def take(self, moment: Moment) -> None:
        """Add a sample.

        Raises:
            ValueError: A required field is missing or has another type.
        """
        try:
            self._take(moment)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"a damaged sample: {error}") from error

    def _take(self, moment: Moment) -> None:
        t = float(moment["t"])
        step = 0.0 if self.end is None else t - self.end
        self._known = frozenset(self._answered)
        covers = {}
        for row in moment.get("sources", ()):
            if row.get("age_s") is not None:
                self._answered.add(row["name"])
            # A source that answers late covers more than one step: its rate belongs to all of that time.
            covers[row["name"]] = row.get("over_s") or step
            self._kinds[row["name"]] = row["kind"]
            self._states.setdefault(row["name"], Counter())[row["state"]] += 1
        for row in moment.get("flows", ()):
            seconds = covers.get(row["source"], step)
            self._take_flow(row, seconds if 0 < seconds <= LONGEST_S else 0.0)
        for row, sample in self._gauges.of(moment.get("gauges", ())):
            if row["value"] is not None:
                sample.add(float(row["value"]))
        for row, gained in self._counters.of(moment.get("counters", ())):
            gained.take(row["value"], row["gained"], row["source"] in self._known)
        for row in moment.get("histograms", ()):
            self._take_histogram(row)
        self.begin = t if self.begin is None else self.begin
        self.end = t
        self.moments += 1

    def _take_histogram(self, row: Row) -> None:
        key = _key(row)
        if key not in self._histograms:
            if len(self._histograms) >= MOST_ROWS:
                return
            self._histograms[key] = row, Observed()
        observed = self._histograms[key][1]
        self._histograms[key] = row, observed
        observed.take(row, row["source"] in self._known)

    def _take_flow(self, row: Row, step: float) -> None:
        key = row["source"], row["name"], row["from"], row["to"]
        if key not in self._flows:
            if len(self._flows) >= MOST_ROWS:
                return
            self._flows[key] = _Flow(row)
        flow = self._flows[key]
        flow.row = row
        grown = [
            getattr(flow, name).take(row[f"{name}_total"], row[f"{name}_gained"], row["source"] in self._known)
            for name in ("bytes", "blocks", "failures")
        ]
        flow.transfers.take(row["transfers_total"])
        rate = row["blocks_per_s"] if row["bytes_total"] is None else row["bytes_per_s"]
        if any(grown[:2]):
            flow.moving_s += step
            if rate:
                flow.rates.add(float(rate))

    def result(self) -> TelemetryTotals:
        """Return the totals; the caller adds size on disk and annotations."""
        return TelemetryTotals(
            begin=self.begin,
            end=self.end,
            moments=self.moments,
            sources=tuple(SourceSeen(n, self._kinds[n], dict(states)) for n, states in self._states.items()),
            flows=tuple(self._flow_totals(flow) for flow in self._flows.values()),
            gauges=tuple(self._gauge_totals(row, sample) for row, sample in self._gauges.all if sample.seen),
            counters=tuple(self._counter_totals(row, gained) for row, gained in self._counters.all),
            histograms=tuple(self._histogram_totals(row, one) for row, one in self._histograms.values()) or UNSET,
        )

    def _histogram_totals(self, row: Row, observed: Observed) -> HistogramTotals:
        return HistogramTotals(
            source=row["source"],
            source_kind=self._kinds.get(row["source"], ""),
            name=row["name"],
            labels=row["labels"],
            what=row["what"],
            unit=row["unit"],
            edges=tuple(row["edges"]),
            counts=tuple(round(count.moved or 0.0) for count in observed.counts),
            total=observed.total.moved,
        )

    def _flow_totals(self, flow: _Flow) -> FlowTotals:
        row, duration = flow.row, (self.end or 0.0) - (self.begin or 0.0)
        moved = flow.blocks.moved if flow.bytes.moved is None else flow.bytes.moved
        return FlowTotals(
            source=row["source"],
            source_kind=self._kinds.get(row["source"], ""),
            name=row["name"],
            source_tier=row["from"],
            target_tier=row["to"],
            metric=row["metric"],
            bytes_moved=flow.bytes.moved,
            blocks_moved=flow.blocks.moved,
            transfers=flow.transfers.moved,
            failures=flow.failures.moved,
            moving_s=flow.moving_s,
            unit="blocks/s" if flow.bytes.moved is None else "B/s",
            mean=moved / duration if moved is not None and duration > 0 else None,
            rate=flow.rates.spread(sure=True),
            bytes_from_blocks=bool(row.get("bytes_from_blocks")),
        )

    def _gauge_totals(self, row: Row, sample: Sample) -> GaugeTotals:
        value = sample.spread()
        assert value is not None
        return GaugeTotals(**self._names(row), value=value)

    def _counter_totals(self, row: Row, gained: Gained) -> CounterTotals:
        return CounterTotals(**self._names(row), gained=gained.moved or 0.0)

    def _names(self, row: Row) -> dict[str, Any]:
        names = {key: row[key] for key in ("source", "name", "labels", "unit", "group")}
        return {**names, "source_kind": self._kinds.get(row["source"], "")}

    # --- saved beside the samples, so that reopening needn't process all of them again ---

    def to_json(self) -> dict[str, Any]:
        """Return the whole state; orjson serialises the nested records."""
        return {
            "begin": self.begin,
            "end": self.end,
            "moments": self.moments,
            "kinds": self._kinds,
            "answered": sorted(self._answered),
            "states": self._states,
            "flows": list(self._flows.values()),
            "gauges": self._gauges.all,
            "counters": self._counters.all,
            **({"histograms": list(self._histograms.values())} if self._histograms else {}),
        }

    @classmethod
    def from_json(cls, data: Any) -> Summary:
        """Return a summary from the output of `to_json`.

        Raises:
            ValueError: The data has another form.
        """
        made = cls()
        try:
            made.begin, made.end, made.moments = data["begin"], data["end"], int(data["moments"])
            made._kinds = dict(data["kinds"])
            made._answered = set(data.get("answered", data["kinds"]))
            made._states = {name: Counter(states) for name, states in data["states"].items()}
            for item in data["flows"]:
                row = item["row"]
                flow = _Flow(row, Gained(**item["bytes"]), Gained(**item["blocks"]), Gained(**item["failures"]))
                flow.transfers, flow.rates = Grown(**item["transfers"]), Sample(**item["rates"])
                flow.moving_s = float(item["moving_s"])
                made._flows[row["source"], row["name"], row["from"], row["to"]] = flow
            for row, sample in data["gauges"]:
                made._gauges.put(row, Sample(**sample))
            for row, gained in data["counters"]:
                made._counters.put(row, Gained(**gained))
            for row, observed in data.get("histograms", ()):
                counts = [Gained(**count) for count in observed["counts"]]
                made._histograms[_key(row)] = row, Observed(counts, Gained(**observed["total"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no summary: {error}") from error
        return made


Kept = TypeVar("Kept", Sample, Gained)


class _Numbers(Generic[Kept]):
    """State per number (gauge or counter) of the given groups."""

    def __init__(self, make: Callable[[], Kept], groups: tuple[str, ...]) -> None:
        self._make: Callable[[], Kept] = make
        self._groups = groups
        self._known: dict[Key, tuple[Row, Kept]] = {}
        self._places: list[tuple[Row, Kept | None]] = []

    @property
    def all(self) -> list[tuple[Row, Kept]]:
        return list(self._known.values())

    def put(self, row: Row, kept: Kept) -> None:
        self._known[_key(row)] = row, kept

    def of(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Kept]]:
        """Yield each row of the given groups with its number's state."""
        places = self._places
        for index, row in enumerate(rows):
            place = places[index] if index < len(places) else None
            # Fast path: row positions and `labels` objects don't change between two full samples.
            if place is None or place[0]["labels"] is not row["labels"] or place[0]["name"] != row["name"]:
                place = row, self._find(row)
                places[index : index + 1] = [place]
            if place[1] is not None:
                yield row, place[1]

    def _find(self, row: Row) -> Kept | None:
        if row["group"] not in self._groups:
            return None
        key = _key(row)
        if key not in self._known:
            if len(self._known) >= MOST_ROWS:
                return None
            self._known[key] = row, self._make()
        return self._known[key][1]


def _key(row: Row) -> Key:
    return row["source"], row["name"], *sorted(row["labels"].items())
