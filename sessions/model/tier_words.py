"""Tiers by the words with which exporters name them, in labels such as `1:fs`, `host` or `storage_file`."""

from __future__ import annotations

from typing import Literal

Tier = Literal["G1", "G2", "G3", "G4", "remote"]
_WORDS: tuple[tuple[str, Tier], ...] = (
    ("gpu", "G1"),
    ("device", "G1"),
    ("cpu", "G2"),
    ("host", "G2"),
    ("primary", "G2"),
    ("fs", "G3"),
    ("file", "G3"),
    ("disk", "G3"),
    ("nvme", "G3"),
    ("storage", "G3"),
    ("obj", "G4"),
    ("s3", "G4"),
    ("p2p", "remote"),
    ("remote", "remote"),
)
"""Tier by the start of the word. vLLM's primary tier is host memory, above the tiers that it reads and writes."""


def tier_of(label: str) -> Tier | None:
    """Return the tier that a label's value names, without the number before a colon; None if it isn't known."""
    word = label.rpartition(":")[2].lower()
    tier = next((tier for start, tier in _WORDS if word.startswith(start)), None)
    if tier is None and "filesystem" in word:  # a custom tier manager is labelled with its class name
        return "G3"
    return tier
