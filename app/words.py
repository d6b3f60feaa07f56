"""How figures and names are written on a screen: fixed widths, the field's words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvdeck.sessions.records import Comparison

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def path_slug(path: str) -> str:
    """`HostToDisk` as `host-to-disk`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", path).lower()


def short_layout(layout: str) -> str:
    """`FC`, `LS`, `LS-outer`, or `LS→FC` where source and destination differ."""
    sides = [_short_side(side) for side in layout.split(" -> ")]
    return "→".join(sides)


def _short_side(side: str) -> str:
    if side.startswith("Fully"):
        return "FC"
    return "LS-outer" if "true" in side else "LS"


def long_layout(layout: str) -> str:
    """The layout in at most 15 columns: its name, or the short ones where source and destination differ."""
    names = {"FC": "FullyContiguous", "LS": "LayerSeparate", "LS-outer": "LayerSep. outer"}
    short = short_layout(layout)
    return names.get(short, short)


def layout_slug(layout: str) -> str:
    """Name of the layout's colour in a theme."""
    short = short_layout(layout)
    return {"FC": "fully-contiguous", "LS": "layer-separate", "LS-outer": "layer-separate-outer"}.get(short, "mixed")


def binary(size: int) -> str:
    """Bytes in the largest 1024-based unit that keeps at most one decimal: `32 KiB`, `1.5 MiB`."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}".removesuffix(".0") + f" {_BINARY[unit]}"


def figure(value: float | None) -> str:
    """Four significant digits in at most seven columns; `–` where there is nothing."""
    if value is None:
        return "–"
    if value >= 1e7:
        return f"{value / 1e6:.0f}M"
    if value >= 999.95:
        return f"{value:,.0f}" if value < 1e5 else f"{value:.0f}"
    return f"{value:.1f}" if value >= 99.995 else f"{value:.2f}" if value >= 9.9995 else f"{value:.3f}"


def fixed(value: float | None, digits: int = 2) -> str:
    """A figure with so many decimals; `–` where there is nothing."""
    return "–" if value is None else f"{value:.{digits}f}"


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


def verdict(comparison: Comparison, name: Callable[[str], str] = long_layout) -> str:
    """A comparison in words: `LayerSeparate is slower than FullyContiguous: 1.31 × the time [1.28 1.35]`."""
    said = {"faster": "is faster than", "slower": "is slower than"}.get(comparison.verdict, "makes no difference to")
    return (
        f"{name(comparison.candidate)} {said} {name(comparison.baseline)}: "
        f"{comparison.ratio:.2f} × the time [{comparison.low:.2f} {comparison.high:.2f}]"
    )
