"""Names and figures of the monitor in few columns, and of steady width."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from urllib.parse import urlsplit

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WHO = {"kvbm ": "KVBM ", "vllm offload ": "vLLM ", "vllm tiering ": "vLLM ", "vllm ": "vLLM ", "nixl ": "NIXL "}
_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_FOR = re.compile(r" \(for (\d+) s\)$")
UNKNOWN = "–"


@lru_cache(maxsize=1024)
def source_name(name: str) -> str:
    """`:8000` for this host's endpoint, `host:8000` for another's, the last part of a path; else as it is."""
    if name.startswith(("http://", "https://")):
        try:
            parts = urlsplit(name)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return name
        host = "" if parts.hostname in _LOOPBACK and port else parts.hostname or ""
        return f"{host}{port}" + ("" if parts.path in ("", "/", "/metrics") else parts.path)
    return name.rpartition("/")[2] or name


@lru_cache(maxsize=1024)
def short(flow: str) -> str:
    """A flow's name without what its arrow says: `kvbm offload_blocks_d2h` is `KVBM d2h`."""
    name = flow.replace("offload_blocks_", "").replace("onboard_blocks_", "")
    return next((new + name[len(old) :] for old, new in _WHO.items() if name.startswith(old)), name)


def three(value: float) -> str:
    """Three significant digits, never with an exponent: `1.23`, `12.3`, `123`."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value >= 0.005 or value == 0 else "<0.01"


def scaled(value: float, unit: str) -> str:
    """`1.23 GB/s`: decimal prefixes, three digits."""
    size = abs(value)
    for step, prefix in _STEPS:
        if size >= step * 0.9995:
            return f"{three(value / step)} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def counted(value: float, unit: str = "") -> str:
    """`36,864` up to five digits, then `1.23M`."""
    size = abs(value)
    if size < 1e5:
        text = f"{value:,.0f}" if size >= 99.95 or value == int(value) else three(value)
    else:
        step, prefix = next((step, prefix) for step, prefix in _STEPS if size >= step * 0.9995)
        text = f"{three(value / step)}{prefix}"
    return f"{text} {unit}".rstrip()


def quantity(value: float | None, unit: str) -> str:
    """A number in its unit; a dash where it is not known."""
    if value is None:
        return UNKNOWN
    if unit in ("ratio", "%"):
        return f"{value * 100:.1f} %"
    if unit in ("B", "B/s"):
        return scaled(value, unit)
    if unit in ("bytes", "bytes/s"):
        return scaled(value, unit.replace("bytes", "B"))
    return duration(value) if unit == "s" else counted(value, unit)


def duration(seconds: float | None) -> str:
    """`12.3 µs`, `1.20 ms`, `3.40 s`."""
    if seconds is None:
        return UNKNOWN
    for step, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= step * 0.9995:
            return f"{three(seconds / step)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def ago(seconds: float | None) -> str:
    """How long ago, in steps that grow: what stands still must not tick."""
    if seconds is None:
        return "not seen to move"
    if seconds < 5:
        return "moving"
    if seconds < 60:
        return f"moved {int(seconds // 5 * 5)} s ago"
    if seconds < 3600:
        return f"moved {int(seconds // 60)} min ago"
    return f"moved {int(seconds // 3600)} h ago"


def steady(reason: str) -> str:
    """A reason without its seconds that tick: an idle screen is not painted again for them."""
    return _FOR.sub(lambda found: "" if int(found[1]) < 60 else f" (for {int(found[1]) // 60} min)", reason)


def time_of_day(t: float) -> str:
    """The host's own clock."""
    return time.strftime("%H:%M:%S", time.localtime(t))
