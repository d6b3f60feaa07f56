"""Kinds of memory pages that a step was measured with, from the settings of its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pages_said(settings: Mapping[str, Any]) -> str:
    """Return the kinds of pages that were found; of older results, that huge pages were asked for; else empty."""
    pages = settings.get("pages")
    if isinstance(pages, list):
        return " and ".join(map(str, pages))
    return "huge pages, not checked" if settings.get("huge_pages") else ""


def pages_kind(settings: Mapping[str, Any]) -> str:
    """Return the kind of pages for a comparison: huge, plain or partly huge pages; empty if unknown."""
    said = pages_said(settings)
    if not said:
        return "plain pages" if settings.get("huge_pages") is False else ""
    if "huge" not in said:
        return "plain pages"
    return "partly huge pages" if "B pages" in said else said
