"""`kvdeck doctor`: each path's state on this host, with reasons and fixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from kvdeck.app.cli.folder import checked_folder
from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.engine.spec import parse_host
from kvdeck.sessions.text.run_report import Line, Tone
from kvdeck.sessions.text.tables import NO_BREAK, TextColumn, joined, render, wrapped
from kvdeck.sessions.units import size_text

_TONES: dict[str, Tone] = {"ready": "heading", "degraded": "warning", "unavailable": "plain"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--folder", metavar="DIR", help="Folder whose filesystem is checked. Default: the temp dir.")
@click.option("--peer", metavar="HOST", help="Check runs with this host by ssh, instead of this host's paths.")
@click.option("--peer-command", metavar="COMMAND", default="kvdeck", help="How kvdeck is called on the peer.")
def doctor(as_json: bool, folder: str | None, peer: str | None, peer_command: str) -> int:
    """Show which paths can run here, and why others can't."""
    from kvdeck.app.cli.spinner import waiting

    if peer is not None:
        return _peer(parse_host(peer), peer_command, as_json)
    from kvdeck.engine.children.doctor_report import DOCTOR_SECONDS, doctor_report

    where = checked_folder(folder) if folder is not None else None
    with waiting("checking this host: trying every path", DOCTOR_SECONDS):
        report = doctor_report(where)
    if as_json:
        print_json(report)
    else:
        print_lines(doctor_lines(report, report_width()))
    return 0 if report.get("ready") else 1


def _peer(host: str, command: str, as_json: bool) -> int:
    from kvdeck.app.cli.spinner import waiting
    from kvdeck.app.text.peer_doctor import peer_lines
    from kvdeck.engine.children.doctor_report import PEER_SECONDS, peer_report

    with waiting(f"trying a connection with {host}", PEER_SECONDS):
        report = peer_report(host, command)
    if as_json:
        print_json(report)
    else:
        print_lines(peer_lines(report, report_width()))
    return 0 if report.get("ready") else 1


def doctor_lines(report: Mapping[str, Any], width: int) -> list[Line]:
    """Return the doctor's report as text: paths, plugins, numbered fixes, host, environment variables."""
    fixes: dict[str, int] = {}
    lines = list(_path_lines(report.get("paths", ()), fixes, width))
    lines += [Line(""), *_plugin_lines(report.get("plugins", ()), fixes, width)]
    if fixes:
        lines += [Line(""), Line("Fixes", "heading")]
    lines += [Line(text) for fix, number in fixes.items() for text in wrapped(f"  [{number}] {fix}", width, "      ")]
    versions = {key: report.get(key) for key in ("kvdeck", "nixl", "cuda", "cufile")}
    lines += [Line(""), Line("Host", "heading"), *_host_lines({**versions, **report.get("host", {})}, width)]
    if variables := report.get("environment"):
        lines += [Line(""), Line("Environment variables that matter", "heading")]
        lines += [
            Line(text) for name, value in variables.items() for text in wrapped(f"  {name}={value}", width, "    ")
        ]
    return lines if report.get("ready") else [*lines, Line(""), Line("No path is ready here.", "bad")]


def _path_lines(rows: Iterable[Mapping[str, Any]], fixes: dict[str, int], width: int) -> Iterable[Line]:
    for row in rows:
        start = f"{row['path']:<14} {row['backend'] or '':<12} {row['state']:<11} "
        both = row["state"] == "ready" and row.get("transports")
        notes = list(filter(None, (row.get("mode"), _ready_text(row) if both else None, row.get("reason"))))
        if not row.get("reason") and not both:
            notes.append(_ready_text(row))
        text = start + ", ".join(notes) + _mark(row.get("fix"), fixes)
        tone = _TONES.get(row["state"], "plain")
        yield from (Line(piece, tone) for piece in wrapped(text, width, " " * len(start)))


def _ready_text(row: Mapping[str, Any]) -> str:
    """Return the memory types and the APIs or transports between them: `DRAM to FILE by AIO URING`."""
    ways = [name for name, state in (row.get("apis") or {}).items() if state == "ready"] or row.get("transports") or ()
    return " to ".join(row.get("memory") or ()) + (f" by {' '.join(ways)}" if ways else "")


def _mark(fix: str | None, fixes: dict[str, int]) -> str:
    return f"{NO_BREAK}[{fixes.setdefault(fix, len(fixes) + 1)}]" if fix else ""


def _plugin_lines(plugins: Iterable[Mapping[str, Any]], fixes: dict[str, int], width: int) -> list[Line]:
    rows = list(plugins)
    if not rows:
        return [Line("NIXL lists no plugins.", "bad")]
    columns = [TextColumn("", "plugin", tuple(str(row["name"]) for row in rows), left=True)]
    for key in ("present", "loads", "creates"):
        columns.append(TextColumn("", key, tuple(_YES[row.get(key)] for row in rows), left=True))
    memory = tuple(" ".join(row.get("memory_types") or ()) for row in rows)
    columns.append(TextColumn("", "memory", memory, left=True))
    header, *texts = render(columns, width)
    indent = " " * (len(header) - len("memory"))
    lines = [Line(header, "heading")]
    for row, text in zip(rows, texts, strict=True):
        reason = f"{row['reason']}{_mark(row.get('fix'), fixes)}" if row.get("reason") else ""
        shown = [text] if row.get("memory_types") or not reason else []
        start = indent if shown else text.ljust(len(indent))
        shown += wrapped(start + reason, width, indent) if reason else []
        lines += [Line(piece) for piece in shown]
    return lines


_YES = {True: "yes", False: "no", None: "–"}


def _host_lines(host: Mapping[str, Any], width: int) -> Iterable[Line]:
    for key, value in host.items():
        facts = list(_facts(key, value))
        if facts:
            first, *others = joined(facts, width - 27)
            yield Line(f"  {_name(key):<24} {first}")
            yield from (Line(" " * 27 + other) for other in others)


def _name(key: str) -> str:
    return key.removesuffix("_bytes").replace("_", " ")


def _facts(key: str, value: Any) -> Iterable[str]:
    """Yield a host fact's value as short texts; unknown values are left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            texts = list(_facts(name, item))
            if texts:
                yield f"{_name(name)} {', '.join(texts)}"
    elif isinstance(value, (list, tuple)):
        yield from (["none"] if not value else (", ".join(_facts(key, item)) for item in value))
    elif isinstance(value, bool):
        yield _YES[value]
    elif isinstance(value, int) and key.endswith("_bytes"):
        yield size_text(value)
    elif value is not None and value != "":
        yield str(value)
