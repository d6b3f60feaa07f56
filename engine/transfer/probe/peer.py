"""The second process of the UCX probe: its memory is written to and read from by the first."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import select
import signal
import sys

from kvdeck.engine.transfer import nixl, quiet
from kvdeck.engine.transfer.probe.transfer import SIZE, Pages, register


def main() -> None:
    """Register memory, tell where it is, and wait until stdin ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    stdout = quiet.claim_stdout()
    agent = nixl.make_agent("kvdeck-peer")
    nixl.create_backend(agent, "UCX")
    pages = Pages()
    piece = register(agent, (pages.address, SIZE, 0), "DRAM", "UCX")
    metadata = base64.b64encode(agent.get_agent_metadata()).decode()
    os.write(stdout, json.dumps({"metadata": metadata, "address": pages.address}).encode() + b"\n")
    # Transports without remote access need this side's help; a progress thread would take a whole core from the others.
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        agent.get_new_notifs()
    agent.deregister_memory(piece, backends=["UCX"])
    os._exit(0)


if __name__ == "__main__":
    main()
