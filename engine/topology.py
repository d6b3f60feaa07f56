"""Who transfers to whom: nixlbench's schemes and modes as pairs of devices, in whole numbers.

A pair is one initiator's device and one target's device that move a batch of blocks in each iteration. On host memory a
device is a region of its own, registered with NIXL under a device number of its own; no device sits behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

SCHEMES = ("pairwise", "manytoone", "onetomany", "tp")
MODES = ("SG", "MG")
MOST_DEVICES = 64
"""Of one side: beyond it processes and registrations cost more than they show."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Devices of both sides and how they are paired.

    SG gives each device a process of its own, MG gives all devices of a side to one. Files have no process: storage is
    one process with all initiator devices, whichever the mode, and targets count only where a scheme multiplies them.
    """

    scheme: str = "pairwise"
    mode: str = "SG"
    initiators: int = 1
    targets: int = 1
    storage: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is one pair, whatever it is called."""
        return self.initiators == self.targets == 1

    @property
    def pairs(self) -> int:
        """Pairs of one thread."""
        if not self.storage:
            return max(self.initiators, self.targets)
        times = {"onetomany": self.targets, "tp": max(1, self.targets // self.initiators)}
        return self.initiators * times.get(self.scheme, 1)

    @property
    def lanes(self) -> int:
        """Initiator processes of one thread; each posts requests of its own."""
        return 1 if self.storage or self.mode == "MG" else self.initiators

    @property
    def lane_pairs(self) -> int:
        """Pairs that one initiator process serves."""
        return self.pairs // self.lanes

    @property
    def own_devices(self) -> int:
        """Devices of one initiator process."""
        return self.initiators if self.storage or self.mode == "MG" else 1

    @property
    def lane_targets(self) -> int:
        """Target processes that one initiator process reaches."""
        return 1 if self.storage or self.mode == "MG" else max(1, self.targets // self.initiators)

    @property
    def target_devices(self) -> int:
        """Devices of one target process."""
        return self.targets if self.mode == "MG" else 1

    @property
    def sharers(self) -> int:
        """Initiator processes that reach the same target process."""
        return 1 if self.storage or self.mode == "MG" else max(1, self.initiators // self.targets)

    @property
    def processes(self) -> int:
        """Processes of one thread."""
        return 1 if self.storage else 2 if self.mode == "MG" else self.initiators + self.targets

    def check(self) -> None:
        """Refuse what nixlbench's own lists of descriptors can't match.

        Raises:
            UsageError: The counts don't go with the scheme; the message says which would.
        """
        devices = f"{self.initiators} initiator and {self.targets} target devices"
        if max(self.initiators, self.targets) > MOST_DEVICES:
            raise UsageError(f"there are {devices}", f"give at most {MOST_DEVICES} of either")
        if self.scheme == "tp" and max(self.initiators, self.targets) % min(self.initiators, self.targets):
            raise UsageError(f"scheme tp has {devices}", "make one a multiple of the other")
        if self.storage:
            return
        if self.scheme == "pairwise" and self.initiators != self.targets:
            raise UsageError(f"scheme pairwise has {devices}", "give as many of one as of the other, or another scheme")
        if self.scheme == "onetomany" and self.initiators != 1:
            raise UsageError(f"scheme onetomany has {devices}", "give one initiator device, or use scheme tp")
        if self.scheme == "manytoone" and self.targets != 1:
            raise UsageError(f"scheme manytoone has {devices}", "give one target device, or use scheme tp")

    def said(self) -> str:
        """In words: `onetomany MG: 1 device to 4, 4 pairs, 2 processes`."""
        near = f"{self.initiators} device{'s' * (self.initiators > 1)}"
        far = "files" if self.storage else str(self.targets)
        several = f"{self.processes} process{'es' * (self.processes > 1)}"
        return f"{self.scheme} {self.mode}: {near} to {far}, {many(self.pairs, 'pair')}, {several}"
