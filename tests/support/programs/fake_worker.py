"""A small real worker child: it keeps the worker's contract with rounds of no transfer, and misbehaves on request.

The run's spec says how, in `params`: `rounds` and `every` (seconds between them), `steps` (that take turns),
`wide` (times in a round), `end` (`done`, `segv`, `exit`, `torn`, `deaf`), `rank` (a child to leave behind,
its pid in that file), `scratch`.
"""

from __future__ import annotations

import faulthandler
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import yaml

from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import COUNTERS, Logged, ReferenceRound, Round, RunStarted, StateChanged
from kvdeck.sessions.model.records import StepPlan


def plan() -> StepPlan:
    return StepPlan(0, 0, "HostToHost", "FullyContiguous", "UCX", None, None, 2 << 20, 16, 64, 1)


class FakeWorker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params = yaml.safe_load((folder / "run.yaml").read_text())["params"]
        self.file = os.open(folder / "samples.jsonl", os.O_WRONLY | os.O_APPEND)
        self.cancelled = False
        self.scratch: Path | None = None

    def write(self, line: bytes) -> None:
        os.write(self.file, line)
        try:
            os.write(1, line)
        except BrokenPipeError:
            self.cancelled = True

    def round(self, number: int, total: int) -> None:
        values: list[float | None] = [None] * len(COUNTERS)
        step = number % int(self.params.get("steps", 1))
        values[0], values[1], values[2], values[-2], values[-1] = step, number, number + 1, (number + 1) / total, 1.0
        times = (1000,) * int(self.params.get("wide", 1))
        self.write(encode_line(Round(time.monotonic_ns(), step, number, times, times, 2000, tuple(values))))
        if number % 10 == 5:
            self.write(encode_line(ReferenceRound(time.monotonic_ns(), 0, number, "memcpy", 4096, 2000)))

    def wait(self, seconds: float) -> str | None:
        """Wait; why to stop, if at all. EOF on stdin: the engine is gone."""
        ready, _, _ = select.select([0], [], [], seconds)
        if ready and not os.read(0, 1):
            return "the engine ended"
        return "" if self.cancelled else None

    def make_scratch(self, path: Path) -> None:
        (self.folder / "scratch.txt").write_text(str(path))
        path.mkdir()
        (path / ".kvdeck-scratch").touch()
        (path / "data.bin").write_bytes(bytes(4096))
        self.scratch = path

    def end(self, state: str, reason: str | None = None) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch)
            (self.folder / "scratch.txt").unlink()
        self.write(encode_line(StateChanged(time.monotonic_ns(), time.time(), state, reason)))  # type: ignore[arg-type]
        sys.exit(0)

    def run(self) -> None:
        params = self.params
        if "scratch" in params:
            self.make_scratch(Path(params["scratch"]))
        if "rank" in params:
            rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
            Path(params["rank"]).write_text(str(rank.pid))
        self.write(encode_line(RunStarted(time.monotonic_ns(), time.time(), (plan(),))))
        total = int(params.get("rounds", 3))
        for number in range(total):
            self.round(number, total)
            if number % 100 == 50:
                self.write(encode_line(Logged(time.monotonic_ns(), "info", f"round {number}")))
            why = self.wait(float(params.get("every", 0)))
            if why is not None and params.get("end") != "deaf":
                self.end("cancelled", why or None)
        self.finish(params.get("end", "done"))

    def finish(self, how: str) -> None:
        print("last words of the worker", file=sys.stderr, flush=True)
        if how == "segv":
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "exit":
            sys.exit(7)
        if how == "torn":
            # What a kill between two writes leaves: a whole line that only the file has, and half of another.
            os.write(self.file, orjson.dumps({"kind": "log", "t": 1, "level": "info", "text": "file only"}) + b"\n")
            os.write(self.file, b'{"kind":"round","t":12')
            os.kill(os.getpid(), signal.SIGKILL)
        while how == "deaf":
            time.sleep(600)
        self.end("done")


def main() -> None:
    worker = FakeWorker(Path(sys.argv[sys.argv.index("--session-dir") + 1]))

    def cancel(*_: object) -> None:
        worker.cancelled = True

    signal.signal(signal.SIGTERM, signal.SIG_IGN if worker.params.get("end") == "deaf" else cancel)
    worker.run()


if __name__ == "__main__":
    main()
