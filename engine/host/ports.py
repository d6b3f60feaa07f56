"""TCP ports of this host."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface now.

    Raises:
        OSError: There is none.
    """
    with socket.socket() as probe:
        # Another process may take it before it is used: no port can be reserved for a child.
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
