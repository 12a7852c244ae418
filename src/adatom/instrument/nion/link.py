"""The connection to the bridge in Nion Swift's process, and what its silence means."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from adatom.errors import BadInput, InstrumentGone, NoFrame, StepFailed
from adatom.instrument.nion.wire import Gone, Message, Wire, proof

SWIFT = "Nion Swift"  # its name in messages
_CONNECT_S = 10.0  # s: longest wait for an answer to a connection
_ANSWER_S = 20.0  # s: longest wait for an answer, beyond the time that the request takes


class Link:
    """The two connections to a bridge: one for orders in turn, one that ends them.

    Parameters
    ----------
    address
        HOST:PORT.
    key
        Text that the bridge knows.

    Raises
    ------
    BadInput
        If no bridge answers there, or it does not know the key.
    """

    def __init__(self, address: str, key: str) -> None:
        self._orders, self._interrupts = (_connected(address, key) for _ in range(2))
        self._interrupting = threading.Lock()
        self._number = 0
        try:
            self._interrupts.send({"do": "interrupt"})
        except Gone as error:
            raise _gone(error) from error

    def ask(
        self, order: Message, seconds: float = 0.0, each: Callable[[Message], None] | None = None
    ) -> tuple[Message, bytes]:
        """Send an order and wait for its answer.

        Parameters
        ----------
        order
            What to do.
        seconds
            Time that it takes, s.
        each
            Called with every part of a trace.

        Raises
        ------
        StepFailed
            If it is refused; `NoFrame` if it was ended by `interrupt`.
        InstrumentGone
            If no answer comes.
        """
        self._number += 1
        try:
            self._orders.send({**order, "n": self._number})
            while True:
                told, data = self._orders.receive(seconds + _ANSWER_S)
                if "refused" in told:
                    raise _refused(told["refused"])
                if each is None or "values" not in told:
                    return told, data
                each(told)
        except Gone as error:
            self.close()
            raise _gone(error) from error

    def interrupt(self) -> None:
        """End the order that runs; the beam is off when this returns.

        Raises
        ------
        InstrumentGone
            If no answer comes.
        """
        try:
            with self._interrupting:
                self._interrupts.send({"do": "rest", "n": self._number})
                self._interrupts.receive(_ANSWER_S)
        except Gone as error:
            raise _gone(error) from error

    def close(self) -> None:
        """Close the connections: the bridge turns the beam off."""
        self._orders.close()
        self._interrupts.close()


def _connected(address: str, key: str) -> Wire:
    host, _, port = address.rpartition(":")
    where = f"address {address}"
    expected = "HOST:PORT of a bridge in Nion Swift"
    todo = "Start the bridge there, and give its address and key."
    try:
        wire = Wire(socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S))
    except (OSError, ValueError, OverflowError) as error:
        raise BadInput(where, expected=expected, got=str(error), todo=todo) from error
    try:
        asked, _ = wire.receive(_CONNECT_S)
        wire.send({"proof": proof(key, str(asked["nonce"]))})
        welcome = wire.receive(_CONNECT_S)[0]["welcome"]
    except (Gone, KeyError) as error:
        wire.close()
        got = f"another program, or none: {error}"
        raise BadInput(where, expected=expected, got=got, todo=todo) from error
    if not welcome:
        wire.close()
        raise BadInput(where, expected="the bridge's key", got="another key", todo=todo)
    return wire


def _refused(why: str) -> StepFailed:
    if why == "aborted":
        return NoFrame(SWIFT, expected="a frame", got="an abort", todo="Ask again.")
    return StepFailed(
        SWIFT, expected="that it does what was asked for", got=why, todo="See to Nion Swift."
    )


def _gone(error: Gone) -> InstrumentGone:
    return InstrumentGone(
        SWIFT, expected="an answer of its bridge", got=str(error),
        todo="See to the microscope. The bridge turns the beam off where Nion Swift still runs.",
    )  # fmt: skip
