"""Main function of a probe child: runs checks in order and prints their findings as JSON lines.

A check is `UCX`, `POSIX:AIO`, `POSIX:URING`, `POSIX:POSIXAIO`, `GDS`, `GDS_MT`, `DEVICE` or any other plugin's name.
Lines are `{"trying": check}`, `{"row": …}`, `{"plugin": …}`, `{"failed": …}` and `{"done": check}`; `trying` comes
first, so that it is known which check a child died in.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from kvdeck.engine.children.child import Child
from kvdeck.engine.doctor.probe import files, memory
from kvdeck.engine.doctor.probe.plugin import probe_plugin
from kvdeck.engine.io import cuda, nixl, stdio
from kvdeck.engine.io.findings import PathFinding
from kvdeck.sessions.errors import UnavailableError


def main(peer: Child | None) -> None:
    """Run the checks of the command line, print each finding at once, and exit; `peer` is UCX's second process."""
    parser = argparse.ArgumentParser(prog="python -m kvdeck.engine.doctor.probe")
    parser.add_argument("checks", nargs="*", metavar="CHECK")
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    stdout = stdio.claim_stdout()
    for check in options.checks:
        _say(stdout, {"trying": check})
        try:
            for kind, found in _run(check, options.folder, peer):
                _say(stdout, {kind: found})
        except UnavailableError as error:
            _say(stdout, {"failed": {"reason": error.what, "fix": error.fix}})
        _say(stdout, {"done": check})
    # Skips the interpreter's shutdown: native libraries have crashed during it.
    os._exit(0)


def _run(check: str, folder: Path, peer: Child | None) -> Iterator[tuple[str, object]]:
    backend, _, api = check.partition(":")
    if backend == "DEVICE":
        cuda.require()
        return
    probed = backend in ("UCX", "POSIX", "GDS", "GDS_MT")
    found = probe_plugin(backend, create=not probed)
    yield "plugin", found
    if not probed:
        return
    nixl.require_backend(backend)
    try:
        for row in _rows(backend, api, folder, peer):
            yield "row", row
    except UnavailableError as error:
        yield "plugin", dataclasses.replace(found, creates=False).refused(error)
        raise
    yield "plugin", dataclasses.replace(found, creates=True)


def _rows(backend: str, api: str, folder: Path, peer: Child | None) -> Iterator[PathFinding]:
    if backend == "UCX":
        assert peer is not None
        yield from memory.probe_ucx(peer)
    elif backend == "POSIX":
        yield from files.probe_posix(api, folder)
    else:
        yield from files.probe_gds(backend, folder)


def _say(stdout: int, line: dict[str, object]) -> None:
    os.write(stdout, orjson.dumps(line) + b"\n")
