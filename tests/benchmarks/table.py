"""Rows of the budget table, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its budget."""

    what: str
    measured: str
    budget: str


def print_markdown(rows: list[Row]) -> None:
    """The rows as a Markdown table, ready for the README."""
    cells = [("what", "measured", "budget"), *((row.what, row.measured, row.budget) for row in rows)]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    for number, cell in enumerate(cells):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
