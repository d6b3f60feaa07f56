"""`python -m kvdeck.engine.doctor.probe CHECK… [--folder DIR]`; see `checks`."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a probe that hangs must not outlive its doctor
    # Started before anything large is imported, so that both processes load at the same time.
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
