"""Reasons why two sessions can't be compared directly: other hosts, other sizes, other I/O settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvdeck.sessions.analysis.compare_telemetry import mismatch
from kvdeck.sessions.analysis.entries import Entry
from kvdeck.sessions.model.peers import host_names, peers_of
from kvdeck.sessions.model.records import PATHS, Session, StepResult
from kvdeck.sessions.model.step_pages import pages_kind
from kvdeck.sessions.units import size_text


def differences(a: Session, b: Session, of_a: Sequence[Entry], of_b: Sequence[Entry]) -> Iterable[str]:
    """Yield each obstacle to a direct comparison, one line each."""
    if said := mismatch(a, b):
        yield said
        return
    if not of_a or not of_b:
        yield f"{a.name if not of_a else b.name} has no transfers"
        return
    if not {entry.path for entry in of_a} & {entry.path for entry in of_b}:
        yield "they have no path in common"
    if bool(a.results) != bool(b.results):
        measured, other = (a.name, b.name) if a.results else (b.name, a.name)
        yield f"{measured} was measured by kvdeck, {other} was counted in other programs"
    yield from differing_facts(a, b)
    yield from _differing_results(a, b)
    yield from _single_figures(a, b)


def _single_figures(a: Session, b: Session) -> Iterable[str]:
    """Yield programs that print one figure per step: their ratios have no interval, so no verdict."""
    for session in (a,) if a.name == b.name else (a, b):
        for program in dict.fromkeys(str(result.settings.get("measured_by") or "") for result in session.results):
            if program:
                yield f"{session.name} has no interval: {program} prints one figure per step, so there is no verdict"


_FACTS = {"hostname": "host", "cpu": "CPU", "gpus": "GPUs", "kernel": "kernel"}


def differing_facts(a: Session, b: Session) -> Iterable[str]:
    """Yield how the hosts of two sessions and their NIXL differ, one line each; nothing of what isn't known."""
    if not a.host and not b.host:
        return
    hosts = [host_names(session.host) for session in (a, b)]
    between = bool(peers_of(a.host) or peers_of(b.host))
    if between and hosts[0] != hosts[1]:
        yield f"not the same hosts: {hosts[0] or 'unknown'} and {hosts[1] or 'unknown'}"
    for key, word in _FACTS.items():
        if between and key == "hostname":
            continue
        texts = [_fact(session.host.get(key)) for session in (a, b)]
        if texts[0] != texts[1]:
            yield f"{word}: {texts[0]} and {texts[1]}"
    if a.nixl and b.nixl and a.nixl != b.nixl:
        yield f"NIXL: {a.nixl} and {b.nixl}"


def _fact(value: object) -> str:
    if isinstance(value, (list, tuple)):
        names = [str(item.get("name", item)) if isinstance(item, dict) else str(item) for item in value]
        return ", ".join(names) or "none"
    return str(value) if value else "unknown"


def _differing_results(a: Session, b: Session) -> Iterable[str]:
    def said(session: dict[str, list[StepResult]], path: str, name: str) -> list[str]:
        values = dict.fromkeys(getattr(result, name) for result in session[path])
        return list(dict.fromkeys(size_text(v) if name == "block_bytes" else _value_text(v) for v in values))

    sides = [_by_path(session) for session in (a, b)]
    for path in [p for p in PATHS if p in sides[0] and p in sides[1]]:
        for name, words in _SETTINGS.items():
            texts = [said(side, path, name) for side in sides]
            if all(texts) and set(texts[0]) != set(texts[1]):
                yield f"{path}, {words}: {', '.join(texts[0])} and {', '.join(texts[1])}"
        pages = [list(dict.fromkeys(pages_kind(result.settings) for result in side[path])) for side in sides]
        if set(pages[0]) != set(pages[1]) and "" not in (*pages[0], *pages[1]):
            yield f"{path}, memory: {', '.join(pages[0])} and {', '.join(pages[1])}"


def _by_path(session: Session) -> dict[str, list[StepResult]]:
    found: dict[str, list[StepResult]] = {}
    for result in session.results:
        if result.gb_per_s:
            found.setdefault(result.path, []).append(result)
    return found


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


_SETTINGS = {
    "block_bytes": "bytes per block",
    "batch": "blocks per request",
    "backend": "backend",
    "api": "API",
    "direct": "O_DIRECT",
    "page_cache": "page cache",
    "durable": "durable",
    "merged": "merged descriptors",
}
