"""Start, reset and switching of traces, for kvdeck's recorder and for Dynamo's hooks alike."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.host.files import MAX_RECORD, read_regular, replace_file
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.store import Store, generated_names


def begin(store: Store, name: str) -> list[str]:
    """Create the session, or reopen it without losing counts.

    Returns:
        Side effects that an operator should know.

    Raises:
        SessionError: It can't be written, or is not a trace.
    """
    if not store.exists(name):
        now = time.time()
        host = {"hostname": platform.node()}
        store.keep(Session(name, "done", now, started=now, kind="trace", host=host))
    elif store.read(name).kind != "trace":
        raise SessionError(
            f"session {name!r} was measured or imported; it can't count transfers", "choose another name"
        )
    trace_counts.prepare(store.folder(name))
    return list(_dynamo_files(name))


def _dynamo_files(name: str) -> Iterable[str]:
    """Create the files that Dynamo's hooks need in order to record; damaged ones are renamed, and one message each
    yielded."""
    for path in dynamo.session_paths(name):
        try:
            if path.exists():
                dynamo.read(path, patience=0.2)
                continue
        except SessionError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            with contextlib.suppress(OSError):
                path.rename(aside)
            yield f"{error.what}; moved to {aside}"
        _write(path, dynamo.encode(dynamo.Counts(name, 0.0)))


def make_active(name: str) -> None:
    """Write the pointer files that Dynamo's hooks read.

    Raises:
        SessionError: They can't be written.
    """
    for path in dynamo.pointer_paths():
        _write(path, name.encode())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not 0600: the umask decides, as it does for the files that Dynamo's hooks create.
        replace_file(path, data, mode=0o666)
    except OSError as error:
        raise SessionError(
            f"can't write {path}: {error.strerror}", "check the folder's owner and free space"
        ) from error


def reset(store: Store, name: str) -> list[str]:
    """Count from zero; previous counts are archived.

    Returns:
        What was done, as messages.

    Raises:
        SessionError: There is no such trace, or it can't be written.
    """
    theirs = [path for path in dynamo.session_paths(name) if path.exists()]
    if not store.exists(name) and not theirs:
        raise SessionError(f"there is no session {name!r}", "see `kvdeck session list`")
    begin(store, name)
    folder = store.folder(name) / "recorder"
    epoch = trace_counts.reset(store.folder(name))
    for path in theirs:
        archive = folder / f"archive-{epoch}-{'temp' if path == dynamo.session_paths(name)[0] else 'home'}-{path.name}"
        try:
            archive.write_bytes(path.read_bytes())
        except OSError as error:
            raise SessionError(f"can't archive {path}: {error.strerror}", "check its owner and mode") from error
        _write(path, dynamo.encode(dynamo.Counts(name, 0.0)))
    said = [f"Session '{name}' counts from zero; its previous counts are archived in {folder}"]
    if theirs:
        said.append("Running processes with Dynamo's own hooks still write their old counts")
    return said


def switch(store: Store, name: str, enabled: bool) -> None:
    """Switch counting on or off in every process that counts into the session.

    Raises:
        SessionError: There is no such trace, or it can't be written.
    """
    if not store.exists(name):
        raise SessionError(f"there is no session {name!r}", f"create it with `kvdeck session init {name}`")
    if store.read(name).kind != "trace":
        raise SessionError(
            f"session {name!r} was measured or imported; it can't count transfers", "choose a session for counting"
        )
    trace_counts.prepare(store.folder(name))
    trace_counts.set_enabled(store.folder(name), enabled)


def new_name(store: Store, label: str) -> str:
    """Return a session name that is not taken, made of the time and `label`."""
    return next(name for name in generated_names(time.time(), label) if not store.folder(name).exists())


def loaded(folder: Path) -> list[str]:
    """Return what the traced processes loaded since `forget_loaded`, each once.

    `python` for a Python process with kvdeck's hook, the name of a module that is traced, `failed for NAME: ERROR`.
    """
    try:
        lines = read_regular(folder / "recorder/loaded", MAX_RECORD).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    return list(dict.fromkeys(lines))


def forget_loaded(folder: Path) -> None:
    """Remove the list of `loaded`, before another command is traced."""
    with contextlib.suppress(OSError):
        (folder / "recorder/loaded").unlink(missing_ok=True)


def environment(folder: Path, name: str) -> dict[str, str]:
    """Return the variables by which a program finds the session: Dynamo's and the recorder's."""
    return {dynamo.VARIABLE: name, "KVDECK_RECORD_FOLDER": os.fspath(folder.absolute())}
