"""Target process of a transfer: memory that an initiator in another process writes to or reads from."""

from __future__ import annotations

import base64
import os
from typing import Any

from msgspec.structs import asdict

from kvdeck.engine.io import nixl
from kvdeck.engine.io.endpoints import DeviceSide, HostSide, TransferEndpoint, origin_from_json, register
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.planning.layout import Geometry, parse_layout
from kvdeck.engine.ranks.rpc import serve
from kvdeck.engine.ranks.seat import take_seat
from kvdeck.sessions.host.processes import own_identity


class Target:
    """Registered memory, and a NIXL agent that polls for notifications while `busy`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = False
        self._yields = True
        self._agent: Any = None
        self._side: TransferEndpoint | None = None

    def open(
        self,
        geometry: dict[str, Any],
        blocks: int,
        huge_pages: bool,
        backend: str,
        params: dict[str, str],
        progress_thread: bool,
        cores: list[int],
        devices: int = 1,
        gpu: int | None = None,
        yields: bool = True,
    ) -> dict[str, Any]:
        """Allocate memory, on `gpu` if given and else on the host, and register it with the backend.

        `yields`: see `loop.serial_visit`.

        Returns:
            The agent's `name`, its `metadata` in base64, `places`: address and device number of each region, `pages`:
            the endpoint's, and `process`: the fields of its `ProcessIdentity`.

        Raises:
            UnavailableError: The backend or the GPU can't be used.
        """
        os.sched_setaffinity(0, cores)
        self._yields = yields
        shape = Geometry(**geometry)
        if gpu is None:
            self._side = HostSide(shape, blocks, huge_pages=huge_pages, devices=devices)
        else:
            self._side = DeviceSide(shape, blocks, gpu)
        self._agent = nixl.make_agent(self.name, progress_thread=progress_thread)
        nixl.create_backend(self._agent, backend, params)
        self._regions = register(self._agent, self._side, backend)
        metadata = base64.b64encode(self._agent.get_agent_metadata()).decode()
        places = [(region.address, region.device) for region in self._side.regions]
        return {
            "name": self.name,
            "metadata": metadata,
            "places": places,
            "pages": self._side.pages,
            "process": asdict(own_identity()),
        }

    def fill(self, seed: int, position: int) -> None:
        self._opened().fill(seed, position)

    def poison(self) -> None:
        self._opened().poison()

    def check(self, own: str, origin: dict[str, Any]) -> str | None:
        return self._opened().check(parse_layout(own), origin_from_json(origin))

    def attend(self, busy: bool) -> None:
        """Start or stop polling for notifications between calls."""
        self.busy = busy

    def poll(self) -> None:
        for _ in range(2):
            self._agent.agent.getNotifs({}, [])
        if self._yields:
            os.sched_yield()  # see loop._POLLS

    def close(self) -> None:
        """Deregister and free the memory and the agent, before the interpreter ends."""
        if self._side is not None:
            self._agent.deregister_memory(self._regions)
            self._agent = None
            self._side.close()
            self._side = None

    def _opened(self) -> TransferEndpoint:
        if self._side is None:
            raise RuntimeError("the target isn't open")
        return self._side


def main() -> None:
    seat, rank = take_seat()
    target = Target(f"{rank}-{os.getpid()}")
    serve(seat, rank, target)
    target.close()
    seat.leave()


if __name__ == "__main__":
    run_and_exit(main)
