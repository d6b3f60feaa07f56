"""Physical bounds of links, from `bounds.yaml` and from this host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kvdeck.engine.host.nics import nics
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import load_yaml

_RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[GM])(?P<kind>B|b|bit)/s", re.ASCII)
_PREFIXES = {"G": 1e9, "M": 1e6}


@dataclass(frozen=True, slots=True)
class Bound:
    """What a link can carry at most, in one direction."""

    name: str
    bytes_per_s: float
    what: str
    source: str


@cache
def known_bounds() -> dict[str, Bound]:
    """Return the bounds of `bounds.yaml`, by name."""
    rows = load_yaml((Path(__file__).parent / "bounds.yaml").read_bytes())["bounds"]
    return {
        name: Bound(name, row["gb_per_s"] * 1e9, row["what"], row["source"]) for name, row in rows.items()
    }  # fmt: skip


def host_bounds(root: Path = Path("/")) -> tuple[Bound, ...]:
    """Return the bounds of this host's network interfaces that are up and state a rate."""
    return tuple(
        Bound(f"nic:{nic.name}", nic.bits_per_s / 8, f"{nic.name} of this host", "rate in /sys")
        for nic in nics(root)
        if nic.up and nic.bits_per_s
    )


def find_bound(text: str, root: Path = Path("/")) -> Bound:
    """Return the bound of a name in the table, of an interface of this host (`nic:mlx5_0:1`), or of a rate.

    Raises:
        UsageError: There is no such bound.
    """
    if found := known_bounds().get(text):
        return found
    here = {bound.name: bound for bound in host_bounds(root)}
    if found := here.get(text):
        return found
    try:
        return Bound("", parse_rate(text), "the bound given", "command line")
    except UsageError:
        raise UsageError(
            f"there is no bound {text!r}", "give a rate such as 400Gb/s, or a name from `kvdeck suite bounds`"
        ) from None


def parse_rate(text: str) -> float:
    """Return bytes per second of `46.48 GB/s`, `400Gb/s` or `307 MB/s`, all of powers of 1000.

    Raises:
        UsageError: The text is no rate above 0 with its unit. A bare number is refused: GB/s and Gb/s differ by 8.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or not float(found["number"]):
        raise UsageError(f"{text!r} is not a rate", "give it with its unit, such as 46.48GB/s or 400Gb/s")
    return float(found["number"]) * _PREFIXES[found["unit"]] / (1 if found["kind"] == "B" else 8)
