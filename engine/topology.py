"""nixlbench's schemes and modes as pairs of initiator and target devices.

A pair is one initiator device and one target device that move a batch of blocks per iteration. On host memory, a device
is a separate region, registered with NIXL under its own device number; it has no hardware device.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

SCHEMES = ("pairwise", "manytoone", "onetomany", "tp")
MODES = ("SG", "MG")
MOST_DEVICES = 64
"""Most devices per endpoint; more processes and registrations would cost more than they show."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Devices of both endpoints and their pairing.

    SG: one process per device. MG: one process for all devices of an endpoint. Storage: one process with all initiator
    devices in both modes, since files need no target process; targets count only in `onetomany` and `tp`.
    """

    scheme: str = "pairwise"
    mode: str = "SG"
    initiators: int = 1
    targets: int = 1
    storage: bool = False

    @property
    def plain(self) -> bool:
        """True for one initiator and one target device, in any scheme."""
        return self.initiators == self.targets == 1

    @property
    def pairs(self) -> int:
        """Pairs per thread."""
        if not self.storage:
            return max(self.initiators, self.targets)
        times = {"onetomany": self.targets, "tp": max(1, self.targets // self.initiators)}
        return self.initiators * times.get(self.scheme, 1)

    @property
    def lanes(self) -> int:
        """Initiator processes per thread; each posts its own requests."""
        return 1 if self.storage or self.mode == "MG" else self.initiators

    @property
    def lane_pairs(self) -> int:
        """Pairs per initiator process."""
        return self.pairs // self.lanes

    @property
    def own_devices(self) -> int:
        """Devices per initiator process."""
        return self.initiators if self.storage or self.mode == "MG" else 1

    @property
    def lane_targets(self) -> int:
        """Target processes per initiator process."""
        return 1 if self.storage or self.mode == "MG" else max(1, self.targets // self.initiators)

    @property
    def target_devices(self) -> int:
        """Devices per target process."""
        return self.targets if self.mode == "MG" else 1

    @property
    def sharers(self) -> int:
        """Initiator processes per target process."""
        return 1 if self.storage or self.mode == "MG" else max(1, self.initiators // self.targets)

    @property
    def processes(self) -> int:
        """Processes per thread."""
        return 1 if self.storage else 2 if self.mode == "MG" else self.initiators + self.targets

    def check(self) -> None:
        """Refuse device counts for which nixlbench's descriptor lists would not match.

        Raises:
            UsageError: The scheme does not allow the counts, or one is not in 1 to `MOST_DEVICES`; with a fix.
        """
        devices = f"{self.initiators} initiator and {self.targets} target devices"
        if min(self.initiators, self.targets) < 1:
            raise UsageError(f"there are {devices}", "give at least 1 of either")
        if max(self.initiators, self.targets) > MOST_DEVICES:
            raise UsageError(f"there are {devices}", f"give at most {MOST_DEVICES} of each")
        if self.scheme == "tp" and max(self.initiators, self.targets) % min(self.initiators, self.targets):
            raise UsageError(f"scheme tp has {devices}", "make one a multiple of the other")
        if self.storage:
            return
        if self.scheme == "pairwise" and self.initiators != self.targets:
            raise UsageError(f"scheme pairwise has {devices}", "give equal numbers, or another scheme")
        if self.scheme == "onetomany" and self.initiators != 1:
            raise UsageError(f"scheme onetomany has {devices}", "give one initiator device, or use scheme tp")
        if self.scheme == "manytoone" and self.targets != 1:
            raise UsageError(f"scheme manytoone has {devices}", "give one target device, or use scheme tp")

    def said(self) -> str:
        """Return a summary: `onetomany MG: 1 device to 4, 4 pairs, 2 processes`."""
        near = f"{self.initiators} device{'s' * (self.initiators > 1)}"
        far = "files" if self.storage else str(self.targets)
        several = f"{self.processes} process{'es' * (self.processes > 1)}"
        return f"{self.scheme} {self.mode}: {near} to {far}, {many(self.pairs, 'pair')}, {several}"
