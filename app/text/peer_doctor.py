"""What `kvdeck doctor --peer` prints: whether a run with a peer works, over what, and how the two hosts differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.text.tables import wrapped
from kvdeck.sessions.units import number_text, size_text, time_text

_LABEL = 14


def peer_lines(report: Mapping[str, Any], width: int) -> list[Line]:
    """Return the report of `engine.doctor.peer_check` as text, at most `width` characters wide."""
    peer, here, there = report["peer"], report["here"], report.get("there")
    lines = [Line(f"{peer}: {'ready' if report['ready'] else 'not ready'}", "heading" if report["ready"] else "bad")]
    if report.get("reason"):
        fix = f" · fix: {report['fix']}" if report.get("fix") else ""
        lines += [Line(text, "bad") for text in wrapped(f"  {report['reason']}{fix}", width, "  ")]
    rows = [("reachable", "yes, by ssh" if report["reachable"] else "no")]
    if there is not None:
        rows += list(_rows(report, here, there))
    for label, text in rows:
        start = f"  {label:<{_LABEL}} "
        lines += [Line(piece) for piece in wrapped(start + text, width, " " * len(start))]
    return lines


def _rows(report: Mapping[str, Any], here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ends = (("here", here), ("there", there))
    yield "transports", report.get("transport") or "unknown"
    for where, end in ends:
        versions = f"kvdeck {end['kvdeck']}, NIXL {end['nixl'] or 'none'}, UCX {end['ucx'] or 'none'}"
        yield where, f"{end['host']['hostname']}: {versions}, Python {end['python']}, kernel {end['host']['kernel']}"
    for where, end in ends:
        yield f"NICs {where}", "; ".join(_nic_text(nic) for nic in end["nics"]) or "none"
    for where, end in ends:
        yield f"GPUs {where}", _gpus_text(end.get("gpu") or {})
    both = [name for name in here["plugins"] if name in there["plugins"]]
    yield "backends", f"on both: {' '.join(both) or 'none'}"
    for where, end, other in (("only here", here, there), ("only there", there, here)):
        if alone := [name for name in end["plugins"] if name not in other["plugins"]]:
            yield "", f"{where}: {' '.join(alone)}"
    yield "lockable", ", ".join(f"{where} {_limit(end['host'].get('memlock_bytes'))}" for where, end in ends)
    offset, error = report.get("clock_offset_s"), report.get("clock_error_s")
    if offset is not None and error is not None:
        ahead = "ahead" if offset >= 0 else "behind"
        yield "clock there", f"{time_text(abs(offset) * 1e6)} {ahead}, give or take {time_text(error * 1e6)}"
    for text in report.get("differences") or ("none in versions and variables",):
        yield "differences", text


def _nic_text(nic: Mapping[str, Any]) -> str:
    rate, mtu, node = nic.get("bits_per_s"), nic.get("mtu"), nic.get("numa_node")
    facts = [f"{nic['name']} {nic['state']}", f"{number_text(rate / 1e9)} Gb/s" if rate else "rate unknown"]
    facts += [f"MTU {mtu}"] if mtu is not None else []
    return ", ".join(facts + ([f"NUMA node {node}"] if node is not None else []))


def _gpus_text(gpu: Mapping[str, Any]) -> str:
    """Return a host's GPUs with their NUMA nodes, which tell the interface next to each, or why there is none."""
    named = [
        f"{one['index']} {one['name']}" + ("" if one.get("numa_node") is None else f", NUMA node {one['numa_node']}")
        for one in gpu.get("gpus") or ()
    ]
    return "; ".join([*named, *([f"none: {gpu['reason']}"] if gpu.get("reason") else [])]) or "none"


def _limit(size: int | None) -> str:
    return "unlimited" if size is None else size_text(size)
