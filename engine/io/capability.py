"""Checks before a step whether a path can run here with a backend: cheap, in this process, with doctor's reasons."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from kvdeck.engine.host.facts import FolderFacts
from kvdeck.engine.host.folder import folder_facts
from kvdeck.engine.io import cuda, nixl, plugins, reasons
from kvdeck.sessions.errors import UnavailableError

_FILE_BYTES = 4096


def check(path: str, backend: str, folder: Path | None = None, *, api: str | None = None) -> None:
    """Return if the path can run here with that backend.

    The first call for a backend creates it in a separate agent (tens of milliseconds); the result is cached.

    Args:
        path: One of `records.PATHS`.
        backend: A NIXL backend, or `staged:` and the backend between host memory and disk.
        folder: Folder of the path's files; None skips the check whether cuFile accepts files there.
        api: The POSIX plugin's API; None lets the plugin choose.

    Raises:
        UnavailableError: The path can't run; with the reason and the fix.
    """
    plain = backend.removeprefix(plugins.STAGED)
    if plain not in plugins.plugin_files():
        raise reasons.no_plugin(plain)
    if plain == backend and backend in _known() and backend not in plugins.SERVES[path]:
        raise reasons.wrong_path(path, backend, plugins.SERVES[path])
    if plugins.uses_device(path):
        cuda.require()
    params = {plugins.POSIX_PARAMS[api]: "true"} if api and plain == "POSIX" else {}
    failure = _creates(plain, tuple(params.items()))
    if failure is not None:
        raise UnavailableError(failure.what, failure.fix)
    if plain in ("GDS", "GDS_MT") and folder is not None and (failure := _takes_file(plain, folder)) is not None:
        raise UnavailableError(failure.what, failure.fix)
    if backend == plain and backend not in _known():
        _check_memory(path, backend)


def limit_of_files(backend: str, folder: Path) -> UnavailableError | None:
    """Return how cuFile is limited with files in `folder`, once `check` has passed; None without a limit."""
    if backend not in ("GDS", "GDS_MT"):
        return None
    _takes_file(backend, folder)
    return reasons.cufile_limit()


def usable_folder(folder: Path) -> FolderFacts:
    """Return the facts of a writable folder.

    Raises:
        UnavailableError: No file can be written in the folder.
    """
    facts = folder_facts(folder)
    if not facts.writable:
        raise reasons.bad_folder(facts.path, facts.reason or "no reason given")
    return facts


def folder_limit(facts: FolderFacts) -> UnavailableError | None:
    """Return why measurements in this folder don't reflect a disk (in memory, no O_DIRECT); None if they do."""
    if facts.in_memory:
        return reasons.in_memory(facts.path, facts.filesystem)
    if facts.direct_alignment is None:
        return reasons.no_direct(facts.path, facts.filesystem)
    return None


def _known() -> set[str]:
    return {backend for backends in plugins.SERVES.values() for backend in backends}


@functools.cache
def _creates(backend: str, params: tuple[tuple[str, str], ...]) -> UnavailableError | None:
    try:
        nixl.create_backend(nixl.make_agent(f"kvdeck-check-{backend}"), backend, dict(params))
    except UnavailableError as error:
        return error
    return None


@functools.cache
def _takes_file(backend: str, folder: Path) -> UnavailableError | None:
    """Return why cuFile can't register files in `folder` (it depends on the underlying disk); None if it can."""
    try:
        agent = nixl.make_agent(f"kvdeck-check-file-{backend}")
        nixl.create_backend(agent, backend)
        with tempfile.NamedTemporaryFile(prefix=".kvdeck-check-", dir=folder) as file:
            os.ftruncate(file.fileno(), _FILE_BYTES)
            plain = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)  # cuFile refuses the flags that tempfile opens with
            try:
                piece = nixl.register(agent, backend, "FILE", [(0, _FILE_BYTES, plain)])
                agent.deregister_memory(piece, backends=[backend])
            finally:
                os.close(plain)
    except UnavailableError as error:
        return error
    return None


def _check_memory(path: str, backend: str) -> None:
    """Raise UnavailableError if a plugin missing from `plugins.SERVES` lacks a memory type of the path's ends."""
    _, kinds = nixl.plugin_parameters(nixl.make_agent("kvdeck-check-memory"), backend)
    missing = [kind for kind in plugins.memory_of(path) if kind not in kinds]
    if missing:
        raise reasons.wrong_memory(path, backend, missing)
