"""Host pane: traffic of this host's devices, as a share of their limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdeck.app.tui.modes.monitor.device_figures import Link, Way, links, worth_showing
from kvdeck.app.tui.modes.monitor.panes.panel import Panel, said
from kvdeck.app.tui.widgets.lines import Row, Span, cell
from kvdeck.sessions.units import count_text, percent_text, plain_text, rate_text

if TYPE_CHECKING:
    from kvdeck.app.tui.export import Table

NAME = 13
WIDE = 70
_EIGHTHS = " ▏▎▍▌▋▊▉"
FULL, BUSY = 0.9, 0.7


class Host(Panel):
    """One row per device: in, out and limit, with a bar if the limit is known."""

    title = "This host"

    def note(self) -> str:
        return "in · out · limit" if self.size.width >= WIDE else "in · out · % of line rate"

    def body(self, width: int, height: int) -> list[Row]:
        every = links(self.view.moment)
        shown = worth_showing(every)
        rows = [_row(link, width) for link in shown]
        if len(shown) < len(every):
            rows.append(said(f"{count_text(len(every) - len(shown))} idle, not shown", width))
        return rows or [said("No host counters selected · s selects sources", width)]

    def table(self) -> Table:
        from kvdeck.app.tui.export import Table

        rows = tuple(
            (link.kind, link.device, *(_bytes(value) for value in (link.into.per_s, link.out.per_s, link.limit)))
            for link in links(self.view.moment)
        )
        return Table("host", ("kind", "device", "in_bytes_per_s", "out_bytes_per_s", "limit_bytes_per_s"), rows)


def _bytes(value: float | None) -> str:
    return plain_text(value, 0)


def _row(link: Link, width: int) -> Row:
    last = 11 if width >= WIDE else 0
    each = (width - NAME - last) // 2
    limit = rate_text(link.limit or None)
    return (
        cell(f" {link.kind} {link.device}", width - 2 * each - last),
        *_way(link.into, each),
        *_way(link.out, each),
        cell(limit, last, "dim", right=True),
    )


def _way(way: Way, width: int) -> list[Span]:
    """Return the spans of a rate and of its share of the limit as a bar, `width` columns in all."""
    text = rate_text(way.per_s)
    share, room = way.share, width - 12
    spans = [cell(text, 10, "" if way.per_s else "dim", right=True), (" ", "")]
    if room <= 0 or share is None:
        return [*spans, (" " * max(0, room + 1), "")]
    tone = "bad" if share >= FULL else "warn" if share >= BUSY else "ok"
    percent = percent_text(share).rjust(7) if room >= 12 else ""
    cells = room - len(percent)
    filled = share_bar(share, cells)
    spans += [(filled, tone), ("░" * (cells - len(filled)), "rule")]
    return [*spans, cell(percent, len(percent) + 1, tone if share >= BUSY else "dim")]


def share_bar(share: float, width: int) -> str:
    """Return a bar in eighths of a column for a share of 0 to 1; at least one eighth for shares above 0.001."""
    eighths = round(min(1.0, share) * width * 8)
    if share > 0.001:
        eighths = max(1, eighths)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
