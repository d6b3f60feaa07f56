"""Options of TCP connections between ranks, and to etcd."""

from __future__ import annotations

import socket

_PROBES = 4


def notice_a_dead_host(connected: socket.socket, seconds: int) -> None:
    """Send small messages at once, and let the kernel end a connection whose other host is silent for `seconds`.

    A link that is down for a shorter time doesn't end it.
    """
    between = max(1, seconds // (_PROBES + 1))
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, between),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000),
    ):
        connected.setsockopt(level, option, value)
