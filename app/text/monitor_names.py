"""Names of the monitor in few columns, and how long ago something was."""

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


def ago(seconds: float | None) -> str:
    """How long ago, in steps that grow: what stands still must not tick."""
    if seconds is None:
        return "not seen to move"
    if seconds < 5:
        return "moving"
    if seconds < 60:
        return f"moved {count_text(int(seconds // 5 * 5))} s ago"
    if seconds < 3600:
        return f"moved {count_text(int(seconds // 60))} min ago"
    return f"moved {count_text(int(seconds // 3600))} h ago"


def steady(reason: str) -> str:
    """A reason without its seconds that tick: an idle screen is not painted again for them."""
    return _FOR.sub(lambda found: "" if found[1].endswith(" s") and "min" not in found[1] else
                    f" (for {_ODD_SECONDS.sub('', found[1])})", reason)  # fmt: skip


def time_of_day(t: float) -> str:
    """The host's own clock."""
    return units.local_time(t, "%H:%M:%S")
