"""How far the terminal lags behind: it is asked where its cursor is after a picture, and answers once it has drawn it.

What lies between a process and a terminal over SSH buffers megabytes, so a write that goes through says little. One
question in flight bounds what is under way to one picture.
"""

from __future__ import annotations

QUESTION = "\x1b[6n"
SLOW_S, QUICK_S = 0.3, 0.2
"""From the first lag on the link is called slow, and below the second no more."""
PATIENCE_S = 10.0
"""A terminal that has answered before gets so long for the next answer."""
FIRST_S = 5.0
"""One that never has is not waited for after so long, unless it answers in the end."""
_WEIGHT = 0.5


class Link:
    """The state of one terminal's answers; times are seconds of one monotonic clock."""

    def __init__(self, asks: bool = True) -> None:
        self.asks = asks
        self.lag_s: float | None = None
        """Smoothed time from a picture to its answer: the round trip, and what waits before it."""
        self.skipped = 0
        """Pictures that were ready and not painted."""
        self._asked: float | None = None
        self._painted: float | None = None
        self._period_s: float | None = None
        self._slow = False

    def may_paint(self, now: float) -> bool:
        """Whether the last picture has arrived, or its answer has been waited for long enough."""
        if self._asked is None:
            return True
        waited = now - self._asked
        if self.lag_s is None and waited > FIRST_S:
            self.asks = False
            return True
        if waited > PATIENCE_S:
            self._asked = None
            return True
        self.skipped += 1
        return False

    def painted(self, now: float) -> bool:
        """Note a picture; whether the terminal is to be asked after it."""
        if self._painted is not None:
            self._period_s = now - self._painted
        self._painted = now
        if not self.asks or self._asked is not None:
            return False
        self._asked = now
        return True

    def answered(self, now: float) -> None:
        """Take the terminal's answer."""
        if self._asked is None:
            return
        lag, self._asked, self.asks = now - self._asked, None, True
        self.lag_s = lag if self.lag_s is None else self.lag_s + _WEIGHT * (lag - self.lag_s)
        self._slow = self.lag_s >= (QUICK_S if self._slow else SLOW_S)

    def forget(self) -> None:
        """Wait for no answer: it went elsewhere while the deck was suspended."""
        self._asked = None

    @property
    def text(self) -> str:
        """What the header says of a slow link, in few different words so that it seldom changes; else nothing."""
        if self.lag_s is None or not self._slow:
            return ""
        hz = f", {1 / self._period_s:.1f} Hz" if self._period_s and self._period_s > 0.6 else ""
        return f"slow link {round(self.lag_s * 5) / 5:.1f} s{hz}"
