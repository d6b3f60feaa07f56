"""The processes of a nixlbench run on this host, and how they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.planning.nixlbench import arguments
from kvdeck.engine.planning.nixlbench_flags import BY_NAME, NETWORK, is_here


@dataclass(frozen=True, slots=True)
class NixlbenchProcesses:
    """How to start a run."""

    arguments: tuple[str, ...]
    """Of each process: the processes of a run have the same. The first one started is the first initiator."""
    count: int
    """NixlbenchProcesses to start on this host."""
    note: str = ""
    """What is done that the flags don't say."""


def processes_of(params: Mapping[str, Any], named: bool, port: int) -> NixlbenchProcesses:
    """Return the processes of a run.

    A storage backend has one. Between two memories nixlbench expects one per device in mode SG and two in mode MG. They
    meet as the flags say; if these name no rendezvous, two meet by ASIO, which needs no server.

    Args:
        params: nixlbench's parameters.
        named: True if the user named the rendezvous.
        port: A free port of this host.
    """
    if params["backend"] not in NETWORK:
        return NixlbenchProcesses(tuple(arguments(params)), 1)
    several = params["mode"] == "SG"
    total = params["num_initiator_dev"] + params["num_target_dev"] if several else 2
    address = "asio_address" if params["runtime_type"] == "ASIO" else "etcd_endpoints"
    if address in params and not is_here(BY_NAME[address], params):
        note = f"1 of {total} processes: start the others where they belong, as --{address} isn't of this host"
        return NixlbenchProcesses(tuple(arguments(params)), 1, note)
    if not named and total == 2:
        asio = {**params, "runtime_type": "ASIO", "asio_port": port}
        return NixlbenchProcesses(
            tuple(arguments(asio)), 2, f"2 processes of nixlbench, which meet by ASIO on port {port}"
        )
    how = "ASIO" if params["runtime_type"] == "ASIO" else f"etcd at {params['etcd_endpoints']}"
    return NixlbenchProcesses(tuple(arguments(params)), total, f"{total} processes of nixlbench, which meet by {how}")
