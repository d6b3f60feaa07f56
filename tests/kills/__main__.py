"""Kill real processes of kvdeck at random instants, and say what did not hold."""

from __future__ import annotations

import argparse
import sys
import time

from tests.surroundings import default_signals

from .trials import TRIALS, attempt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(TRIALS)}; default: all in turn")
    parser.add_argument("--count", type=int, default=300, help="kills in all")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    kinds = given.kinds or list(TRIALS)
    if unknown := [kind for kind in kinds if kind not in TRIALS]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    default_signals()
    failed, begun = 0, time.monotonic()
    for number in range(given.count):
        kind, seed = kinds[number % len(kinds)], given.seed * 1_000_000 + number
        what, broken = attempt(kind, seed)
        failed += bool(broken)
        print(f"{number + 1:4} {kind:16} {what}", flush=True)
        for each in broken:
            print(f"     FAILED (seed {seed}): {each}", flush=True)
    print(f"{given.count} kills in {time.monotonic() - begun:.0f} s, {failed} of them broke something")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
