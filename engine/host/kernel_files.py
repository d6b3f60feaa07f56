"""Small files of /proc and /sys, which may be missing or unreadable."""

from __future__ import annotations

from pathlib import Path


def kernel_text(path: Path) -> str | None:
    """Return a file's text without surrounding whitespace; None if it is empty or can't be read."""
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def kernel_number(path: Path) -> int | None:
    """Return a file's whole number; None if it holds none or can't be read."""
    text = kernel_text(path)
    return int(text) if text and text.lstrip("-").isdigit() else None
