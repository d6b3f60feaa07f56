"""Probes of POSIX and GDS: write and read a file in the target folder, past the page cache where possible."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.doctor.probe.transfer import SIZE, Pages, move, register
from kvdeck.engine.host.machine import memlock_bytes
from kvdeck.engine.io import capability, cuda, nixl, plugins, reasons
from kvdeck.engine.io.findings import PathFinding
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.model.records import DEVICE_TO_DISK, DISK_TO_DEVICE, DISK_TO_HOST, HOST_TO_DISK

_PATHS = (HOST_TO_DISK, DISK_TO_HOST, DEVICE_TO_DISK, DISK_TO_DEVICE)


def probe_posix(api: str, folder: Path) -> Iterator[PathFinding]:
    """Yield rows of the paths between host memory and files, by one API of the POSIX plugin.

    Raises:
        UnavailableError: The backend can't be created; no row was yielded then.
    """
    agent = nixl.make_agent(f"kvdeck-probe-{api}")
    nixl.create_backend(agent, "POSIX", {plugins.POSIX_PARAMS[api]: "true"})
    try:
        with _file(folder) as (descriptor, limit):
            yield from _host_rows(agent, "POSIX", api, descriptor, limit)
    except UnavailableError as error:  # the folder failed, the backend works
        yield from _refused("POSIX", api, error, (HOST_TO_DISK, DISK_TO_HOST))


def probe_gds(backend: str, folder: Path) -> Iterator[PathFinding]:
    """Yield rows of the paths between files and host or GPU memory, by cuFile.

    Raises:
        UnavailableError: The backend can't be created; no row was yielded then.
    """
    with tempfile.TemporaryDirectory(prefix="kvdeck-probe-") as scratch:
        log = Path(scratch) / "cufile.log"  # default: the current folder
        os.environ["CUFILE_LOGFILE_PATH"] = str(log)
        agent = nixl.make_agent(f"kvdeck-probe-{backend}")
        nixl.create_backend(agent, backend)
        try:
            with _file(folder) as (descriptor, limit):
                limit = limit or reasons.cufile_limit() or reasons.little_memlock(memlock_bytes())
                yield from _host_rows(agent, backend, None, descriptor, limit)
                yield from _device_rows(agent, backend, descriptor, lambda: limit or reasons.cufile_limit())
        except UnavailableError as error:
            yield from _refused(backend, None, error, _PATHS)


def _refused(backend: str, api: str | None, error: UnavailableError, paths: Sequence[str]) -> Iterator[PathFinding]:
    for path in paths:
        yield PathFinding(path, backend, api=api, memory=plugins.memory_of(path)).refused(error)


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[tuple[int, UnavailableError | None]]:
    """Yield the descriptor of a temporary file of `SIZE` bytes, and its folder's limitation (None: none).

    Raises:
        UnavailableError: The folder can't be written to.
    """
    facts = capability.usable_folder(folder)
    with tempfile.NamedTemporaryFile(prefix=".kvdeck-probe-", dir=folder) as file:
        # Reading past the end of a file would give fewer bytes than the transfer asks for.
        os.ftruncate(file.fileno(), SIZE)
        limit = capability.folder_limit(facts)
        descriptor = os.open(file.name, os.O_RDWR | (os.O_DIRECT if facts.direct_alignment else 0))
        try:
            yield descriptor, limit
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Side:
    """The memory endpoint of a transfer, with functions that write and read its bytes."""

    kind: str
    address: int
    put: Callable[[bytes], None]
    get: Callable[[], bytes]


def _host_rows(
    agent: Any, backend: str, api: str | None, descriptor: int, limit: UnavailableError | None
) -> Iterator[PathFinding]:
    pages = Pages()

    def put(data: bytes) -> None:
        pages.memory[:] = data

    side = _Side("DRAM", pages.address, put, lambda: pages.memory[:])
    yield from _rows(agent, backend, api, descriptor, side, (HOST_TO_DISK, DISK_TO_HOST), lambda: limit)


def _device_rows(
    agent: Any, backend: str, descriptor: int, limit: Callable[[], UnavailableError | None]
) -> Iterator[PathFinding]:
    paths = (DEVICE_TO_DISK, DISK_TO_DEVICE)
    pages = Pages()
    try:
        cuda.require()
        buffer = cuda.allocate(0, SIZE)
    except UnavailableError as error:
        yield from _refused(backend, None, error, paths)
        return

    def put(data: bytes) -> None:
        pages.memory[:] = data
        cuda.fill(buffer, pages.address, SIZE)

    def get() -> bytes:
        cuda.read(buffer, pages.address, SIZE)
        return pages.memory[:]

    side = _Side("VRAM", buffer.address, put, get)
    yield from _rows(agent, backend, None, descriptor, side, paths, limit)
    cuda.release(buffer)


def _rows(
    agent: Any,
    backend: str,
    api: str | None,
    descriptor: int,
    side: _Side,
    paths: tuple[str, str],
    limit: Callable[[], UnavailableError | None],
) -> Iterator[PathFinding]:
    """Yield a row for writing and one for reading the file; plain system calls on the file verify each."""
    file = ((0, SIZE, descriptor), "FILE")
    try:
        memory = register(agent, (side.address, SIZE, 0), side.kind, backend)
        registered_file = register(agent, *file, backend)
    except UnavailableError as error:
        yield from _refused(backend, api, error, paths)
        return
    # Memory that the backend doesn't know: the check of its bytes goes by another way than its transfer.
    plain = Pages()
    for path, operation in zip(paths, ("WRITE", "READ"), strict=True):
        row = PathFinding(path, backend, api=api, memory=plugins.memory_of(path))
        doing = f"a transfer {path}"
        try:
            if operation == "WRITE":
                side.put(plain.pattern)
            else:
                plain.fill()
                os.pwrite(descriptor, plain.memory, 0)
                side.put(bytes(SIZE))
            move(
                agent,
                operation,
                ((side.address, SIZE, 0), side.kind),
                file,
                peer=agent.name,
                backend=backend,
                doing=doing,
            )
            if operation == "WRITE":
                plain.poison()
                os.preadv(descriptor, [plain.memory], 0)
            arrived = plain.memory[:] if operation == "WRITE" else side.get()
            if arrived != plain.pattern:
                raise reasons.native_failure(doing, "the received bytes are wrong")
        except UnavailableError as error:
            yield row.refused(error)
        except OSError as error:
            yield row.refused(reasons.native_failure(doing, error.strerror or str(error)))
        else:
            yield row.working(limit())
    for piece in (memory, registered_file):
        agent.deregister_memory(piece, backends=[backend])
