"""Comparison of two sessions: by path across layouts, and by path and layout.

Ratios are of times for the same bytes, B over A: below 1, B is faster. Obstacles to a comparison are listed first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from kvdeck.sessions.analysis.comparability import differences
from kvdeck.sessions.analysis.compare_telemetry import TelemetryDiff, compare_flows
from kvdeck.sessions.analysis.entries import Entry, entries
from kvdeck.sessions.model.records import Comparison, Interval, Session, Verdict
from kvdeck.sessions.stats import LEAST_ROUNDS, independent_ratio, verdict
from kvdeck.sessions.units import range_text, ratio_text, shape_text, short_layout_name

SIZE_PERCENT, COUNT_PERCENT, RATE_PERCENT = 10.0, 10.0, 5.0
"""Changes in percent worth reporting: Dynamo's thresholds, applied in both directions."""


class Side(Struct, frozen=True):
    """One session's figures in a row."""

    layouts: tuple[str, ...]
    transfers: int | None
    """Null, like bytes, average size and blocks, if a file that was imported doesn't have it."""
    bytes: int | None
    average_bytes: float | None
    blocks: int | None
    descriptors_per_block: float | None
    us_per_block: float | None
    gb_per_s: float | None
    low: float | None
    high: float | None


class Row(Struct, frozen=True):
    """Figures of both sessions for a path, or for a path and layout."""

    path: str
    layout: str | None
    """Null in rows across layouts."""
    block_bytes: int | None
    batch: int | None
    a: Side
    b: Side
    ratio: float | None
    """B's time for the same bytes over A's; null if a session has no times."""
    low: float | None
    high: float | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Insight:
    """A change beyond its threshold."""

    kind: Literal["improvement", "regression"]
    path: str
    layout: str
    what: Literal["size", "count", "rate"]
    percent: float | None
    """Null if A's value is 0."""
    text: str
    block_bytes: int | None = None
    batch: int | None = None
    judged: bool = False
    """True if the whole interval of a ratio of times decides it; counts, sizes and stated rates have none."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Comparison of two sessions."""

    a: str
    b: str
    differences: tuple[str, ...]
    """Why the two can't be compared directly."""
    paths: tuple[Row, ...]
    keys: tuple[Row, ...]
    insights: tuple[Insight, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    telemetry: TelemetryDiff | None = None
    """Comparison of the telemetry recorded during each of them; null unless both hold some."""


def compare(a: Session, b: Session) -> Diff:
    """Compare two sessions; both may be parts of the same session."""
    of_a, of_b = entries(a), entries(b)
    keyed_a, keyed_b = _keyed(of_a), _keyed(of_b)
    others = dict(keyed_b)
    both = [(entry, others[key]) for key, entry in keyed_a if key in others]
    paths = tuple(_path_rows(of_a, of_b, a, b))
    keys = tuple(_row(mine.layout, [mine], [theirs]) for mine, theirs in both)
    crossed = {row.path for row in paths if not set(row.a.layouts) & set(row.b.layouts)}
    return Diff(
        a=_label(a, b),
        b=_label(b, a),
        differences=tuple(differences(a, b, of_a, of_b)),
        paths=paths,
        keys=keys,
        insights=(*_counted_insights(both), *_judged_insights(judged_rows(keys, paths))),
        only_a=tuple(_only(keyed_a, keyed_b, crossed)),
        only_b=tuple(_only(keyed_b, keyed_a, crossed)),
        telemetry=_telemetry(a, b),
    )


def _telemetry(a: Session, b: Session) -> TelemetryDiff | None:
    if a.telemetry is None or b.telemetry is None:
        return None
    # Two layouts of one session were measured in turns: its telemetry is of both.
    return None if a.name == b.name and a != b else compare_flows(a, b)


def _label(session: Session, other: Session) -> str:
    """Return the name, with the layouts if both sides are the same session."""
    if session.name != other.name:
        return session.name
    items = [result.layout for result in session.results] + [counts.layout for counts in session.transfer_counts]
    return f"{session.name}:{'+'.join(dict.fromkeys(map(short_layout_name, items)))}"


Keyed = list[tuple[tuple[str, str, int | None, int | None], Entry]]
"""Entries with their path, layout, block bytes and batch."""


def _keyed(items: Sequence[Entry]) -> Keyed:
    return [((entry.path, entry.layout, entry.block_bytes, entry.batch), entry) for entry in items]


def _path_rows(of_a: Sequence[Entry], of_b: Sequence[Entry], a: Session, b: Session) -> Iterable[Row]:
    """Yield a row per path and size in both sessions, or per path if they have no size in common."""
    # Layouts of one run took turns, so drift cancels in its own comparison; two sessions have only their medians.
    measured = _measured(a) if a.name == b.name else {}
    theirs = _by_shape(of_b)
    for path, mine in _by_shape(of_a).items():
        others = theirs.get(path, {})
        shapes = [shape for shape in mine if shape in others]
        for shape in shapes:
            yield _paired(_row(None, mine[shape], others[shape]), measured)
        if others and not shapes:
            yield _row(None, _flat(mine), _flat(others), shaped=False)


Shape = tuple[int | None, int | None]
"""Block bytes and batch."""


def _by_shape(items: Sequence[Entry]) -> dict[str, dict[Shape, list[Entry]]]:
    found: dict[str, dict[Shape, list[Entry]]] = {}
    for entry in items:
        found.setdefault(entry.path, {}).setdefault((entry.block_bytes, entry.batch), []).append(entry)
    return found


def _flat(shapes: Mapping[Shape, Sequence[Entry]]) -> list[Entry]:
    return [entry for entries_of_shape in shapes.values() for entry in entries_of_shape]


Measured = dict[tuple[str, Shape], list[Comparison]]
"""Comparisons with interleaved layouts, by path and shape."""


def _measured(session: Session) -> Measured:
    found: Measured = {}
    for item in session.comparisons:
        found.setdefault((item.path, (item.block_bytes, item.batch)), []).append(item)
    return found


def _paired(row: Row, measured: Measured) -> Row:
    """Return the row with the ratio measured by interleaved layouts, if one run has both layouts; else unchanged."""
    for item in measured.get((row.path, (row.block_bytes, row.batch)), ()):
        sides = (item.baseline,), (item.candidate,)
        ratios = (item.ratio, item.low, item.high)
        if sides == (row.b.layouts, row.a.layouts):
            # The bounds change places, too.
            ratios = (1 / item.ratio, 1 / item.high, 1 / item.low)
        elif sides != (row.a.layouts, row.b.layouts):
            continue
        enough = LEAST_ROUNDS if item.verdict != "undecided" else 0
        return _with_ratio(row, Interval(*ratios), enough)
    return row


def _row(layout: str | None, a: Sequence[Entry], b: Sequence[Entry], shaped: bool = True) -> Row:
    first = a[0]
    rates = [_rate(side) for side in (a, b)]
    row = Row(
        path=first.path,
        layout=layout,
        block_bytes=first.block_bytes if shaped else None,
        batch=first.batch if shaped else None,
        a=_side(a, rates[0]),
        b=_side(b, rates[1]),
        ratio=None,
        low=None,
        high=None,
        verdict=None,
    )
    if rates[0] is None or rates[1] is None:
        return row
    ratio = independent_ratio(rates[1], rates[0])
    # Of several layouts together the rounds aren't comparable: a ratio, but no verdict.
    enough = min(entry.rounds for entry in (*a, *b)) if len(a) == len(b) == 1 else 0
    return row if ratio is None else _with_ratio(row, ratio, enough, rates[0].known and rates[1].known)


def _with_ratio(row: Row, ratio: Interval, rounds: int, sure: bool = True) -> Row:
    """Return the row with its ratio; the ratio has an interval only if `sure`: both sides have one."""
    known = ratio.known and sure
    return replace(
        row,
        ratio=ratio.median,
        low=ratio.low if known else None,
        high=ratio.high if known else None,
        verdict=verdict(ratio, rounds),
    )


def _rate(side: Sequence[Entry]) -> Interval | None:
    if len(side) == 1:
        return side[0].gb_per_s
    busy, size = sum(entry.busy_s for entry in side), sum(entry.timed_bytes for entry in side)
    return Interval(*[size / busy / 1e9] * 3) if busy > 0 and size else None


def _side(side: Sequence[Entry], rate: Interval | None) -> Side:
    transfers = size = blocks = pieces = timed = 0
    busy, counted = 0.0, True
    for entry in side:  # single pass for speed: a sweep has hundreds of sides
        if entry.transfers is None or entry.bytes is None or entry.blocks is None:
            counted = False
            continue
        transfers, size, blocks = transfers + entry.transfers, size + entry.bytes, blocks + entry.blocks
        pieces += entry.descriptors or entry.transfers
        timed, busy = timed + entry.timed_blocks, busy + entry.busy_s
    sure = rate if rate is not None and rate.low < rate.high else None
    return Side(
        layouts=tuple(dict.fromkeys(entry.layout for entry in side)),
        transfers=transfers if counted else None,
        bytes=size if counted else None,
        average_bytes=(size / transfers if transfers else 0.0) if counted else None,
        blocks=blocks if counted else None,
        descriptors_per_block=pieces / blocks if blocks else None,
        us_per_block=busy / timed * 1e6 if timed and busy > 0 else None,
        gb_per_s=None if rate is None else rate.median,
        low=None if sure is None else sure.low,
        high=None if sure is None else sure.high,
    )


def _only(here: Keyed, there: Keyed, crossed: Collection[str]) -> list[str]:
    """Return keys of `here` missing in `there`, except on paths where different layouts are compared."""
    known = dict(there)
    alone = [entry for key, entry in here if key not in known and entry.path not in crossed]
    return [key_text(e.path, e.layout, e.block_bytes, e.batch) for e in alone]


def key_text(path: str, layout: str, block_bytes: int | None, batch: int | None) -> str:
    """Return a key as text: `PATH LAYOUT`, with block size and batch if known."""
    shape = f", {shape_text(block_bytes, batch)}" if block_bytes is not None else ""
    return f"{path} {layout}{shape}"


def percent_change(before: float, after: float) -> float | None:
    """Return the change in percent; 0 from 0 to 0, None from 0 to anything else."""
    if before == 0:
        return 0.0 if after == 0 else None
    return (after - before) / before * 100


def _counted_insights(both: Iterable[tuple[Entry, Entry]]) -> Iterable[Insight]:
    """Yield changes of counts, sizes and stated rates beyond Dynamo's thresholds."""
    for a, b in both:
        if not (a.transfers or b.transfers):
            continue
        for what, (before, after), threshold, good in _changes(a, b):
            change = percent_change(before, after)
            if change is not None and abs(change) <= threshold:
                continue
            better = (math.inf if change is None else change) * good > 0
            yield Insight(
                kind="improvement" if better else "regression",
                path=a.path,
                layout=a.layout,
                what=what,
                percent=change,
                text=_TEXTS[what, better],
                block_bytes=a.block_bytes,
                batch=a.batch,
            )


def judged_rows(keys: Sequence[Row], paths: Sequence[Row]) -> list[Row]:
    """Return the rows that have a verdict of their own: by path and layout, and of a path whose layouts all differ."""
    return [*keys, *(row for row in paths if not set(row.a.layouts) & set(row.b.layouts))]


def _judged_insights(rows: Iterable[Row]) -> Iterable[Insight]:
    for row in rows:
        if row.ratio is None or not (is_slower(row, RATE_PERCENT) or is_faster(row, RATE_PERCENT)):
            continue
        faster = row.ratio < 1
        yield Insight(
            kind="improvement" if faster else "regression",
            path=row.path,
            layout=row.layout or f"{'+'.join(row.a.layouts)} -> {'+'.join(row.b.layouts)}",
            what="rate",
            percent=(1 / row.ratio - 1) * 100,
            text=_TEXTS["rate", faster],
            block_bytes=row.block_bytes,
            batch=row.batch,
            judged=True,
        )


def is_slower(row: Row, percent: float) -> bool:
    """True if B's time for the same bytes is more than `percent` above A's, and the whole interval above 1."""
    return row.ratio is not None and row.ratio > 1 + percent / 100 and row.verdict == "slower"


def is_faster(row: Row, percent: float) -> bool:
    """True if A's time for the same bytes is more than `percent` above B's, and the whole interval below 1."""
    return row.ratio is not None and row.ratio < 1 / (1 + percent / 100) and row.verdict == "faster"


What = Literal["size", "count", "rate"]


def _changes(a: Entry, b: Entry) -> Iterable[tuple[What, tuple[float, float], float, int]]:
    """Yield what may have changed, its values before and after, its threshold, and 1 if more is better, else -1."""
    if a.block_bytes is None:  # in a run, sizes are configured, and counts follow from its length
        yield "size", (_average(a), _average(b)), SIZE_PERCENT, 1
        yield "count", (a.transfers or 0, b.transfers or 0), COUNT_PERCENT, -1
    if a.gb_per_s is None or b.gb_per_s is None:  # otherwise the ratio of times is judged
        yield "rate", (a.stated_bytes_per_s or 0, b.stated_bytes_per_s or 0), RATE_PERCENT, 1


def _average(entry: Entry) -> float:
    return (entry.bytes or 0) / entry.transfers if entry.transfers else 0.0


_TEXTS: dict[tuple[What, bool], str] = {
    ("size", True): "average transfer size increased (larger = better efficiency)",
    ("size", False): "average transfer size decreased (smaller = worse efficiency)",
    ("count", True): "transfer count reduced (fewer = less overhead)",
    ("count", False): "transfer count increased (more = more overhead)",
    ("rate", True): "transfer rate improved",
    ("rate", False): "transfer rate got worse",
}


def regressions(diff: Diff, percent: float) -> list[Row]:
    """Return rows whose time for the same bytes grew by more than `percent`, with the whole interval above 1.

    The text lists the same rows as regressions, from `RATE_PERCENT`. A row without an interval is never one, because
    its error is unknown: `undecidable` counts those.
    """
    return [row for row in judged_rows(diff.keys, diff.paths) if is_slower(row, percent)]


def undecidable(diff: Diff) -> int:
    """Return the number of rows with times on both sides but no interval, which have no verdict."""
    return sum(row.ratio is not None and row.low is None for row in judged_rows(diff.keys, diff.paths))


def ratio_sentence(row: Row) -> str:
    """Return the ratio as a sentence."""
    if row.ratio is None:
        return "no times on both sides"
    if row.low is None or row.high is None:
        return f"B takes {ratio_text(row.ratio)} A's time for the same bytes"
    return (
        f"B takes {ratio_text(row.ratio)} A's time for the same bytes (95 % {range_text(row.low, row.high)}): "
        f"{row.verdict}"
    )
