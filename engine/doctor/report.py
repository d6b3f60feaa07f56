"""`python -m kvdeck.engine.doctor.report`: which paths and backends work here, why others don't, and the fix.

Doesn't import NIXL: everything that may hang or crash runs in child processes with a time limit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from kvdeck.engine.doctor.probes import Probed, probe, probe_command
from kvdeck.engine.host import GpuFacts, HostFacts, host_facts
from kvdeck.engine.host.environment import deciding_variables
from kvdeck.engine.host.folder import default_folder
from kvdeck.engine.host.gpu import driver_present, gpu_facts
from kvdeck.engine.io import plugins, reasons
from kvdeck.engine.io.findings import PathFinding, PluginFinding
from kvdeck.engine.quantities import MOST_SECONDS
from kvdeck.engine.spec import APIS
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError, UnavailableError, UsageError
from kvdeck.sessions.model.records import DEVICE_TO_DEVICE, HOST_TO_DISK, HOST_TO_HOST, PATHS

LIMIT_S = 2.6
"""Seconds for all probes together; `$KVDECK_DOCTOR_LIMIT` or `--limit` overrides it."""
GPU_LIMIT_S = 8.0
"""The same on hosts with a GPU: CUDA and cuFile take seconds to start in each probe."""


def default_limit_s() -> float:
    """Return the default time limit in seconds for all probes on this host."""
    return GPU_LIMIT_S if driver_present() else LIMIT_S


def _limit_from_environment() -> float | None:
    """Return `$KVDECK_DOCTOR_LIMIT` in seconds; None if it is not set.

    Raises:
        UsageError: It is not a number above 0.
    """
    text = os.environ.get("KVDECK_DOCTOR_LIMIT")
    if not text:
        return None
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= MOST_SECONDS:
            return float(text)
    raise UsageError(f"KVDECK_DOCTOR_LIMIT is {text!r}", "give a number of seconds above 0")


def report(folder: Path, limit_s: float) -> dict[str, Any]:
    """Probe this host and return the report as JSON values.

    Args:
        folder: Target folder of test files.
        limit_s: Seconds after which a probe is killed.
    """
    facts: list[HostFacts] = []
    failures: list[Exception] = []
    end = time.monotonic() + limit_s
    # In a daemon thread: a call to a network filesystem that is gone may block it for good.
    looking = start_thread(
        "host facts", lambda: facts.append(host_facts(folder, gpu=gpu_facts(limit_s * 0.7))), failures.append
    )
    probed = probe(groups(), probe_command(folder), limit_s)
    looking.join(max(0.2, end - time.monotonic()))
    if facts:
        return assembled(facts[0], probed)
    why = str(failures[0]) if failures else reasons.silent_folder(str(folder), limit_s).what
    return assembled(host_facts(gpu=GpuFacts(reason=f"not checked: {why}")), probed)


def groups() -> list[list[str]]:
    """Return the checks, grouped by child process; fewer groups on few cores, since each child loads NIXL."""
    rest = [name for name in plugins.plugin_files() if name not in ("UCX", "POSIX", "GDS", "GDS_MT")]
    posix = [f"POSIX:{api}" for api in APIS]
    if driver_present():
        return [["UCX"], posix, ["GDS"], ["GDS_MT"], ["DEVICE"], rest]
    # Few children on few cores: each loads NIXL, which takes most of a probe's time.
    instant = ["GDS", "GDS_MT", "DEVICE", *rest]  # without a driver these fail at once
    if len(os.sched_getaffinity(0)) < 4:
        return [["UCX"], [*posix, *instant]]
    return [["UCX"], posix, instant]


def assembled(host: HostFacts, probed: Probed) -> dict[str, Any]:
    """Return the report from the host's facts and the probes' findings."""
    rows = list(_rows(host, probed))
    build = plugins.build()
    config, config_there = plugins.cufile_config()
    return {
        "kvdeck": importlib.metadata.version("kvdeck"),
        "nixl": {"version": plugins.nixl_version(), "build": build},
        "cuda": {"major": plugins.cuda_major(), "driver": host.gpu.driver, "newest": host.gpu.cuda},
        "cufile": {
            "library": next(iter(plugins.library_files("libcufile.so.0")), None),
            "config": config,
            "config_present": config_there,
        },
        "host": host.to_mapping(),
        "environment": deciding_variables(),
        "paths": [_row_json(row) for row in rows],
        "plugins": [_row_json(plugin) for plugin in _plugins(probed)],
        "ready": any(row.state != "unavailable" for row in rows),
    }


def _row_json(row: PathFinding | PluginFinding) -> dict[str, object]:
    return {**dataclasses.asdict(row), "mend": row.fix}  # programs written for kvdeck 0.1 read `mend`


def _rows(host: HostFacts, probed: Probed) -> Iterator[PathFinding]:
    """Yield one row per path and backend (and mode, between memory of the same kind), in the order of `PATHS`."""
    for path in PATHS:
        for backend in plugins.SERVES[path]:
            if path in (HOST_TO_HOST, DEVICE_TO_DEVICE):
                for mode in ("two processes", "loopback"):
                    yield _limited(_found(probed, path, backend, mode), host)
            elif backend == "POSIX":
                yield _posix(probed, path)
            elif backend.startswith(plugins.STAGED):
                yield _staged(probed, path, backend)
            else:
                yield _found(probed, path, backend)


def _found(probed: Probed, path: str, backend: str, mode: str | None = None, api: str | None = None) -> PathFinding:
    for row in probed.rows:
        if row.key == (path, backend, mode, api):
            return row
    failure = probed.failures.get(f"{backend}:{api}" if api else backend) or reasons.not_tried(backend)
    return PathFinding(path, backend, mode=mode, api=api, memory=plugins.memory_of(path)).refused(failure)


def _limited(row: PathFinding, host: HostFacts) -> PathFinding:
    """Return the row, degraded if locked memory is limited: network cards lock the memory they register."""
    little = reasons.little_memlock(host.memlock_bytes)
    if row.state != "ready" or little is None or not any(port.active for port in host.infiniband):
        return row
    return row.working(little)


def _posix(probed: Probed, path: str) -> PathFinding:
    """Return one row for the three APIs: the first in the best state, which a run would choose."""
    each = {api: _found(probed, path, "POSIX", api=api) for api in APIS}
    best = min(each.values(), key=lambda row: ("ready", "degraded", "unavailable").index(row.state))
    apis = {api: row.state if row.reason is None else f"{row.state}: {row.reason}" for api, row in each.items()}
    if best.state == "unavailable":
        return dataclasses.replace(best, api=None, apis=apis)
    missing = [row for row in each.values() if row.state == "unavailable"]
    if best.state == "ready" and missing:
        reason = "; ".join(f"{row.api} doesn't work: {row.reason}" for row in missing)
        return dataclasses.replace(best, apis=apis, reason=reason, fix=missing[0].fix)
    return dataclasses.replace(best, apis=apis)


def _staged(probed: Probed, path: str, backend: str) -> PathFinding:
    """Return the row of a path staged through host memory: works if both POSIX files and the GPU work."""
    row = PathFinding(path, backend, memory=plugins.memory_of(path))
    device = probed.failures.get("DEVICE")
    files = _posix(probed, HOST_TO_DISK)
    if device is not None or files.state == "unavailable":
        return row.refused(device or UnavailableError(files.reason or "", files.fix or ""))
    return dataclasses.replace(row, api=files.api).working(reasons.staged(files.reason))


def _plugins(probed: Probed) -> Iterator[PluginFinding]:
    for name, file in sorted(plugins.plugin_files().items()):
        found = probed.plugins.get(name, PluginFinding(name, file=str(file)))
        failure = next((error for check, error in probed.failures.items() if check.partition(":")[0] == name), None)
        if found.reason is None and failure is not None:
            found = found.refused(failure)
        yield found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 0 if at least one path works, 1 if none, or the error's exit status."""
    parser = argparse.ArgumentParser(prog="python -m kvdeck.engine.doctor.report")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    parser.add_argument("--folder", type=Path, help="folder for test files")
    parser.add_argument("--limit", type=float, help="seconds for all probes together")
    options = parser.parse_args(arguments)
    try:
        limit_s = options.limit or _limit_from_environment() or default_limit_s()
        found = report(options.folder or default_folder(), limit_s)
    except KvdeckError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.buffer.write(orjson.dumps(found, option=0 if options.json else orjson.OPT_INDENT_2) + b"\n")
    return 0 if found["ready"] else 1


if __name__ == "__main__":
    sys.exit(main())
