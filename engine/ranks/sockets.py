"""Options of TCP connections between ranks, and to etcd."""

from __future__ import annotations

import socket

_DEAD_MS = 5000


def notice_a_dead_host(connected: socket.socket) -> None:
    """Send small messages at once, and let the kernel end a connection 5 s after the other host has vanished."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MS),
    ):
        connected.setsockopt(level, option, value)
