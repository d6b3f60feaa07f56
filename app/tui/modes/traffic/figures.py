"""What the Traffic screen shows of a test: figures of patterns and ranks, the time line, and the answer in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvdeck.sessions.model.records import Interval, is_same
from kvdeck.sessions.units import many, ratio_text, size_text

Doing = Literal["moves", "sleeps"]
Tone = Literal["", "dim", "ok", "warn", "bad", "run"]


@dataclass(frozen=True, slots=True)
class PatternLine:
    """One pattern's figures; None where nothing moves or nothing is measured yet."""

    number: int
    size: int
    """Bytes of one iteration."""
    alone_ms: float | None = None
    together_ms: float | None = None
    ratio: float | None = None
    """Time in the sequence over time alone."""
    interval: Interval | None = None
    """The ratio's 95 % interval."""
    gb_per_s: float | None = None
    last: int | None = None
    """Rank that ended last most often."""
    last_times: tuple[int, int] = (0, 0)
    """How often it did, and of how many iterations."""
    operation: str = "WRITE"
    shards: int = 1
    running: bool = False

    @property
    def collides(self) -> bool:
        """True if it certainly takes longer than alone: its whole interval is above 1 and reaches beyond 1.05."""
        return self.interval is not None and self.interval.low > 1 and not self.same

    @property
    def same(self) -> bool:
        """True if it certainly takes as long as alone."""
        return self.interval is not None and is_same(self.interval.low, self.interval.high)

    @property
    def moves(self) -> bool:
        return self.size > 0


@dataclass(frozen=True, slots=True)
class RankRow:
    """A rank's speed in a pattern, over its own time."""

    rank: int
    host: str
    gb_per_s: float | None
    straggler: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a rank moves a pattern's bytes, or sleeps; ms from the beginning of the sequence."""

    rank: int
    pattern: int
    start_ms: float
    end_ms: float
    doing: Doing = "moves"


@dataclass(frozen=True, slots=True)
class TrafficView:
    """A test as the panes show it; a newer one replaces it as a whole."""

    about: str = ""
    """What is tested, in one line."""
    patterns: tuple[PatternLine, ...] = ()
    ranks: tuple[tuple[RankRow, ...], ...] = ()
    """Ranks of each pattern."""
    stretches: tuple[Stretch, ...] = ()
    """The last sequence that was measured."""
    times: tuple[tuple[Sequence[float], Sequence[float]], ...] = ()
    """Latencies of each pattern's visits in ns, alone and together."""
    measured: str = ""
    """Skew, preparation and iterations, in one line."""
    state: str = ""
    """The run's state; "" before a run."""
    doing: str = ""
    """What the run does now."""
    verified: bool | None = None
    """Whether every byte is right; None if not checked."""
    error: str = ""
    fix: str = ""
    processes: int = 0
    """Processes that play the ranks; 0 if not known."""
    hosts: tuple[str, ...] = ()
    """Host of each rank; empty if all are here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The question's answer, with what stands beside it."""

    text: str
    tone: Tone = ""
    note: str = ""


def beside(stretches: Sequence[Stretch], pattern: int) -> tuple[int, ...]:
    """Return the patterns that moved bytes while a pattern did."""
    own = [part for part in stretches if part.pattern == pattern and part.doing == "moves"]
    if not own:
        return ()
    start, end = min(part.start_ms for part in own), max(part.end_ms for part in own)
    return tuple(sorted({
        part.pattern for part in stretches
        if part.doing == "moves" and part.pattern != pattern and part.start_ms < end and part.end_ms > start
    }))  # fmt: skip


def last_rank(patterns: Sequence[PatternLine]) -> tuple[int, int, int] | None:
    """Return the rank that is last in the most patterns, in how many, and of how many; None if none is known."""
    found = Counter(row.last for row in patterns if row.last is not None)
    if not found:
        return None
    rank, times = found.most_common(1)[0]
    return rank, times, sum(found.values())


def answer(view: TrafficView) -> Answer:
    """Return whether the patterns slow each other down, and who is last."""
    moving = [row for row in view.patterns if row.moves]
    known = [row for row in moving if row.ratio is not None]
    note = "95 % intervals" if any(row.interval for row in known) else ""
    if view.verified is not None:
        note = f"{note} · " if note else ""
        note += "every byte verified" if view.verified else "WRONG BYTES"
    if view.error:
        return Answer(view.error + (f" · fix: {view.fix}" if view.fix else ""), "bad", note)
    if view.state in ("queued", "running", ""):
        return _unfinished(view, known, note)
    ended = "" if view.state == "done" else f"{view.state.capitalize()}: "
    if not moving:
        return Answer(f"{ended}No pattern moves a byte.", "dim", note)
    if not known:
        return Answer(f"{ended or 'Done: '}no pattern was measured both alone and together.", "warn", note)
    return Answer(ended + _collisions(view, moving, known), "", note)


def _unfinished(view: TrafficView, known: Sequence[PatternLine], note: str) -> Answer:
    if not view.state:
        if not view.patterns:
            return Answer("No patterns yet: o opens a file or a session, m makes matrices from a model.", "dim")
        total = sum(row.size for row in view.patterns)
        return Answer(f"{many(len(view.patterns), 'pattern')}, {size_text(total)}: not measured yet. r runs.", "dim")
    doing = view.doing or ("Waiting for its turn." if view.state == "queued" else "Starting.")
    worst = max(known, key=lambda row: row.ratio or 0, default=None)
    if worst is not None and worst.ratio is not None:
        doing = f"{doing} · so far #{worst.number} most: ≈{ratio_text(worst.ratio)} of its time alone"
    return Answer(doing, "run", note)


def _collisions(view: TrafficView, moving: Sequence[PatternLine], known: Sequence[PatternLine]) -> str:
    slower = [row for row in known if row.collides]
    same = [row for row in known if row.same]
    open_ = len(moving) - len(slower) - len(same) - sum(1 for row in known if row.interval and row.interval.high < 1)
    parts = []
    if slower:
        worst = max(slower, key=lambda row: row.ratio or 0)
        assert worst.ratio is not None
        assert worst.interval is not None
        others = beside(view.stretches, worst.number)
        with_ = f" beside {', '.join(f'#{number}' for number in others[:4])}" if others else ""
        with_ += " …" if len(others) > 4 else ""
        text = ratio_text(worst.ratio, worst.interval.low, worst.interval.high)
        takes = "takes" if len(slower) == 1 else "take"
        parts.append(
            f"Patterns collide: {len(slower)} of {len(moving)} {takes} longer than alone, "
            f"#{worst.number} most: {text}{with_}."
        )
    elif not open_:
        parts.append(f"No collision: none of {many(len(moving), 'pattern')} takes longer than alone.")
    else:
        worst = max(known, key=lambda row: row.ratio or 0)
        parts.append(
            f"Undecided whether patterns collide: {open_} of {len(moving)} have no interval narrow enough "
            f"(#{worst.number} ≈{ratio_text(worst.ratio)}). More iterations narrow them."
        )
    if slower and open_:
        parts.append(f"Undecided: {open_}.")
    if (last := last_rank(known)) is not None:
        rank, times, of = last
        host = f", {view.hosts[rank]}" if rank < len(view.hosts) and view.hosts[rank] else ""
        parts.append(f"Last in {times} of {of} patterns: rank {rank}{host}.")
    return " ".join(parts)
