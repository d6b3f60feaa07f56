"""Doctor's report as the screen tells it: paths with their backends, fixes once each, facts by what they concern."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.app.tui.state import PathReport
from kvdeck.sessions.units import many, size_text

PINNED_BYTES = 64 << 20
"""Memory that a default run pins on each side, in bytes."""
_ORDER = ("ready", "degraded", "unavailable")
_GROUPS = {
    "Host": ("hostname", "kernel", "architecture", "nixl", "kvdeck"),
    "CPU": ("cpu", "cores", "cpu_quota", "numa_nodes", "last_level_cache_bytes"),
    "Memory": ("memory_bytes", "memory_available_bytes", "huge_pages", "huge_page_bytes", "huge_pages_reserved",
               "huge_pages_free"),
    "GPU": ("gpu", "gpus", "driver", "cuda", "cufile", "nvidia_fs"),
    "Storage": ("folder", "filesystem", "aio_max", "aio_used", "io_uring_disabled"),
    "Network": ("infiniband", "interfaces"),
    "Limits": ("memlock_bytes", "open_files", "ptrace_scope"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PathGroup:
    """One path with what doctor found of each of its backends."""

    path: str
    reports: tuple[PathReport, ...]

    @property
    def best(self) -> PathReport:
        """The report of the backend in the best state, the first among equals."""
        return min(self.reports, key=lambda report: _ORDER.index(report.state))

    @property
    def backends(self) -> tuple[tuple[str, str], ...]:
        """Backends and their states, the best of a backend's modes."""
        found: dict[str, str] = {}
        for report in self.reports:
            before = found.get(report.backend, "unavailable")
            found[report.backend] = min(before, report.state, key=_ORDER.index)
        return tuple(found.items())


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do, and the paths that wait for it; with a backend where the path runs with another."""

    text: str
    reason: str
    paths: tuple[str, ...]


def path_groups(reports: Iterable[PathReport]) -> list[PathGroup]:
    """Return the reports by path, in their order."""
    found: dict[str, list[PathReport]] = {}
    for report in reports:
        found.setdefault(report.path, []).append(report)
    return [PathGroup(path, tuple(of_path)) for path, of_path in found.items()]


def headline(groups: Sequence[PathGroup], width: int = 1000) -> str:
    """Return how many paths can run, and what the others have in common, or where it stands if it is too long."""
    able = [group for group in groups if group.best.state != "unavailable"]
    rest = [group.best for group in groups if group.best.state == "unavailable"]
    limited = sum(group.best.state == "degraded" for group in able)
    ready = f"{len(able)} of {many(len(groups), 'path')} ready"
    able_text = f"{ready}, {limited} with limits" if limited else ready
    if not rest:
        return f"{able_text}."
    common = _common([report.reason for report in rest])
    others = "The other one" if len(rest) == 1 else f"The other {len(rest)}"
    text = f"{able_text}. {others}: {common}."
    return text if common and len(text) <= width else f"{able_text}. {others} can't run: reasons and fixes are below."


def _common(reasons: Sequence[str]) -> str:
    """Return the clauses that every reason has, up to the first `, and`."""
    first = {reason.partition(", and ")[0] for reason in reasons}
    return first.pop() if len(first) == 1 else ""


def fixes(groups: Iterable[PathGroup]) -> list[Fix]:
    """Return each fix once, with the paths that can't run, or run with limits, until it is done."""
    found: dict[str, tuple[str, list[str]]] = {}
    for group in groups:
        for report in group.reports:
            if report.state != "ready" and report.fix:
                found.setdefault(report.fix, (report.reason, []))[1].append(_waiting(group, report))
    return [Fix(text, reason, tuple(dict.fromkeys(paths))) for text, (reason, paths) in found.items()]


def _waiting(group: PathGroup, report: PathReport) -> str:
    if report is group.best or group.best.state == "unavailable":
        return group.path
    return " ".join(filter(None, (group.path, "with", report.backend, report.mode)))


def limits(host: Mapping[str, Any]) -> dict[str, str]:
    """Return, by fact, why it limits what is measured here."""
    found = {}
    memlock, folder = host.get("memlock_bytes"), host.get("folder") or {}
    if isinstance(memlock, int) and 0 <= memlock < PINNED_BYTES:
        found["memlock_bytes"] = f"too small to pin {size_text(PINNED_BYTES)} · fix: ulimit -l unlimited"
    if host.get("cpu_quota"):
        found["cpu_quota"] = "a container's share: both sides of a transfer wait for it"
    if host.get("io_uring_disabled"):
        found["io_uring_disabled"] = "io_uring can't be used"
    if isinstance(ptrace := host.get("ptrace_scope"), int) and ptrace > 1:
        found["ptrace_scope"] = "a process can't read another's memory: no limit of a copy"
    if isinstance(folder, dict) and "direct_alignment" in folder and folder["direct_alignment"] is None:
        found["folder"] = "takes no O_DIRECT: reads may come from memory"
    return found


def fact_groups(host: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield host facts by what they concern, without those that aren't known."""
    placed = {name for names in _GROUPS.values() for name in names}
    others = {name: value for name, value in host.items() if name not in placed}
    for title, names in _GROUPS.items():
        known = {name: host[name] for name in names if name in host and _is_known(host[name])}
        if known:
            yield title, known
    if known := {name: value for name, value in others.items() if _is_known(value)}:
        yield "Other", known


def _is_known(value: Any) -> bool:
    return value not in (None, "", [], (), {})
