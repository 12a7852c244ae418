"""Messages between adatom and Nion Swift: JSON, and after it raw numbers; nothing is unpickled.

This file is used in the process of Nion Swift too, so it imports nothing of adatom.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
import threading
from typing import Any

Message = dict[str, Any]
_LENGTH = struct.Struct(">I")
_LONGEST = 1 << 30  # bytes: a frame of 16384² in single precision


class Gone(ConnectionError):
    """The other side closed the connection, does not answer, or is another program."""


class Wire:
    """Messages over one connection.

    Parameters
    ----------
    connected
        The socket; it belongs to this object.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._sending = connected, threading.Lock()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message, data: bytes = b"") -> None:
        """Send a message, and the numbers that belong to it.

        Raises
        ------
        Gone
            If the other side is gone.
        """
        text = json.dumps({**message, "bytes": len(data)}).encode()
        try:
            with self._sending:
                self._socket.sendall(_LENGTH.pack(len(text)) + text + data)
        except OSError as error:
            raise Gone(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> tuple[Message, bytes]:
        """Wait for a message; gives it, and the numbers that belong to it.

        Parameters
        ----------
        timeout_s
            Longest wait, s; None to wait for ever. After a wait that was too long the connection
            is of no use.

        Raises
        ------
        Gone
            If the other side is gone, or none came in time.
        """
        try:
            self._socket.settimeout(timeout_s)
            (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
            message = json.loads(self._read(length))
            data = self._read(message.pop("bytes"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Gone(str(error) or type(error).__name__) from error
        return message, data

    def close(self) -> None:
        """Close the connection; whoever waits on it learns so."""
        with contextlib.suppress(OSError):  # closed by the other side
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, count: int) -> bytes:
        if not 0 <= count <= _LONGEST:
            raise ValueError("not a message of the bridge")
        parts, left = [], count
        while left:
            part = self._socket.recv(min(left, 1 << 20))
            if not part:
                raise Gone("the connection was closed")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def challenge(wire: Wire, key: str, timeout_s: float) -> bool:
    """Ask who connects for a proof that it has the key; tell it whether it is right."""
    nonce = secrets.token_hex(16)
    wire.send({"nonce": nonce})
    answer, _ = wire.receive(timeout_s)
    right = hmac.compare_digest(str(answer.get("proof")), proof(key, nonce))
    wire.send({"welcome": right})
    return right


def proof(key: str, nonce: str) -> str:
    """Give what only who has the key can know."""
    return hmac.new(key.encode(), nonce.encode(), hashlib.sha256).hexdigest()
