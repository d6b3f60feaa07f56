"""Formatting of all numbers shown to a person.

Byte amounts are 1024-based (`2 MiB`), rates are 1000-based (`1.23 GB/s`), counts have thousands separators (`36,864`),
measured figures have three significant digits. No text has an exponent or a negative zero, a figure that rounds up to
the next unit is written in that unit, and unknown values are a dash, never 0.
"""

from __future__ import annotations

import math
import time
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Interval

UNKNOWN = "–"
_SIZES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_MOST = 10**15
"""Unprefixed numbers from here on are shown as "larger than"."""
_SCALED_FROM = 10**6
"""Counts below it are exact; larger ones have three digits and a prefix. Both fit in seven columns."""
_LONGEST_S = 10**10


def local_time(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Format a Unix time in the local time zone, by `strftime`; `–` if out of range."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "–"


def figure(value: float | None) -> str:
    """Format with three significant digits and no exponent: `0.0123`, `1.23`, `12.3`, `123`, `12,345`; `–` for None."""
    odd = _odd(value)
    if odd is not None or value is None:
        return odd or UNKNOWN
    if value < 0:
        return _minus(figure(-value))
    if value == 0:
        return "0"
    if value >= _MOST:
        return f">{_MOST - 1:,}"
    if value < 5e-7:
        return "<0.000001"
    # From the rounded text: 9.996 has three digits as 10.0, which a logarithm would miss.
    exponent = int(f"{value:.2e}"[5:])
    return f"{value:,.0f}" if exponent >= 2 else f"{value:.{min(6, 2 - exponent)}f}"


def number_text(value: float | None) -> str:
    """Format an exact number without trailing zeros: `2`, `0.5`, `12.3`, `1,234`."""
    return _trimmed(figure(value))


def count_text(value: float | None) -> str:
    """Format a count, exact below a million, then with a prefix: `0.5`, `36,864`, `1.23M`; `–` for None."""
    odd = _odd(value)
    if odd is not None or value is None:
        return odd or UNKNOWN
    if value < 0:
        return _minus(count_text(-value))
    if value < 99.5 and value != int(value):
        return number_text(value)
    whole = round(value)
    return f"{whole:,}" if whole < _SCALED_FROM else _prefixed(float(value))


def many(count: float, noun: str) -> str:
    """Format a count with its noun, plural `s` unless 1: `1 source`, `1,024 tokens`."""
    return f"{count_text(count)} {noun}" + ("" if count == 1 else "s")


def time_text(us: float | None) -> str:
    """Format µs in a suitable unit: `812 ns`, `14.1 µs`, `3.21 ms`, `1.20 s`; `–` for None."""
    odd = _odd(us)
    if odd is not None or us is None:
        return odd or UNKNOWN
    if us < 0:
        return _minus(time_text(-us))
    if us < 0.9995:
        return f"{number_text(us * 1e3)} ns"
    if us < 999.5:
        return f"{figure(us)} µs"
    if us < 999_500:
        return f"{figure(us / 1e3)} ms"
    return f"{figure(us / 1e6)} s" if us < 59_950_000 else duration_text(us / 1e6)


def seconds_text(seconds: float | None) -> str:
    """Format seconds as `time_text` does: `12.3 µs`, `1.20 ms`, `3.40 s`."""
    return time_text(None if seconds is None else seconds * 1e6)


def size_text(size: float | None) -> str:
    """Format bytes in a 1024-based unit, at most three digits: `512 B`, `576 KiB`, `2 MiB`, `22.5 GiB`; `–` for None.

    Trailing zeros mark a rounded value: `2 MiB` is exact, `2.00 MiB` is not.
    """
    odd = _odd(size)
    if odd is not None or size is None:
        return odd or UNKNOWN
    if size < 0:
        return _minus(size_text(-size))
    if size < 1023.5:
        return f"{number_text(size)} B"
    scaled = size / 1024
    for unit in _SIZES:
        if scaled < 999.5:
            text = figure(scaled)
            return f"{_trimmed(text) if float(text) == scaled else text} {unit}"
        scaled /= 1024
    return f">999 {_SIZES[-1]}"


def exact_size_text(size: float) -> str:
    """Format exact bytes, with the short form if it is shorter: `2,097,152 B = 2 MiB`, `1,124,352 B ≈ 1.07 MiB`."""
    if size < 1024 or size != int(size):
        return size_text(size)
    size = int(size)
    short = size_text(size)
    number, _, unit = short.partition(" ")
    exact = unit in _SIZES and Decimal(number) * 1024 ** (_SIZES.index(unit) + 1) == size
    return f"{size:,} B {'=' if exact else '≈'} {short}"


def shape_text(block_bytes: int, batch: int | None) -> str:
    """Format block size in bytes and blocks per request: `2 MiB × 16`."""
    return f"{size_text(block_bytes)} × {count_text(batch)}"


def rate_text(bytes_per_s: float | None) -> str:
    """Format a rate in B/s with decimal prefixes: `512 B/s`, `1.00 kB/s`, `1.23 GB/s`; `–` for None."""
    return _decimal(bytes_per_s, "B/s")


def moved_text(size: float | None) -> str:
    """Format bytes that were moved as `rate_text` does, with decimal prefixes: `512 B`, `1.23 GB`; `–` for None."""
    return _decimal(size, "B")


def rate_interval_text(median: float, low: float, high: float, unit: str) -> str:
    """Format a median rate and its interval in the median's unit: `1.23 (1.20–1.31) GB/s`, `12.3 (11–13) blocks/s`."""
    prefix, factor = "", 1.0
    if unit == "B/s":
        place = next((i for i in range(len(_PREFIXES)) if abs(median) < 999.5 * 1000**i), len(_PREFIXES) - 1)
        prefix, factor = _PREFIXES[place], 1000.0**place
    return f"{figure(median / factor)} ({figure(low / factor)}–{figure(high / factor)}) {prefix}{unit}"


def percent_text(fraction: float | None) -> str:
    """Format a fraction as percent, at most one decimal: `0 %`, `<0.1 %`, `5.3 %`, `64 %`, `100 %`; `–` for None."""
    odd = _odd(fraction)
    if odd is not None or fraction is None:
        return odd or UNKNOWN
    if fraction < 0:
        return _minus(percent_text(-fraction))
    percent = abs(fraction * 100)
    if 0 < percent < 0.05:
        return "<0.1 %"
    return f"{_trimmed(f'{percent:.1f}') if percent < 99.95 else figure(percent)} %"


def done_text(fraction: float | None) -> str:
    """Format progress (0 to 1) in whole percent; `100 %` only when complete: `99 %`."""
    odd = _odd(fraction)
    if odd is not None or fraction is None:
        return odd or UNKNOWN
    return f"{int(max(0.0, min(1.0, fraction)) * 100 + 1e-9)} %"


def change_text(percent: float | None) -> str:
    """Format a change in percent with its sign: `+4.2 %`, `-12.3 %`, `0 %`; `new` for None (a change from zero)."""
    if percent is None:
        return "new"
    text = "0 %" if abs(percent) < 0.05 else percent_text(percent / 100)
    return text if text == "0 %" else f"+{text}" if percent > 0 else text


def ratio_figure(ratio: float | None) -> str:
    """Format a ratio without `×`, two decimals near 1: `0.98`, `1.31`, `12.3`, `0.0123`; `–` for None."""
    odd = _odd(ratio)
    if odd is not None or ratio is None:
        return odd or UNKNOWN
    return f"{ratio:.2f}" if 0.0995 <= ratio < 9.995 else figure(ratio)


def ratio_text(ratio: float | None, low: float | None = None, high: float | None = None) -> str:
    """Format a ratio, with its interval if given: `1.31×`, `1.31× (1.28–1.35)`; `–` for None."""
    if _odd(ratio) == UNKNOWN:
        return UNKNOWN
    if low is None or high is None:
        return f"{ratio_figure(ratio)}×"
    return f"{ratio_figure(ratio)}× ({range_text(low, high)})"


def range_text(low: float | None, high: float | None) -> str:
    """Format the interval of a ratio: `1.28–1.35`; `–` if a bound is None."""
    return UNKNOWN if low is None or high is None else f"{ratio_figure(low)}–{ratio_figure(high)}"


def interval_text(interval: Interval | None) -> str:
    """Format a median with its interval if known: `10.4 (10.2–10.6)`; `–` for None."""
    if interval is None:
        return UNKNOWN
    return bounded_text(interval.median, *((interval.low, interval.high) if interval.known else (None, None)))


def bounded_text(value: float | None, low: float | None, high: float | None) -> str:
    """Format a figure with its bounds if both are given: `10.4 (10.2–10.6)`; `–` for None."""
    if value is None or low is None or high is None:
        return figure(value)
    return f"{figure(value)} ({figure(low)}–{figure(high)})"


def quantity_text(value: float | None, unit: str) -> str:
    """Format a source's number by its unit: bytes, rates, seconds and ratios as above, others as counts.

    Args:
        value: None if unknown.
        unit: `B`, `bytes`, `B/s`, `bytes/s`, `s`, `ratio`, `%` (also a fraction), or any other word.
    """
    if value is None:
        return UNKNOWN
    if unit in ("ratio", "%"):
        return percent_text(value)
    if unit in ("B", "bytes"):
        return size_text(value)
    if unit in ("B/s", "bytes/s"):
        return rate_text(value)
    return seconds_text(value) if unit == "s" else f"{count_text(value)} {unit}".rstrip()


def duration_text(seconds: float | None) -> str:
    """Format a duration in seconds: `8.4 s`, `48 s`, `3 min 05 s`, `2 h 10 min`; `–` for None."""
    odd = _odd(seconds)
    if odd is not None or seconds is None:
        return odd or UNKNOWN
    if seconds < 0:
        return _minus(duration_text(-seconds))
    if seconds > _LONGEST_S:
        return f">{_LONGEST_S // 3600:,} h"
    if seconds < 9.95:
        return f"{_trimmed(f'{abs(seconds):.1f}')} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def clock_text(seconds: float | None) -> str:
    """Format running seconds as `m:ss`, or `h:mm:ss` from an hour on; `–:––` for None."""
    odd = _odd(seconds)
    if odd is not None or seconds is None:
        return "–:––"
    whole = max(0, min(_LONGEST_S, round(seconds)))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours:,}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def plain_text(value: float | None, decimals: int | None = None) -> str:
    """Format a number for CSV or TSV: no thousands separators, no exponent; empty for None and non-finite values.

    Args:
        value: An integer is written in full.
        decimals: Decimals of a float; None for six significant digits.
    """
    if value is None or not math.isfinite(value):
        return ""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{decimals}f}" if decimals is not None else format(Decimal(f"{value:.6g}"), "f")
    return text.removeprefix("-") if not text.strip("-0.") else text


