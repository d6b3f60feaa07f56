"""A run's own process: it measures, writes the session's samples, and tells the supervisor the same lines.

`python -m kvdeck.engine.transfer.worker --session-dir DIR` reads `DIR/run.yaml`. SIGTERM cancels; so does the end of
stdin, which means that the supervisor is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import orjson

from kvdeck.engine.host import host_facts
from kvdeck.engine.io import capability, hang, plugins
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.spec import RunSpec, spec_from_yaml
from kvdeck.engine.transfer.preflight import default_folder
from kvdeck.engine.transfer.run import execute
from kvdeck.engine.transfer.trials import DEFAULT_BACKENDS, Room, StandIn, Trial, plan_trials, room_of, share_time
from kvdeck.engine.transfer.tuning import tune
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UnavailableError
from kvdeck.sessions.host.files import no_room
from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.records import PATHS

MARKER = ".kvdeck-scratch"
ENGINE_ENDED = "the engine ended"
HANG_SECONDS = 30.0


class Scribe:
    """Writes each event to the session first and to the supervisor second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = os.open(folder / "samples.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Native libraries print where they like: stdout is kept for events, and what others print joins stderr.
        self._stream: int | None = os.dup(1)
        os.dup2(2, 1)

    def emit(self, event: events.Event) -> None:
        """Write one event.

        Raises:
            RunFailedError: The session can't be written; the supervisor still gets the event.
        """
        line = orjson.dumps(events.event_to_json(event), option=orjson.OPT_APPEND_NEWLINE)
        try:
            _write(self._file, line)
        except OSError as error:
            raise RunFailedError(*write_error(error, self._folder)) from error
        finally:
            self._send(line)

    def _send(self, line: bytes) -> None:
        if self._stream is not None:
            try:
                _write(self._stream, line)
            except BrokenPipeError:  # the supervisor is gone; stdin's end says so too, and cancels
                self._stream = None


def _write(fd: int, line: bytes) -> None:
    done = os.write(fd, line)
    while done < len(line):
        done += os.write(fd, line[done:])


class Stop:
    """Whether the run was told to stop, and why."""

    def __init__(self) -> None:
        self.reason: str | None = None
        signal.signal(signal.SIGTERM, lambda *_: self.ask("cancelled"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._watch_stdin, name="stdin", daemon=True).start()

    def ask(self, reason: str) -> None:
        self.reason = self.reason or reason

    def asked(self) -> bool:
        return self.reason is not None

    def _watch_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self.ask(ENGINE_ENDED)
        time.sleep(HANG_SECONDS)
        # Nobody is left to end a run that hangs in a native call; its ranks follow it.
        os.kill(os.getpid(), signal.SIGKILL)


def make_scratch(session: Path, spec: RunSpec) -> Path:
    """A folder of the run's own for test files; where it lies is noted before it is made."""
    base = Path(spec.folder) if spec.folder else default_folder()
    scratch = base / f"kvdeck-{session.name}-{os.getpid()}"
    (session / "scratch.txt").write_text(f"{scratch}\n")
    try:
        scratch.mkdir(mode=0o700)
        (scratch / MARKER).touch()
    except OSError as error:
        raise KvdeckError(
            f"can't write test files in {base}: {error.strerror}", "name another with --folder"
        ) from error
    return scratch


def remove_scratch(session: Path, scratch: Path) -> None:
    """Remove the test files and the note of where they were."""
    if (scratch / MARKER).exists():
        shutil.rmtree(scratch, ignore_errors=True)
    (session / "scratch.txt").unlink(missing_ok=True)


def run(session: Path, scribe: Scribe, stop: Stop) -> tuple[records.RunState, str | None]:
    """The run itself; returns its final state and a reason."""
    spec = spec_from_yaml(session / "run.yaml")
    os.environ.setdefault("CUFILE_LOGFILE_PATH", str(session / "cufile.log"))  # else it lands where the engine stands
    scratch = make_scratch(session, spec)
    try:
        room = room_of(host_facts(scratch))
        stand_ins = find_stand_ins(spec, scratch)
        trials = announce(spec, plan_trials(spec, room, None, stand_ins), room, scratch, scribe)
        tuned = tune_paths(spec, trials, room, scratch, scribe, stop) if spec.tune else {}
        if tuned:
            trials = announce(spec, plan_trials(spec, room, tuned, stand_ins), room, scratch, scribe)
        planned = tuple((tuned.get(trial.path, spec), trial) for trial in trials)
        state = execute(planned, room, str(scratch), scribe.emit, stop.asked)
    finally:
        remove_scratch(session, scratch)
    if state == "cancelled" and stop.reason == ENGINE_ENDED:
        state = "interrupted"
    return state, stop.reason if state in ("cancelled", "interrupted") else None


def announce(spec: RunSpec, trials: tuple[Trial, ...], room: Room, scratch: Path, scribe: Scribe) -> tuple[Trial, ...]:
    """Tell the steps to come, before anything is measured and again where tuning changed them."""
    trials = share_time(spec, trials, lambda trial: can_run(trial, scratch))
    steps = tuple(step for trial in trials for step in trial.steps)
    scribe.emit(
        events.RunStarted(
            time.monotonic_ns(),
            time.time(),
            steps,
            host=room.host.comparable(),
            nixl=plugins.nixl_version(),
            spec=spec.to_mapping(),
        )
    )
    return trials


def find_stand_ins(spec: RunSpec, scratch: Path) -> dict[str, StandIn]:
    """Where a default backend can't run and staging through host memory can, the latter, under its own name.

    So too where cuFile would go through host memory itself: there NIXL's GDS plugin was seen to wait for ever for a
    request of 16 × 2 MiB (NIXL 1.5.1, cuFile 1.15, H100).
    """
    found: dict[str, StandIn] = {}
    for path, backend in DEFAULT_BACKENDS.items():
        staged = f"{plugins.STAGED}POSIX"
        if backend != "GDS" or spec.backend is not None or path not in (spec.paths or PATHS):
            continue
        try:
            capability.check(path, backend, scratch)
            refusal = capability.limit_of_files(backend, scratch)
        except UnavailableError as error:
            refusal = error
        if refusal is not None:
            with contextlib.suppress(UnavailableError):
                capability.check(path, staged, scratch)
                found[path] = StandIn(staged, f"staged through host memory, because {refusal.what}")
    return found


def can_run(trial: Trial, scratch: Path) -> bool:
    try:
        capability.check(trial.path, trial.backend, scratch, api=trial.api)
    except UnavailableError:
        return False
    return True


def tune_paths(spec: RunSpec, trials: tuple[Trial, ...], room: Room, scratch: Path, scribe: Scribe,
               stop: Stop) -> dict[str, RunSpec]:  # fmt: skip
    """The best settings for each path; a path that can't be tuned keeps what was asked, and says why."""
    found: dict[str, RunSpec] = {}
    for path in dict.fromkeys(trial.path for trial in trials):
        if not any(can_run(trial, scratch) for trial in trials if trial.path == path):
            continue
        try:
            best = tune(spec, path, room, str(scratch), scribe.emit, stop.asked)
        except CancelledError:
            break
        except RunFailedError:
            raise
        except KvdeckError as error:
            scribe.emit(events.Log(time.monotonic_ns(), "warning", f"{path} was not tuned: {error}"))
            continue
        found[path] = dataclasses.replace(best, paths=spec.paths)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--session-dir", type=Path, required=True)
    session: Path = parser.parse_args().session_dir.resolve()
    scribe, stop = Scribe(session), Stop()
    hang.start(lambda what: tell_end(scribe, "failed", str(KvdeckError(what, "try another --backend; see engine.log"))))
    try:
        state, reason = run(session, scribe, stop)
    except KvdeckError as error:
        state, reason = "failed", str(error)
    except OSError as error:
        state, reason = "failed", str(KvdeckError(*write_error(error, session)))
    tell_end(scribe, state, reason)


def tell_end(scribe: Scribe, state: records.RunState, reason: str | None) -> None:
    """Tell the run's last line."""
    # Where the disk is full the engine still hears of it, and writes it down once the test files are gone.
    with contextlib.suppress(RunFailedError):
        scribe.emit(events.StateChanged(time.monotonic_ns(), time.time(), state, reason))


def write_error(error: OSError, session: Path) -> tuple[str, str]:
    """An error of the file system: what is wrong, and what to do; the session's own files are those without a name."""
    where = error.filename if isinstance(error.filename, str) else str(session)
    what, fix = no_room(error) or (os.strerror(error.errno or 0), "check its owner and mode")
    return f"can't write in {where}: {what}", f"{fix}, or set KVDECK_HOME to a folder on another disk"


if __name__ == "__main__":
    run_and_exit(main)
