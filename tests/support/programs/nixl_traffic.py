"""A program that writes 1 MiB to itself over NIXL's UCX, as many times as each line it reads says."""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import sys

SIZE = 1 << 20


def main() -> None:
    import numpy as np
    from nixl._api import nixl_agent, nixl_agent_config

    made = nixl_agent("traffic", nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
    memory = mmap.mmap(-1, 2 * SIZE)
    view = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(view)
    registered = made.register_memory([(address, 2 * SIZE, 0, "")], "DRAM")
    sides = [made.get_xfer_descs(np.array([(address + at, SIZE, 0)], np.uint64), "DRAM") for at in (0, SIZE)]
    handle = made.initialize_xfer("WRITE", *sides, "traffic")
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            state = made.transfer(handle)
            while state == "PROC":
                state = made.check_xfer_state(handle)
            assert state == "DONE", state
        print("moved", flush=True)
    made.release_xfer_handle(handle)
    made.deregister_memory(registered)


if __name__ == "__main__":
    main()
    atexit._run_exitfuncs()
    os._exit(0)  # the wheel's libnl-route crashes in its destructor
