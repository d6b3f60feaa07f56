"""cuFile counters of each serving process, read with NVIDIA's `gds_stats`, which doesn't change the process.

cuFile has counters in shared memory if `profile.cufile_stats` in its cufile.json is above 0 (the default is 0), and
counts operations per I/O path if it is 3. The counters of a process in a container are visible only inside it.
The output format is taken from the GPUDirect Storage guide; it hasn't been tested with a real `gds_stats`.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from kvdeck.engine.children.child import run
from kvdeck.engine.telemetry.source import Labels, Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns
from kvdeck.engine.telemetry.sources.processes import NOBODY, Processes, Serving
from kvdeck.sessions.units import number_text

PERIOD_S = 5.0
DEADLINE_S = 2.0
"""Time limit of one `gds_stats` call."""
AGAIN_S = 60.0
"""Time before a process without counters is queried again."""
MAX_ASKED = 16
"""Maximum number of processes queried per reading."""
MAX_OUTPUT = 1 << 20
_USUAL = "cuda*/gds/tools/gds_stats"
_PER_GPU = re.compile(r"^GPU (\d+) +Read: (.*?) Write: (.*?)(?: BufRegister:.*)?$")
_FIELD = re.compile(r"([A-Za-z_0-9]+)=([0-9.]+)")
_GLOBAL = re.compile(r"^Total (Read|Write) Size \(MiB\) ?: *(\d+)")
_HEAD = "cuFile STATS VERSION"
_COUNTED = {
    "n": "cufile_ops",
    "posix": "cufile_posix_ops",
    "nvfs": "cufile_nvfs_ops",
    "p2p": "cufile_p2p_ops",
    "p2pdma": "cufile_p2p_ops",
    "unalign": "cufile_unaligned_ops",
    "err": "cufile_errors",
}


def find_gds_stats(cuda: Path = Path("/usr/local")) -> str | None:
    """Return the path of `gds_stats`, from PATH or CUDA's folders; None if it isn't installed."""
    return shutil.which("gds_stats") or next(map(str, sorted(cuda.glob(_USUAL), reverse=True)), None)


def cufile_source(program: str | None = None, processes: Processes | None = None) -> LocalSource:
    """Return a source for the cuFile counters of all serving processes, read every PERIOD_S on a separate thread."""
    looking = Cufile(program or find_gds_stats(), processes or Processes())
    longest = MAX_ASKED * DEADLINE_S
    return LocalSource("cufile", "nvidia_fs", looking.look, least_period_s=PERIOD_S, hangs_s=longest + 1)


class Cufile:
    """Queries processes one after the other; one without counters is skipped for AGAIN_S."""

    def __init__(self, program: str | None, processes: Processes) -> None:
        self._program = program
        self._processes = processes
        self._silent: dict[int, tuple[float, str]] = {}
        """Process id → monotonic time until which it is skipped, and the reason."""

    def look(self) -> Reading:
        """Return the counters of all serving processes.

        Raises:
            SourceGone: `gds_stats` is not installed.
        """
        if self._program is None:
            raise SourceGone("gds_stats is not installed", "install gds-tools (part of CUDA, in gds/tools)")
        found = self._processes.found()
        values: dict[Series, float] = {}
        now = time.monotonic()
        self._silent = {pid: (until, why) for pid, (until, why) in self._silent.items() if until > now}
        missing: set[str] = set()
        for process in [one for one in found if one.pid not in self._silent][:MAX_ASKED]:
            why = self._ask(process, values)
            if why:
                self._silent[process.pid] = (now + AGAIN_S, why)
            elif not any(s.name == "cufile_posix_ops" and s.label("pid") == str(process.pid) for s in values):
                missing.add("no posix= without profile.cufile_stats 3 in cufile.json")
        if not found:
            return Reading(now_ns(), values, quiet=NOBODY)
        if not values:
            reasons = sorted({why for _, why in self._silent.values()})
            return Reading(now_ns(), values, quiet="; ".join(reasons)[:300])
        return Reading(now_ns(), values, missing=", ".join(sorted(missing)))

    def _ask(self, process: Serving, values: dict[Series, float]) -> str:
        """Add a process's counters to `values`; return why there are none, or an empty string."""
        assert self._program is not None
        try:
            # In this process's group, so that ending the engine's group ends it too.
            command = [self._program, "-p", str(process.pid), "-l", "3"]
            asked = run(command, DEADLINE_S, most_output=MAX_OUTPUT, merge_stderr=True, own_group=False)
        except OSError as error:
            return f"gds_stats can't be run: {error.strerror}"
        text = asked.output.decode("utf-8", "replace")
        if asked.status is None:
            return f"gds_stats took more than {number_text(DEADLINE_S)} s"
        if asked.status != 0 or not text.strip():
            return "no serving process has cuFile's statistics; turn them on with profile.cufile_stats in cufile.json"
        if _HEAD not in text:
            return f"gds_stats printed no statistics: {text.strip().splitlines()[0][:80]!r}"
        counted = counters(text, process.labels)
        values.update(counted)
        return "" if counted else "gds_stats' output has an unknown version"


def counters(text: str, labels: Labels) -> dict[Series, float]:
    """Parse the counters of one process from its `gds_stats` output.

    Bandwidths and latencies are ignored: they are averages over one second.
    """
    values: dict[Series, float] = {}
    totals: dict[str, float] = {}
    for line in text.splitlines():
        whole = _GLOBAL.match(line.strip())
        if whole is not None:
            totals[whole[1].lower()] = float(whole[2]) * (1 << 20)
        gpu = _PER_GPU.match(line.strip())
        if gpu is not None:
            for way, fields in (("read", gpu[2]), ("write", gpu[3])):
                _add(values, dict(_FIELD.findall(fields)), way, (*labels, ("gpu", gpu[1])))
    if not values:  # below level 3 there are only sums
        for way, moved in totals.items():
            values[Series(f"cufile_{way}_bytes", tuple(sorted(labels)))] = moved
    return values


def _add(values: dict[Series, float], fields: dict[str, str], way: str, labels: Labels) -> None:
    """Add the read or write counters of one GPU, unless it had no operations or errors."""
    if not float(fields.get("n", 0)) and not float(fields.get("err", 0)):
        return
    for field, value in fields.items():
        if field == "MiB":
            values[Series(f"cufile_{way}_bytes", tuple(sorted(labels)))] = float(value) * (1 << 20)
        elif field in _COUNTED:
            values[Series(_COUNTED[field], tuple(sorted((*labels, ("op", way)))))] = float(value)
