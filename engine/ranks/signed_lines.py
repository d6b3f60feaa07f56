"""Lines of one connection that prove where they come from: signed with a key of the connection, and numbered.

A line that was changed, left out, repeated, or taken from another connection or direction is refused.
"""

from __future__ import annotations

import hashlib
import hmac


class SignedLines:
    """Signs the lines of one direction and checks those of the other."""

    def __init__(self, own: bytes, other: bytes) -> None:
        """`own` and `other` are the keys of the two directions, used for this connection only."""
        self._own, self._other = own, other
        self._sent = self._received = 0

    def seal(self, line: bytes) -> bytes:
        """Return the next line to send, with its signature before it."""
        signed = _signature(self._own, self._sent, line.removesuffix(b"\n")) + b" " + line
        self._sent += 1
        return signed

    def unseal(self, line: bytes) -> bytes:
        """Return a received line without its signature.

        Raises:
            ValueError: The signature isn't that of the next line of this connection.
        """
        signature, _, text = line.partition(b" ")
        if not hmac.compare_digest(signature, _signature(self._other, self._received, text)):
            raise ValueError("a line is not signed by the rank that it comes from")
        self._received += 1
        return text


def _signature(key: bytes, number: int, line: bytes) -> bytes:
    return hmac.digest(key, b"%d " % number + line, hashlib.sha256).hex().encode()
