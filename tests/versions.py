"""The versions that the tests have run with: `python -m tests.versions [--write]` compares or writes `versions.txt`."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

FILE = Path(__file__).with_name("versions.txt")


def installed() -> list[str]:
    """`name version` of Python and of every package of this environment, without kvdeck's own; sorted."""
    found = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in importlib.metadata.distributions()}
    found.pop("kvdeck", None)
    return [f"python {platform.python_version()}", *(f"{name} {version}" for name, version in sorted(found.items()))]


def main() -> int:
    now = installed()
    if "--write" in sys.argv[1:]:
        FILE.write_text("\n".join(now) + "\n")
        return 0
    tested = FILE.read_text().splitlines()
    for line in sorted(set(now) - set(tested)):
        name = line.partition(" ")[0]
        before = next((one.partition(" ")[2] for one in tested if one.partition(" ")[0] == name), "not there")
        print(f"{line} (tested: {before})")
    print(f"{len(set(now) & set(tested))} of {len(now)} packages are at the versions of {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
