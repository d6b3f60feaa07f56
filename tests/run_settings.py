"""docs/run-settings.md, from the table of a run's fields: `uv run python -m tests.run_settings` writes it."""

from __future__ import annotations

from pathlib import Path

from kvdeck.engine.run_field import Kind, RunField
from kvdeck.engine.spec import FIELDS
from kvdeck.sessions.model.records import PATHS

PAGE = Path(__file__).parent.parent / "docs" / "run-settings.md"
HEAD = """# Settings of a run

`run.yaml` and `SPEC.yaml` are a mapping of these names; what is left out has its default, and unknown names are
refused. `kvdeck run` has an option for each, and the Run screen a field for most. `null` leaves a value to the engine.

| name | option | values | default | what it is |
|---|---|---|---|---|
"""
_VALUES: dict[Kind, str] = {
    "flag": "`true`, `false`",
    "count": "whole number",
    "decimal": "number",
    "range": "`{start, stop, factor}` or `1:64:4`",
    "names": "list",
    "pairs": "mapping",
    "choice": "",
    "text": "text",
}


def page(fields: tuple[RunField, ...]) -> str:
    """Return the page: a row for each field, in the order of run.yaml."""
    return HEAD + "".join(f"| {' | '.join(_cells(row))} |\n" for row in fields)


def _cells(row: RunField) -> tuple[str, ...]:
    option = row.option.replace("|", "\\|") or ("--quick, --thorough" if row.name == "effort" else "")
    paths = "" if row.paths == PATHS else f" Paths: {', '.join(row.paths)}."
    return (
        f"`{row.name}`",
        f"`{option}`" if option else "–",
        _values(row),
        _default(row),
        f"{row.doc}{paths}".replace("|", "\\|"),
    )


def _values(row: RunField) -> str:
    text = ", ".join(f"`{choice}`" for choice in row.choices) or _VALUES[row.kind]
    unit = f", {row.unit}" if row.unit else ""
    least = {"count": " from 0" if row.zero else " from 1", "decimal": " from 0" if row.zero else " above 0"}
    return f"{text}{least.get(row.kind, '')}{unit}"


def _default(row: RunField) -> str:
    if row.default is None:
        return "null"
    if isinstance(row.default, bool):
        return str(row.default).lower()
    if isinstance(row.default, tuple):
        return "; ".join(f"`{item}`" for item in row.default)
    return f"`{row.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(FIELDS))
