"""Connection of two agents, and the transports that UCX takes for it, as it says itself."""

from __future__ import annotations

import base64
import re
from typing import Any

from kvdeck.engine.io import stdio
from kvdeck.sessions.errors import KvdeckError


def connect(agent: Any, backend: str, metadata: str) -> str:
    """Connect an agent with a target's; return the transports that UCX takes, empty if unknown.

    Args:
        metadata: The target agent's metadata in base64.

    Raises:
        KvdeckError: No transport connects them.
    """
    failure: Exception | None = None
    with stdio.captured() as words:  # UCX connects within the call
        try:
            agent.add_remote_agent(base64.b64decode(metadata))
        except Exception as error:  # NIXL's exceptions share no base below Exception
            failure = error
    if failure is not None:
        said = [line for line in words.text.splitlines() if "ERROR" in line or "transport" in line]
        raise KvdeckError(
            f"{backend} can't connect with the target: {failure} ({' · '.join(said)[:600]})",
            "give both hosts an interface in one network, and name it in UCX_NET_DEVICES on both",
        ) from failure
    return transport_of(words.text)


WITHIN_HOST = "within one host"
"""What follows transports that lead to no other host, in UCX's view."""


def transport_of(said: str) -> str:
    """Return the transports of bytes from UCX's log, such as `tcp/eth1` or `rc_mlx5/mlx5_0:1`; empty if it says none.

    The line is `… inter-node cfg#1 rma_am(tcp/eth1) amo_am(tcp/eth1) am(tcp/eth1) ka(tcp/eth1)`; `intra-node` with what
    it takes within a host. The first of an agent is its connection with itself.
    """
    lines = re.findall(r"(int(?:er|ra)-node) cfg#\d+ (.*)", said)
    if not lines:
        return ""
    where, text = lines[-1]
    lanes = dict(re.findall(r"(\w+)\(([^)]*)\)", text))
    moved = next((lanes[name] for name in ("rma", "rma_am", "am", "tag") if name in lanes), text.strip())
    return moved if where == "inter-node" else f"{moved} {WITHIN_HOST}"
