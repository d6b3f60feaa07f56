"""How far the terminal lags behind, and when the next picture may be drawn so that it doesn't arrive old.

What lies between a process and a terminal over SSH buffers megabytes, so a write that goes through says little. After a
picture the terminal is asked where its cursor is, in a place of that question's own; it answers once it has drawn all
before it. One question in flight bounds what is under way to one picture.

A terminal that doesn't answer, answers late, or has a multiplexer answering in its place is given no more bytes than a
poor link drains: `ASSUMED` a second. A live screen at its usual rate stays below that and loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvdeck.sessions.units import duration_text, number_text

SLOW_S, QUICK_S = 0.3, 0.2
"""From the first lag on the link is called slow, and below the second no more."""
OVERDUE_S = 1.0
"""An answer that takes longer, and longer than twice the usual lag, is not waited for any more: a picture goes out as
often as that, as far as the bytes that were sent may have been drained."""
PATIENCE_S = 10.0
"""A terminal that has answered before gets so long until it is asked again."""
FIRST_S = 5.0
"""One that never has is not asked any more after so long, unless it answers in the end."""
ASSUMED = 20 * 1024
"""Bytes a second that a link is taken to drain where nothing says how many."""
BACKLOG_S = 0.5
"""So much may still wait to be drained when the next picture is drawn."""
LEAST_SAMPLE = 2048
"""From so many bytes under way on, a lag says something of the rate."""
_WEIGHT = 0.5
_COLUMNS, _ROWS = 16, 8

Place = tuple[int, int]
"""Column and row of the cursor, from 0."""


def question(place: Place) -> str:
    """The sequence that asks where the cursor is, in a place it is sent to and comes back from."""
    return f"\x1b7\x1b[{place[1] + 1};{place[0] + 1}H\x1b[6n\x1b8"


def has_other_between(environ: Mapping[str, str]) -> bool:
    """Whether a multiplexer answers in the terminal's place: it says nothing of the link behind it."""
    return bool(environ.get("TMUX") or environ.get("STY") or environ.get("ZELLIJ")) or environ.get(
        "TERM", ""
    ).startswith(("tmux", "screen"))


class Link:
    """The state of one terminal's answers, and of the bytes it was sent; times are seconds of one monotonic clock."""

    def __init__(self, asks: bool = True, other_between: bool = False) -> None:
        self.asks = asks
        self.other_between = other_between
        """Answers come from nearby; bytes are counted all the same."""
        self.paces = True
        """Whether pictures wait for anything at all."""
        self.lag_s: float | None = None
        """Smoothed time from a picture to its answer: the round trip, and what waits before it."""
        self.skipped = 0
        """Pictures that were ready and not painted."""
        self.rate = float(ASSUMED)
        """Bytes a second that are taken to be drained."""
        self._asked: float | None = None
        self._place: Place = (0, 0)
        self._number = 0
        self._painted: float | None = None
        self._period_s: float | None = None
        self._slow = False
        self._backlog, self._counted = 0.0, 0.0
        self._sent, self._sent_asked, self._sent_known = 0, 0, 0
        self._held = self._lowered = False

    def wrote(self, count: int, now: float) -> None:
        """Note bytes that went to the terminal, whatever they were for."""
        self._backlog = self._waiting(now) + count
        self._counted = now
        self._sent += count

    def _waiting(self, now: float) -> float:
        """Bytes that may not have been drained yet."""
        return max(0.0, self._backlog - self.rate * (now - self._counted))

    def _drained(self, now: float) -> bool:
        if self._waiting(now) <= self.rate * BACKLOG_S:
            return True
        self._held = True
        return False

    def may_paint(self, now: float) -> bool:
        """Whether the last picture has arrived, or may be taken to have."""
        may = not self.paces or self._may(now)
        self.skipped += not may
        return may

    def _may(self, now: float) -> bool:
        if self._asked is None:
            return self._drained(now) if self.other_between or not self.asks else True
        waited = now - self._asked
        if self.lag_s is None:
            self.asks = waited <= FIRST_S
            if not self.asks:
                return self._drained(now)
        elif waited > PATIENCE_S:
            self._asked = None
        overdue = waited > max(OVERDUE_S, 2 * (self.lag_s or 0.0))
        return overdue and now - (self._painted or 0.0) >= OVERDUE_S and self._drained(now)

    def painted(self, now: float) -> str:
        """Note a picture.

        Returns:
            The question to send after it; nothing where none is to be asked.
        """
        if self._painted is not None:
            self._period_s = now - self._painted
        self._painted = now
        self._lowered, self._held = self._held, False
        if not self.asks or self._asked is not None:
            return ""
        self._asked = now
        self._number = (self._number + 1) % (_COLUMNS * _ROWS)
        # Never in the first row: F3 with shift, ctrl or alt sends what an answer from there would be.
        self._place = (self._number % _COLUMNS, 1 + self._number // _COLUMNS)
        return question(self._place)

    def asked(self) -> None:
        """Note that the question has been sent: what was sent before it is what its answer is about."""
        self._sent_asked = self._sent

    def answered(self, place: Place, now: float) -> None:
        """Take an answer; one that names another place was not meant for the question in flight."""
        if self._asked is None or place != self._place:
            return
        lag, self._asked, self.asks = now - self._asked, None, True
        under_way, self._sent_known = self._sent_asked - self._sent_known, self._sent_asked
        if not self.other_between:
            self._backlog, self._counted = float(self._sent - self._sent_asked), now
            if under_way >= LEAST_SAMPLE:
                self.rate = min(ASSUMED, under_way / max(lag, 1e-3))
        self.lag_s = lag if self.lag_s is None else self.lag_s + _WEIGHT * (lag - self.lag_s)
        self._slow = self.lag_s >= (QUICK_S if self._slow else SLOW_S)

    def forget(self) -> None:
        """Wait for no answer: it went elsewhere while the deck was suspended."""
        self._asked = None

    @property
    def text(self) -> str:
        """What the header says of a slow link, in few different words so that it seldom changes; else nothing."""
        hz = f", {number_text(1 / self._period_s)} Hz" if self._period_s and self._period_s > 0.6 else ""
        if self._slow and self.lag_s is not None:
            return f"slow link {duration_text(round(self.lag_s * 5) / 5)}{hz}"
        return f"silent link{hz}" if self._lowered and hz else ""
