"""Whether a path can run here by a backend, asked before a step: cheap, in this process, in doctor's words."""

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
    """Return if the path can run here by that backend.

    The first call for a backend creates it once in an agent of its own (tens of milliseconds); later ones remember.

    Args:
        path: One of `records.PATHS`.
        backend: A NIXL backend, or `staged:` and the one that the host's side uses.
        folder: Where the path's files would go; null leaves out whether cuFile takes files there.
        api: The POSIX plugin's API; null lets the plugin choose.

    Raises:
        UnavailableError: It can't; with the reason and the mend.
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
        raise UnavailableError(failure.what, failure.mend)
    if plain in ("GDS", "GDS_MT") and folder is not None and (failure := _takes_file(plain, folder)) is not None:
        raise UnavailableError(failure.what, failure.mend)
    if backend == plain and backend not in _known():
        _check_memory(path, backend)


def limit_of_files(backend: str, folder: Path) -> UnavailableError | None:
    """What an operator must know of files in that folder by cuFile, once `check` has passed; None without a limit."""
    if backend not in ("GDS", "GDS_MT"):
        return None
    _takes_file(backend, folder)
    return reasons.cufile_limit()


def usable_folder(folder: Path) -> FolderFacts:
    """The facts of a folder that files can be written in.

    Raises:
        UnavailableError: They can't.
    """
    facts = folder_facts(folder)
    if not facts.writable:
        raise reasons.bad_folder(facts.path, facts.reason or "no reason given")
    return facts


def folder_limit(facts: FolderFacts) -> UnavailableError | None:
    """What makes measurements in this folder say less than they seem to; None where nothing does."""
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
    """Why cuFile registers no file in that folder, which it decides by the disk below; None when it does."""
    try:
        agent = nixl.make_agent(f"kvdeck-check-file-{backend}")
        nixl.create_backend(agent, backend)
        with tempfile.NamedTemporaryFile(prefix=".kvdeck-check-", dir=folder) as file:
            os.ftruncate(file.fileno(), _FILE_BYTES)
            plain = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)  # cuFile refuses the flags of a temporary file's own
            try:
                piece = nixl.register(agent, backend, "FILE", [(0, _FILE_BYTES, plain)])
                agent.deregister_memory(piece, backends=[backend])
            finally:
                os.close(plain)
    except UnavailableError as error:
        return error
    return None


def _check_memory(path: str, backend: str) -> None:
    """A plugin that kvdeck has no table entry for serves a path when it takes both ends' kinds of memory."""
    _, kinds = nixl.plugin_parameters(nixl.make_agent("kvdeck-check-memory"), backend)
    missing = [kind for kind in plugins.memory_of(path) if kind not in kinds]
    if missing:
        raise reasons.wrong_memory(path, backend, missing)
