"""`python -m kvdeck.engine.doctor.probe CHECK… [--folder DIR]`; see `checks`."""

from __future__ import annotations

import sys

from kvdeck.engine.children.child import DEVNULL, PIPE, Child, die_with_parent

if __name__ == "__main__":
    die_with_parent()  # a hung probe must not outlive its doctor
    # Started before the large imports, so that both processes load in parallel.
    peer = None
    if "UCX" in sys.argv[1:]:
        peer = Child(
            [sys.executable, "-m", "kvdeck.engine.doctor.probe.peer"],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            own_group=False,  # the doctor kills the probe's group
        )
    from kvdeck.engine.doctor.probe import checks

    checks.main(peer)
