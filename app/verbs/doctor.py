"""`kvdeck doctor`: what each path needs, what this host has, and the mend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from kvdeck.app.verbs.options import checked_folder
from kvdeck.app.verbs.printing import print_json, print_lines, report_width
from kvdeck.sessions.report import Line, Tone
from kvdeck.sessions.tables import Column, joined, render, wrapped

_TONES: dict[str, Tone] = {"ready": "plain", "degraded": "warning", "unavailable": "bad"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--folder", metavar="DIR", help="The folder whose filesystem is asked about. Default: the temp dir.")
def doctor(as_json: bool, folder: str | None) -> int:
    """Say which paths can run here, and why others can't."""
    from kvdeck.engine.client import doctor_report

    report = doctor_report(checked_folder(folder) if folder is not None else None)
    if as_json:
        print_json(report)
    else:
        print_lines(doctor_lines(report, report_width()))
    return 0 if report.get("ready") else 1


def doctor_lines(report: Mapping[str, Any], width: int) -> list[Line]:
    """The doctor's object as text: paths, plugins, host."""
    lines = list(_path_lines(report.get("paths", ()), width))
    lines += [Line(""), *_plugin_lines(report.get("plugins", ()), width)]
    lines += [Line(""), Line("Host", "heading"), *_host_lines(report.get("host", {}), width)]
    if not report.get("ready"):
        lines += [Line(""), Line("No path is ready here.", "bad")]
    return lines


def _path_lines(rows: Iterable[Mapping[str, Any]], width: int) -> Iterable[Line]:
    for row in rows:
        start = f"{row['path']:<14} {row['backend'] or '':<8} {row['state']:<11} "
        indent = " " * len(start) if width >= 90 else "    "
        memory = " ".join(row.get("memory") or ())
        text = row.get("reason") or memory
        for piece in wrapped(start + text, width, indent):
            yield Line(piece, _TONES.get(row["state"], "plain"))
        if row.get("mend"):
            yield from (Line(piece) for piece in wrapped(f"{indent}mend: {row['mend']}", width, indent + "      "))


def _plugin_lines(plugins: Iterable[Mapping[str, Any]], width: int) -> list[Line]:
    rows = list(plugins)
    if not rows:
        return [Line("NIXL lists no plugins.", "bad")]
    columns = [Column("", "plugin", tuple(str(row["name"]) for row in rows), left=True)]
    columns += [
        Column("", key, tuple({True: "yes", False: "no", None: "–"}[row.get(key)] for row in rows), left=True)
        for key in ("present", "loads", "creates")
    ]
    memory = tuple(" ".join(row.get("memory_types") or ()) or "–" for row in rows)
    columns.append(Column("", "memory", memory, left=True))
    lines = [Line(text) for text in render(columns, width)]
    for row in rows:
        if row.get("reason"):
            text = f"  {row['name']}: {row['reason']}" + (f" · {row['mend']}" if row.get("mend") else "")
            lines += [Line(piece) for piece in wrapped(text, width, "    ")]
    return lines


def _host_lines(host: Mapping[str, Any], width: int) -> Iterable[Line]:
    for key, value in host.items():
        facts = list(_facts(value))
        if facts:
            first, *others = joined(facts, width - 20, "")
            yield Line(f"  {key.replace('_', ' '):<17} {first}")
            yield from (Line(" " * 20 + other) for other in others)


def _facts(value: Any) -> Iterable[str]:
    """A fact's value as short texts: of mappings `key value`, of lists each item."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if item not in (None, "", [], {}):
                yield f"{key.replace('_', ' ')} {', '.join(_facts(item))}"
    elif isinstance(value, (list, tuple)):
        if not value:
            yield "none"
        for item in value:
            yield ", ".join(_facts(item))
    elif value is None:
        yield "unknown"
    elif isinstance(value, bool):
        yield "yes" if value else "no"
    else:
        yield str(value)
