"""How figures are spelled: three significant digits, units that are said, GB = 1e9 and GiB = 2^30."""

from __future__ import annotations

from kvdeck.sessions.records import Interval

_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def figure(value: float | None) -> str:
    """Three significant digits without an exponent: `0.0123`, `1.23`, `12.3`, `123`, `12345`; `–` for null."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    magnitude = abs(value)
    decimals = 0
    while magnitude < 99.95 and decimals < 6:
        magnitude *= 10
        decimals += 1
    text = f"{value:.{decimals}f}"
    return text if float(text) else f"{value:.1e}"


def time_text(us: float | None) -> str:
    """Microseconds in the unit that suits them: `812 ns`, `14.1 µs`, `3.21 ms`, `1.20 s`; `–` for null."""
    if us is None:
        return "–"
    if us < 0.9995:
        return f"{us * 1e3:.0f} ns"
    if us < 999.5:
        return f"{figure(us)} µs"
    if us < 999_500:
        return f"{figure(us / 1e3)} ms"
    return f"{figure(us / 1e6)} s"


def size_text(size: int) -> str:
    """Bytes as a whole number of a 1024-based unit where that is short, else with two decimals: `576 KiB`."""
    for factor, unit in _SIZES:
        if size >= factor and size % factor == 0 and size // factor < 10_000:
            return f"{size // factor} {unit}"
    for factor, unit in _SIZES:
        if size >= 100 * factor or (size >= factor and factor > 1 << 10):
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"


def interval_text(interval: Interval | None) -> str:
    """A median with its interval: `10.4 (10.2–10.6)`; a single figure has none, and null is `–`."""
    if interval is None:
        return "–"
    if not interval.known:
        return figure(interval.median)
    return f"{figure(interval.median)} ({figure(interval.low)}–{figure(interval.high)})"


def duration_text(seconds: float) -> str:
    """A span an operator waits for: `8.4 s`, `48 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def layout_name(text: str) -> str:
    """A layout's text, short enough for a column: `LayerSeparate outer`, `ls -> fc`."""
    return short_layout_name(text) if "->" in text else _named(text)


def short_layout_name(text: str) -> str:
    """A layout's shortest spelling, as `--layout` takes it: `fc`, `ls-outer`, `ls -> fc`."""
    return " -> ".join(_SHORT.get(_named(side), side.strip()) for side in text.split("->"))


_SHORT = {"FullyContiguous": "fc", "LayerSeparate": "ls", "LayerSeparate outer": "ls-outer"}


def _named(text: str) -> str:
    squeezed = "".join(text.split())
    if squeezed.startswith("LayerSeparate{"):
        return "LayerSeparate outer" if squeezed.endswith(":true}") else "LayerSeparate"
    return text.strip()
