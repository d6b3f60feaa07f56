"""A kind of job in one row: it counts. `python -m tests.support.programs.counting_job engine` runs its engine."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kvdeck.engine.daemon import server
from kvdeck.engine.daemon.job_kinds import JOB_KINDS, JobKind
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import Logged, RunStarted, StateChanged

MODULE = "tests.support.programs.counting_job"


@dataclass(frozen=True)
class CountingSpec:
    """How far to count; 0: until cancelled."""

    to: int
    label: str = "count"
    paths: tuple[str, ...] | None = None

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_mapping())


def parse(data: Any) -> CountingSpec:
    if set(data) != {"to"}:
        raise UsageError("a counting job takes `to`", "give how far to count")
    return CountingSpec(data["to"])


def work(folder: Path) -> None:
    cancelled = []
    signal.signal(signal.SIGTERM, lambda *_: cancelled.append(True))
    file = os.open(folder / "samples.jsonl", os.O_WRONLY | os.O_APPEND)

    def write(event: Any) -> None:
        for descriptor in (file, 1):
            os.write(descriptor, encode_line(event))

    last = yaml.safe_load((folder / "run.yaml").read_text())["to"]
    write(RunStarted(time.monotonic_ns(), time.time(), ()))
    for number in range(last):
        write(Logged(time.monotonic_ns(), "info", str(number)))
    while last == 0 and not cancelled:
        time.sleep(0.01)
    write(StateChanged(time.monotonic_ns(), time.time(), "cancelled" if cancelled else "done"))


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        JOB_KINDS["counting"] = JobKind(parse, MODULE)
        sys.exit(server.main())
    work(Path(sys.argv[sys.argv.index("--session-dir") + 1]))
