"""`python -m kvdeck.engine.doctor.probe CHECK… [--folder DIR]`; see `checks`."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a hung probe must not outlive its doctor
    # Started before the large imports, so that both processes load in parallel.
    peer = None
    if "UCX" in sys.argv[1:]:
        peer = subprocess.Popen(
            [sys.executable, "-m", "kvdeck.engine.doctor.probe.peer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    from kvdeck.engine.doctor.probe import checks

    checks.main(peer)
