"""The physical bound of a disk: the rate of its PCIe link, as the kernel states it in sysfs; nothing is guessed.

`current_link_speed` and `current_link_width` are in Linux's Documentation/ABI/testing/sysfs-bus-pci. What a link
carries of its raw rate follows from its line code: 8b/10b up to 5 GT/s, 128b/130b from 8 GT/s up (PCI Express Base
Specification 3.0, section 4.2). Packet headers take some of it, so no disk reaches the bound.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.host.folder import mount_of
from kvdeck.engine.host.kernel_files import kernel_number, kernel_text
from kvdeck.sessions.units import number_text

_SPEED = re.compile(r"([0-9]+(?:\.[0-9]+)?) GT/s")
_FLIT_GT_PER_S = 64.0
"""From this rate on (PCIe 6.0) a link sends FLITs, whose share of bytes isn't known here."""


@dataclass(frozen=True, slots=True)
class DiskBound:
    """What a folder's disk can't exceed, and why; or why it isn't known."""

    gb_per_s: float | None
    """In GB/s, one direction; None: not known."""
    words: str
    """The disk's link and its source, or the reason."""


def disk_bound(folder: Path, sys: Path = Path("/sys")) -> DiskBound:
    """Return the bound of the disk that holds a folder; `sys` is sysfs."""
    path = Path(os.path.realpath(folder))
    number = _device_number(path)
    block = None if number is None else sys / "dev" / "block" / number
    if block is None or not block.exists():
        return DiskBound(None, "the folder isn't on a block device of this host")
    return bound_of_block(Path(os.path.realpath(block)))


def _device_number(path: Path) -> str | None:
    """Return `major:minor` of a folder's device; of some filesystems (btrfs) only the mount table has it."""
    try:
        number = path.stat().st_dev
        if os.major(number) == 0:
            number = Path(mount_of(path)[2]).stat().st_rdev
    except OSError:
        return None
    return f"{os.major(number)}:{os.minor(number)}" if number else None


def bound_of_block(block: Path) -> DiskBound:
    """Return the bound of a block device, given by its folder in sysfs."""
    if (block / "partition").exists():
        block = block.parent
    below = sorted((block / "slaves").iterdir()) if (block / "slaves").is_dir() else []
    if len(below) > 1:
        return DiskBound(None, f"{block.name} lies on {len(below)} devices")
    if below:
        return bound_of_block(Path(os.path.realpath(below[0])))
    controller = next((parent for parent in block.parents if re.fullmatch(r"nvme\d+", parent.name)), None)
    if controller is None:
        return DiskBound(None, f"{block.name} is no NVMe disk on PCIe")
    link = Path(os.path.realpath(controller / "device"))
    speed = _SPEED.match(kernel_text(link / "current_link_speed") or "")
    width = kernel_number(link / "current_link_width")
    if speed is None or not width:
        return DiskBound(None, f"the kernel states no PCIe link of {block.name}")
    rate = float(speed[1])
    if rate >= _FLIT_GT_PER_S:
        return DiskBound(None, f"what a link of {speed[0]} carries isn't known here ({block.name})")
    carried = rate * width * (128 / 130 if rate >= 8 else 8 / 10) / 8
    words = f"PCIe link of {block.name}, {number_text(rate)} GT/s × {width} (current_link_speed and _width in sysfs)"
    return DiskBound(carried, words)