def _odd(value: float | None) -> str | None:
    """Return the text for a missing or non-finite number; None for a finite one."""
    if value is None:
        return UNKNOWN
    try:
        if math.isfinite(value):
            return None
    except OverflowError:  # an integer too large for a float
        return "∞" if value > 0 else "-∞"
    return UNKNOWN if math.isnan(value) else "∞" if value > 0 else "-∞"


def _minus(text: str) -> str:
    """Negate a number's text, avoiding a negative zero."""
    if text.startswith("<"):
        return f">-{text[1:]}"
    if text.startswith(">"):
        return f"<-{text[1:]}"
    return f"-{text}" if text.partition(" ")[0].strip("0.") else text


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _prefixed(value: float) -> str:
    """Format with three digits and a decimal prefix."""
    for prefix in _PREFIXES:
        if value < 999.5:
            return f"{figure(value)}{prefix}"
        value /= 1000
    return f">999{_PREFIXES[-1]}"


def _decimal(value: float | None, unit: str) -> str:
    odd = _odd(value)
    if odd is not None or value is None:
        return odd or UNKNOWN
    if value < 0:
        return _minus(_decimal(-value, unit))
    if value < 999.5:
        return f"{number_text(value)} {unit}"
    text = _prefixed(value)
    return f"{text.rstrip('kMGTPE')} {text[-1]}{unit}"


def layout_name(text: str) -> str:
    """Return a layout's text, short enough for a column: `LayerSeparate outer`, `ls -> fc`."""
    return short_layout_name(text) if "->" in text else _named(text)


def short_layout_name(text: str) -> str:
    """Return a layout's shortest form, as `--layout` accepts it: `fc`, `ls-outer`, `ls -> fc`."""
    return " -> ".join(_SHORT.get(_named(side), side.strip()) for side in text.split("->"))


_SHORT = {"FullyContiguous": "fc", "LayerSeparate": "ls", "LayerSeparate outer": "ls-outer"}


def _named(text: str) -> str:
    squeezed = "".join(text.split())
    if squeezed.startswith("LayerSeparate{"):
        return "LayerSeparate outer" if squeezed.endswith(":true}") else "LayerSeparate"
    return text.strip()
