"""Terminal lag, and the pacing of frames so that they don't arrive late.

The connection from a process to a terminal over SSH buffers megabytes, so a successful write proves little. After each
frame the deck queries the cursor position, at a position unique to that query; the terminal replies once it has drawn
everything before it. One query in flight limits the data in transit to one frame.

A terminal that doesn't reply, replies late, or has a multiplexer replying in its place gets no more bytes than a slow
link drains: `ASSUMED` per second. A live screen at its usual rate stays below that and loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvdeck.sessions.units import duration_text

SLOW_S, QUICK_S = 0.3, 0.2
"""The link is slow from the first lag (in s) on, until its lag falls below the second."""
OVERDUE_S = 1.0
"""A reply is overdue after this time in s, and after twice the usual lag. While it is overdue, frames are painted at
most this often, and only if the bytes sent may have drained."""
PATIENCE_S = 10.0
"""Time in s after which a terminal that has replied before is queried again."""
FIRST_S = 5.0
"""Time in s after which a terminal that has never replied is no longer queried, unless its reply arrives later."""
ASSUMED = 20 * 1024
"""Assumed drain rate of a link in bytes/s, where none is measured."""
BACKLOG_S = 0.5
"""A frame may be painted while at most this many seconds of bytes are left to drain."""
LATE_S = 0.5
"""Time for which a frame is held, in s, from which the status bar tells it."""
LEAST_SAMPLE = 2048
"""Minimum bytes in flight for a bandwidth estimate."""
_WEIGHT = 0.5
_COLUMNS, _ROWS = 16, 8

Place = tuple[int, int]
"""Column and row of the cursor, from 0."""


def question(place: Place) -> str:
    """Return the sequence that moves the cursor to `place`, queries its position and moves it back."""
    return f"\x1b7\x1b[{place[1] + 1};{place[0] + 1}H\x1b[6n\x1b8"


def has_other_between(environ: Mapping[str, str]) -> bool:
    """True if a multiplexer (tmux, screen, Zellij) replies in the terminal's place; this reveals nothing about the
    link."""
    return bool(environ.get("TMUX") or environ.get("STY") or environ.get("ZELLIJ")) or environ.get(
        "TERM", ""
    ).startswith(("tmux", "screen"))


class TerminalLink:
    """Replies of one terminal, and the bytes sent to it. All times are seconds of one monotonic clock."""

    def __init__(self, asks: bool = True, other_between: bool = False) -> None:
        self.asks = asks
        self.other_between = other_between
        """A multiplexer replies locally: ignore latency, pace by bytes."""
        self.paces = True
        """Whether frames are delayed at all."""
        self.lag_s: float | None = None
        """Smoothed time in s from a frame to its reply: the round trip, and the data queued before it."""
        self.skipped = 0
        """Number of frames that were ready and not painted."""
        self.rate = float(ASSUMED)
        """Assumed drain rate in bytes/s."""
        self._asked: float | None = None
        self._place: Place = (0, 0)
        self._number = 0
        self._painted: float | None = None
        self._late_s = 0.0
        """Time for which the last frame was held."""
        self._held_since: float | None = None
        self._slow = False
        self._backlog, self._counted = 0.0, 0.0
        self._sent, self._sent_asked, self._sent_known = 0, 0, 0

    def wrote(self, count: int, now: float) -> None:
        """Count bytes sent to the terminal, for any purpose."""
        self._backlog = self._waiting(now) + count
        self._counted = now
        self._sent += count

    def _waiting(self, now: float) -> float:
        """Return the bytes that may not have drained yet."""
        return max(0.0, self._backlog - self.rate * (now - self._counted))

    def _drained(self, now: float) -> bool:
        return self._waiting(now) <= self.rate * BACKLOG_S

    def may_paint(self, now: float) -> bool:
        """True if the last frame has arrived, or can be assumed to have."""
        may = not self.paces or self._may(now)
        self.skipped += not may
        if not may and self._held_since is None:
            self._held_since = now
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
        """Record a painted frame.

        Returns:
            The query to send after it; empty if none is due.
        """
        self._late_s = 0.0 if self._held_since is None else now - self._held_since
        self._painted, self._held_since = now, None
        if not self.asks or self._asked is not None:
            return ""
        self._asked = now
        self._number = (self._number + 1) % (_COLUMNS * _ROWS)
        # Never in the first row: F3 with Shift, Ctrl or Alt sends the same sequence as a reply from there.
        self._place = (self._number % _COLUMNS, 1 + self._number // _COLUMNS)
        return question(self._place)

    def asked(self) -> None:
        """Record that the query was sent; its reply covers the bytes sent before it."""
        self._sent_asked = self._sent

    def answered(self, place: Place, now: float) -> None:
        """Handle a reply; one with another position doesn't belong to the query in flight and is ignored."""
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
        """Drop the query in flight: its reply went elsewhere while the deck was suspended."""
        self._asked = None

    @property
    def text(self) -> str:
        """Status bar text for a slow link, rounded so that it seldom changes; "" if the link isn't slow.

        Time without anything to paint doesn't count.
        """
        if self._slow and self.lag_s is not None:
            return f"slow link {duration_text(round(self.lag_s * 5) / 5)}"
        return f"updates {duration_text(round(self._late_s * 5) / 5)} late" if self._late_s >= LATE_S else ""
