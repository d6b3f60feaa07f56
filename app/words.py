"""How figures and names are written on a screen: fixed widths, the field's words."""

from __future__ import annotations

import re

from kvdeck.sessions.units import short_layout_name

_SLUGS = {"fc": "fully-contiguous", "ls": "layer-separate", "ls-outer": "layer-separate-outer"}


def path_slug(path: str) -> str:
    """`HostToDisk` as `host-to-disk`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", path).lower()


def layout_slug(layout: str) -> str:
    """Name of the layout's colour in a theme."""
    return _SLUGS.get(short_layout_name(layout), "mixed")


def micros(value: float | None) -> str:
    """Microseconds, four significant digits in at most seven columns; `–` where there is nothing."""
    if value is None:
        return "–"
    if value >= 1e7:
        return f"{value / 1e6:.0f}M"
    if value >= 999.95:
        return f"{value:,.0f}" if value < 1e5 else f"{value:.0f}"
    return f"{value:.1f}" if value >= 99.995 else f"{value:.2f}" if value >= 9.9995 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A fraction as a whole percentage."""
    return "–" if value is None else f"{value * 100:.0f} %"


def clock(seconds: float | None) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    if seconds is None:
        return "–:––"
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def interval(ratio: float | None, low: float | None, high: float | None) -> str:
    """A ratio with its interval: `1.31 [1.28 1.35]`."""
    if ratio is None:
        return "–"
    if low is None or high is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} [{low:.2f} {high:.2f}]"
