"""A home and a runtime folder of a trial's own, and every process that was started for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.store.catalogue import catalogue
from kvdeck.sessions.store.index import SessionSummary
from kvdeck.sessions.store.store import Store

TOKEN = "KVDECK_KILLS_WORLD"
PATIENCE_S = 20.0
STOP_S = 5.0
"""What `engine stop --force` may take, whatever state the engine is in."""


class Broken(Exception):
    """Something that must hold does not."""


class World:
    """Folders of a trial's own. Processes that it starts, and theirs, carry its token in their environment."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kk", dir=os.environ.get("TMPDIR", "/tmp")))
        self.home, self.runtime = self.root / "home", self.root / "run"
        self.token = self.root.name
        (self.root / "tmp").mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KVDECK_", "DYNAMO_", "UCX_", "NIXL_"))}
        self.environment = {
            **kept,
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "KVDECK_HOME": str(self.home),
            "KVDECK_RUNTIME": str(self.runtime),
            TOKEN: self.token,
        }
        self.started: list[subprocess.Popen[Any]] = []

    def start(self, *argv: str, output: Path | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a session of its own; its standard output goes to the file."""
        with contextlib.ExitStack() as files:
            out = files.enter_context(output.open("wb")) if output else subprocess.DEVNULL
            process = subprocess.Popen(
                argv,
                env=options.pop("env", self.environment),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", out),
                stderr=options.pop("stderr", subprocess.STDOUT if output else subprocess.DEVNULL),
                start_new_session=True,
                **options,
            )
        self.started.append(process)
        return process

    def kvdeck(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        return self.start(sys.executable, "-m", "kvdeck.app.cli.main", *arguments, **options)

    def call(self, *arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end.

        Raises:
            Broken: It takes longer than the timeout, or prints a traceback.
        """
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        try:
            done = subprocess.run(
                argv, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"`kvdeck {' '.join(arguments)}` has not ended after {timeout:.0f} s") from error
        if "Traceback" in done.stderr or "unexpected" in done.stderr:
            raise Broken(f"`kvdeck {' '.join(arguments)}` broke:\n{done.stderr[-2000:]}")
        return done

    def rows(self) -> dict[str, SessionSummary]:
        """What `session list` shows, by name; Dynamo's own files are not kvdeck's to end or delete."""
        return {row.name: row for row in catalogue(Store(self.home)) if row.kind != "dynamo"}

    def sessions(self) -> dict[str, str]:
        """Name to state."""
        return {name: row.state for name, row in self.rows().items()}

    def listed(self) -> dict[str, str]:
        """Name to state, as the command prints them."""
        done = self.call("session", "list", "--json")
        if done.returncode:
            raise Broken(f"`session list` ends with {done.returncode}: {done.stderr}")
        return {row["name"]: row["state"] for row in orjson.loads(done.stdout) if row["kind"] != "dynamo"}

    def engine_pid(self) -> int | None:
        try:
            return int(orjson.loads((self.runtime / "engine.json").read_bytes())["process"]["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def living(self) -> dict[int, str]:
        """Processes of this world that run, zombies left out: pid to command line."""
        mark = f"{TOKEN}={self.token}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                if (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    continue
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        return found

    def below(self, pid: int) -> list[int]:
        """Living descendants of a process, nearest first."""
        parents: dict[int, list[int]] = {}
        for each in self.living():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{each}/stat").read_bytes().rpartition(b")")[2].split()
                parents.setdefault(int(stat[1]), []).append(each)
        found, level = [], parents.get(pid, [])
        while level:
            found += level
            level = [child for each in level for child in parents.get(each, [])]
        return found

    def close(self) -> list[str]:
        """Force the engine to stop and check what must hold of every world after its kills; remove it.

        Returns:
            What does not hold, one line each.
        """
        broken: list[str] = []
        try:
            self._check(broken)
        except Broken as error:
            broken.append(str(error))
        finally:
            for pid in self.living():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            for process in self.started:
                process.wait()
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()
            if not broken:
                shutil.rmtree(self.root, ignore_errors=True)
        return broken

    def _check(self, broken: list[str]) -> None:
        begun = time.monotonic()
        stopped = self.call("engine", "stop", "--force")
        took = time.monotonic() - begun
        if stopped.returncode:
            broken.append(f"`engine stop --force` ends with {stopped.returncode}: {stopped.stderr.strip()}")
        if took > STOP_S + 2:  # two of them for Python's start on a busy host
            broken.append(f"`engine stop --force` took {took:.1f} s")
        with contextlib.suppress(Broken):
            wait_until(lambda: not self.living(), 3.0, "")
        broken.extend(f"still runs: {pid} {command}" for pid, command in self.living().items())
        started = self.call("engine", "start")
        if started.returncode:
            broken.append(f"the next start ends with {started.returncode}: {started.stderr.strip()}")
        wait_until(lambda: not list((self.home / "active").glob("*")), 5.0, "an owner record stays in active/")
        sessions = self.listed()
        stuck = {name: state for name, state in sessions.items() if state not in FINAL_STATES}
        broken.extend(f"{name} is {state} for ever" for name, state in stuck.items())
        for name in sessions:
            shown = self.call("session", "show", name)
            if shown.returncode:
                broken.append(f"`session show {name}` ends with {shown.returncode}: {shown.stderr.strip()}")
        if sessions:
            deleted = self.call("session", "delete", *sessions, "--yes")
            if deleted.returncode or self.sessions():
                broken.append(f"{', '.join(self.sessions())} can't be deleted: {deleted.stderr.strip()}")


def wait_until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Wait for what comes to pass in another process.

    Raises:
        Broken: It did not within that time.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Broken(otherwise)
        time.sleep(0.02)
