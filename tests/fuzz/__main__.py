"""Mutate what kvdeck reads, by a seed, and say what did not hold: `python -m tests.fuzz [KIND…]`."""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .kinds import KINDS
from .trial import attempt

SHOWN = 20
"""Failures of one kind that are printed; the others are counted."""


def main() -> int:
    """Run the trials; 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--count", type=int, default=10_000, help="trials of each kind; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; the next has the next one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the last trial's files there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    kinds = given.kinds or list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    if given.here:
        return _run(kinds[0], given.seed, given.count, given.keep)
    failed = [kind for kind in kinds if not _in_a_process(kind, given.seed, given.count, given.keep)]
    print(f"{len(kinds)} kinds, {given.count:,} trials each: {', '.join(failed) + ' failed' if failed else 'all held'}")
    return 1 if failed else 0


def _in_a_process(kind: str, seed: int, count: int, keep: Path | None) -> bool:
    """Run the trials of a kind in a process, as one that dies must not take the others with it."""
    more = [] if keep is None else ["--keep", str(keep)]
    argv = [sys.executable, "-m", "tests.fuzz", kind, "--here", "--seed", str(seed), "--count", str(count), *more]
    status = subprocess.run(argv, check=False).returncode
    if status < 0:
        print(f"{kind}: the process died of signal {-status}; the trial is the last one that its stack names")
    return status == 0


def _run(kind: str, seed: int, count: int, keep: Path | None) -> int:
    faulthandler.enable()
    failed, begun = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kf-") as folder:
        root = Path(folder) / "w" if keep is None else keep / "w"
        for number in range(seed, seed + count):
            failure = attempt(KINDS[kind], number, root)
            if failure is not None:
                failed += 1
                if failed <= SHOWN:
                    print(failure, flush=True)
    seconds = time.monotonic() - begun
    print(f"{kind}: {count:,} trials, {failed} failed ({seconds:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
