"""How messages name a rank on another host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def described(rank: int, who: Mapping[str, Any]) -> str:
    """Return how messages name a rank: its number, host and process."""
    host = f" on {who['host']} (process {who.get('pid', '?')})" if "host" in who else ""
    return f"rank {rank}{host}"


def since(who: Mapping[str, Any]) -> str:
    """Return when a rank began, by its host's clock."""
    at = who.get("at")
    return f"since {time.strftime('%H:%M:%S', time.localtime(at))}" if isinstance(at, int | float) else "of unknown age"
