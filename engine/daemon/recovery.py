"""Recovery of runs and telemetry recordings whose engine died: end their processes, remove test files, set the state.

While a run is queued or running, `active/<session>.json` in the home names its engine and worker, so that a starting
engine need not read every session.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from pathlib import Path

from msgspec import Struct

from kvdeck.engine.children.worker_process import end_group, end_left
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.files import read_regular, read_text, replace_file
from kvdeck.sessions.host.processes import ProcessIdentity
from kvdeck.sessions.model.encoding import decode, encode_line
from kvdeck.sessions.model.events import StateChanged
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.store import event_log
from kvdeck.sessions.store.owners import ENGINE_ENDED, OWNER_GONE
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry import session as keeping
from kvdeck.sessions.store.telemetry.annotations import is_written

SCRATCH_MARKER = ".kvdeck-scratch"
log = logging.getLogger("kvdeck.engine")


class Owner(Struct, frozen=True):
    """Engine and worker of a run or recording that is not over."""

    engine: ProcessIdentity
    worker: ProcessIdentity | None = None


def write_owner(store: Store, name: str, owner: Owner) -> None:
    """Write the owner of a session; raises OSError if that fails."""
    path = _owner_path(store, name)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    replace_file(path, encode_line(owner), durable=True)


def remove_owner(store: Store, name: str) -> None:
    _owner_path(store, name).unlink(missing_ok=True)


def _owner_path(store: Store, name: str) -> Path:
    return store.home / "active" / f"{name}.json"


def _read_owner(path: Path) -> Owner | None:
    try:
        return decode(Owner, read_regular(path))
    except (OSError, ValueError):
        return None


def recover(store: Store, grace: float) -> list[tuple[Session, str]]:
    """Recover every session whose engine is dead: end its processes, remove its test files, set it to `interrupted`.

    Sessions of a live engine, here or on another host with the same home, are not changed.

    Args:
        grace: Seconds that an orphaned worker has to end by itself.

    Returns:
        Each recovered session, and a log message about it.
    """
    for leftover in store.sessions.glob(".new-*"):
        # A younger one may be of a session that another process is creating now.
        if time.time() - leftover.stat().st_mtime > 60:
            shutil.rmtree(leftover, ignore_errors=True)
    recovered = []
    for path in sorted((store.home / "active").glob("*.json")):
        owner = _read_owner(path)
        # `gone` is False for an engine on another host that shares this home: its runs are left to it.
        if owner is not None and not owner.engine.gone:
            continue
        name = path.name.removesuffix(".json")
        try:
            recovered.append(_interrupt(store, name, owner, grace))
        except Exception as error:  # one broken session must not stop the engine from starting
            log.error("%s: %s", name, error, exc_info=None if isinstance(error, (KvdeckError, OSError)) else error)
            if not (store.sessions / name).is_dir():
                path.unlink(missing_ok=True)
    return recovered


def _interrupt(store: Store, name: str, owner: Owner | None, grace: float) -> tuple[Session, str]:
    if store.exists(name) and store.read(name).kind == "telemetry":
        return _end_recording(store, name, grace)
    folder = store.folder(name)
    done = []
    worker = None if owner is None else owner.worker
    if worker is not None and worker.here and end_group(worker.pid, worker.start, folder, grace):
        done.append(f"its worker {worker.pid} was still running")
    if worker is None and (left := end_left(folder)):
        done.append(f"ended unregistered processes {', '.join(map(str, left))}")
    done += remove_scratch(folder)
    session = store.rebuild(name)
    path = store.samples_path(name)
    if session.reason == ENGINE_ENDED:
        # The worker wrote `cancelled`, but no user cancelled the run: replace it, as a file has only one last state.
        event_log.drop_last_line(path)
        session = store.rebuild(name)
    if session.state not in FINAL_STATES:
        reason = (
            "the engine ended before the run began" if session.started is None else "the engine ended during the run"
        )
        change = StateChanged(time.monotonic_ns(), time.time(), "interrupted", reason)
        event_log.append_event(path, change)
        session = store.rebuild(name)
    store.write(session)
    remove_owner(store, name)
    return session, "; ".join([f"{name}: {session.state}", *done])


def _end_recording(store: Store, name: str, grace: float) -> tuple[Session, str]:
    """Wait for the recording's sampling child to end it; if that child is dead too, end it here."""
    deadline = time.monotonic() + grace
    while is_written(store.folder(name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    session = store.read(name)
    if session.state not in FINAL_STATES:
        keeping.end(store, name, "interrupted", OWNER_GONE)
    remove_owner(store, name)
    session = store.read(name)
    return session, f"{name}: recording {session.state}"


def remove_scratch(folder: Path) -> list[str]:
    """Remove the test files of a session whose worker is gone.

    Only real folders (no links) that hold the marker are removed: a path in `scratch.txt` alone is not enough.

    Returns:
        A log message per folder that was removed, was not eligible, or could not be removed.
    """
    note = folder / "scratch.txt"
    try:
        named = [Path(line) for line in read_text(note).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []
    done = [_remove_scratch_folder(scratch) for scratch in named]
    if not any(scratch.is_dir() and (scratch / SCRATCH_MARKER).is_file() for scratch in named):
        with contextlib.suppress(OSError):
            note.unlink()
    return [text for text in done if text]


def _remove_scratch_folder(scratch: Path) -> str:
    if not scratch.is_absolute() or scratch.is_symlink() or not (scratch / SCRATCH_MARKER).is_file():
        return f"did not remove {scratch}: it has no {SCRATCH_MARKER}" if scratch.is_dir() else ""
    try:
        _remove_tree(scratch)
    except OSError as error:
        return f"could not remove {scratch}: {error}"
    return f"removed {scratch}"


def _remove_tree(scratch: Path) -> None:
    # Remove the marker last, so that an interrupted removal can continue next time.
    for entry in scratch.iterdir():
        if entry.name == SCRATCH_MARKER:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (scratch / SCRATCH_MARKER).unlink()
    scratch.rmdir()
