"""Staged requests over real POSIX files. Without a GPU the device's memory is played by host memory of its own."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from kvdeck.engine.io import nixl
from kvdeck.engine.io.bindings import Rows, StagedBinding
from kvdeck.engine.io.endpoints import FileSide, HostSide, Origin, register
from kvdeck.engine.io.loop import Patience, serial_visit
from kvdeck.engine.planning.layout import LAYER_SEPARATE, Geometry

GEOMETRY = Geometry(2, 2, 1, 4096, "int8")
BLOCKS = 4


def copy(destinations: Rows, sources: Rows) -> None:
    for (to, size, _), (origin, *_rest) in zip(destinations.tolist(), sources.tolist(), strict=True):
        ctypes.memmove(to, origin, size)


@pytest.mark.parametrize("write", [True, False])
def test_bytes_pass_through_host_memory(tmp_path: Path, write: bool) -> None:
    agent = nixl.make_agent("staged-test")
    nixl.create_backend(agent, "POSIX")
    device, bounce = (HostSide(GEOMETRY, BLOCKS, huge_pages=False) for _ in range(2))
    files = FileSide(GEOMETRY, BLOCKS, tmp_path, 1, direct=False)
    registered = [register(agent, side, "POSIX") for side in (bounce, files)]
    source, destination = (device, files) if write else (files, device)
    source.fill(7)
    destination.poison()
    bounce.poison()
    near, far, own = (side.describe(LAYER_SEPARATE, whole=False).reshape(-1, 3) for side in (bounce, files, device))
    lists = [
        agent.prep_xfer_dlist(name, rows, kind)
        for name, rows, kind in (("", near, "DRAM"), ("staged-test", far, "FILE"))
    ]
    rows = np.arange(len(near), dtype=np.int32)
    handle = agent.make_prepped_xfer("WRITE" if write else "READ", lists[0], rows, lists[1], rows)
    binding = StagedBinding(agent.agent, copy, write=write)
    binding.stage(handle._handle, own, near)
    serial_visit(binding.postXferReq, binding.getXferStatus, [handle._handle], Patience(10, lambda: False))
    assert destination.check(LAYER_SEPARATE, Origin(LAYER_SEPARATE, 1, 7)) is None
    agent.release_xfer_handle(handle)
    for prepared in lists:
        agent.release_dlist_handle(prepared)
    for one in registered:
        agent.deregister_memory(one)
    for side in (device, bounce, files):
        side.close()
