"""Second process of the UCX probe, whose memory the first one writes and reads."""

from __future__ import annotations

import base64
import json
import os
import select
import sys
from typing import Any

from kvdeck.engine.children.child import die_with_parent
from kvdeck.engine.doctor.probe.transfer import SIZE, Pages, register
from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import cuda, nixl, stdio
from kvdeck.sessions.errors import UnavailableError

_KEPT: list[Any] = []
"""Agents that must live as long as the process."""


def main() -> None:
    """Register memory, print a JSON line with its metadata and address (a second for GPU memory), await stdin's end."""
    die_with_parent()
    stdout = stdio.claim_stdout()
    agent = nixl.make_agent("kvdeck-peer")
    nixl.create_backend(agent, "UCX")
    pages = Pages()
    piece = register(agent, (pages.address, SIZE, 0), "DRAM", "UCX")
    metadata = base64.b64encode(agent.get_agent_metadata()).decode()
    os.write(stdout, json.dumps({"metadata": metadata, "address": pages.address}).encode() + b"\n")
    if driver_present():
        os.write(stdout, json.dumps(_on_gpu()).encode() + b"\n")
    # Transports without RMA need progress here; a progress thread would occupy a whole core.
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        agent.get_new_notifs()
        for other in _KEPT:
            other.get_new_notifs()
    agent.deregister_memory(piece, backends=["UCX"])
    os._exit(0)


def _on_gpu() -> dict[str, Any]:
    """Register GPU memory in a separate agent; return its metadata, address and device, or `failed` with the reason."""
    try:
        place = min(1, cuda.require() - 1)
        buffer = cuda.allocate(place, SIZE)
        agent = nixl.make_agent("kvdeck-peer-device")
        nixl.create_backend(agent, "UCX")
        register(agent, (buffer.address, SIZE, place), "VRAM", "UCX")
    except UnavailableError as error:
        return {"failed": {"what": error.what, "fix": error.fix}}
    _KEPT.append(agent)
    metadata = base64.b64encode(agent.get_agent_metadata()).decode()
    return {"metadata": metadata, "address": buffer.address, "device": place}


if __name__ == "__main__":
    main()
