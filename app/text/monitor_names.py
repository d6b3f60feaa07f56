"""Short names of sources and flows for the monitor, and texts for ages and times."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from kvdeck.sessions import units
from kvdeck.sessions.units import count_text

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WHO = {"kvbm ": "KVBM ", "vllm offload ": "vLLM ", "vllm tiering ": "vLLM ", "vllm ": "vLLM ", "nixl ": "NIXL "}
_FOR = re.compile(r" \(for ([^()]+)\)$")
_ODD_SECONDS = re.compile(r"(?<=min) \d+ s$")


@lru_cache(maxsize=1024)
def source_name(name: str) -> str:
    """Return a short source name.

    It is `:8000` for an endpoint on this host, `host:8000` on another, the last part of a path, or `name` unchanged.
    """
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
    """Return a flow's name without the words that its arrow repeats: `kvbm offload_blocks_d2h` is `KVBM d2h`."""
    name = flow.replace("offload_blocks_", "").replace("onboard_blocks_", "")
    return next((new + name[len(old) :] for old, new in _WHO.items() if name.startswith(old)), name)


def ago(seconds: float | None) -> str:
    """Return when a flow last moved, from its age in seconds (None: it has not moved).

    The steps are coarse (5 s, 1 min, 1 h), so that an idle screen is rarely redrawn.
    """
    if seconds is None:
        return "no change yet"
    if seconds < 5:
        return "changing"
    if seconds < 60:
        return f"changed {count_text(int(seconds // 5 * 5))} s ago"
    if seconds < 3600:
        return f"changed {count_text(int(seconds // 60))} min ago"
    return f"changed {count_text(int(seconds // 3600))} h ago"


def age_text(seconds: float) -> str:
    """Return the age of a value whose source doesn't answer: `12 s old` in steps of 1 s, 10 s from 20 s on, 1 min."""
    if seconds < 60:
        return f"{count_text(int(seconds if seconds < 20 else seconds // 10 * 10))} s old"
    return f"{count_text(int(seconds // 60))} min old"


def steady(reason: str) -> str:
    """Return a source's reason without the seconds of its age, so that an idle screen isn't redrawn each second."""
    return _FOR.sub(lambda found: "" if found[1].endswith(" s") and "min" not in found[1] else
                    f" (for {_ODD_SECONDS.sub('', found[1])})", reason)  # fmt: skip


def time_of_day(t: float) -> str:
    """Return a Unix time as HH:MM:SS in this host's time zone."""
    return units.local_time(t, "%H:%M:%S")
