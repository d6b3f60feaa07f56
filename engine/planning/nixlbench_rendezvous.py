"""How the processes of a plan meet that nixlbench's flags name: `--runtime_type`, `--etcd_endpoints` and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.meeting import MeetingOptions
from kvdeck.engine.planning.nixlbench_flags import NETWORK
from kvdeck.sessions.errors import UnavailableError


def rendezvous_of(params: Mapping[str, Any], named: bool) -> MeetingOptions | None:
    """Return how this process meets the other one; None if the run's processes are all started here.

    As in nixlbench, the same command runs on both hosts, and the first process of the group is the initiator; with
    ASIO it is the one on the address's host.

    Args:
        params: nixlbench's parameters.
        named: True if the user named the rendezvous.

    Raises:
        UnavailableError: nixlbench would have more processes than the two that kvdeck's engine has.
    """
    if not named or params["backend"] not in NETWORK:
        return None
    processes = params["num_initiator_dev"] + params["num_target_dev"] if params["mode"] == "SG" else 2
    if processes != 2:
        raise UnavailableError(
            f"{processes} processes can't run natively: all initiators of a run between hosts are one process",
            "give --peer HOST in place of the rendezvous, --mode MG, one device of each, or --exec nixlbench",
        )
    if params["runtime_type"] == "ASIO":
        # Parameters that only nixlbench has are there only where they were given.
        return MeetingOptions(rendezvous=f"{params.get('asio_address', '127.0.0.1')}:{params.get('asio_port', 12345)}")
    return MeetingOptions(etcd_endpoints=(params["etcd_endpoints"],), etcd_group=params["benchmark_group"])
