"""A program that knows nothing of kvdeck: two processes move memory to each other over NIXL's UCX, through the API.

It writes 12 regions of 4096 bytes three times with one request from descriptor lists, the last posted by keyword, and
reads 8 prepared regions of 1000 bytes twice. Called with `die`, it kills itself after the first part was flushed.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
import sys
import time

REGIONS = 12


def agent(name: str):
    import ctypes

    import numpy as np
    from nixl._api import nixl_agent, nixl_agent_config

    made = nixl_agent(name, nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
    memory = mmap.mmap(-1, REGIONS * 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    registered = made.register_memory([(address, REGIONS * 4096, 0, "")], "DRAM")
    lists = np.array([(address + i * 4096, 4096, 0) for i in range(REGIONS)], np.uint64)
    return made, memory, registered, lists


def target(pipe) -> None:
    made, _memory, registered, lists = agent("target")
    pipe.send((made.get_agent_metadata(), lists))
    while not pipe.poll(0.001):
        made.get_new_notifs()
    made.deregister_memory(registered)
    leave()


def leave() -> None:
    """End without the C library's destructors: the wheel's libnl-route crashes in its own."""
    sys.stdout.flush()
    atexit._run_exitfuncs()
    os._exit(0)


def wait(made, handle, post=None) -> None:
    state = made.transfer(handle) if post is None else "PROC"
    if post is not None:
        post()
    while state == "PROC":
        state = made.check_xfer_state(handle)
    assert state == "DONE", state


def main() -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=target, args=(there,))
    other.start()
    made, _memory, registered, lists = agent("initiator")
    metadata, remote = here.recv()
    peer = made.add_remote_agent(metadata)
    descriptors = made.get_xfer_descs(lists, "DRAM"), made.get_xfer_descs(remote, "DRAM")
    handle = made.initialize_xfer("WRITE", *descriptors, peer)
    for post in (None, None, lambda: made.agent.postXferReq(reqh=handle._handle)):
        wait(made, handle, post)
    if sys.argv[1:] == ["die"]:
        time.sleep(2)
        other.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    made.release_xfer_handle(handle)
    small, remote_small = lists[:8].copy(), remote[:8].copy()
    small[:, 1] = remote_small[:, 1] = 1000
    sides = made.prep_xfer_dlist("NIXL_INIT_AGENT", small, "DRAM"), made.prep_xfer_dlist(peer, remote_small, "DRAM")
    prepared = made.make_prepped_xfer("READ", sides[0], list(range(8)), sides[1], list(range(8)))
    for _ in range(2):
        wait(made, prepared)
    made.release_xfer_handle(prepared)
    for side in sides:
        made.release_dlist_handle(side)
    here.send("end")
    other.join()
    made.remove_remote_agent(peer)
    made.deregister_memory(registered)
    print("moved")


if __name__ == "__main__":
    main()
    leave()
