"""The connections of one server process: how many there are, of whom, and which of them can be closed for a new one.

A connection that has no whole request under way can be closed at any time: HTTP lets a server close it, and its client
asks again. So a flood of silent, half-sent or unread connections never keeps a new caller out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from itertools import islice
from typing import Protocol

from uvicorn.server import ServerState

from settings import ServingSettings

UNSENT_BYTES = 16 * 1024 * 1024  # of all answers that clients have not read yet
READ_BYTES = 16 * 1024  # at a time
CANDIDATES = 8  # connections that are looked at for one that can be closed


class Connection(Protocol):
    """A connection as the book knows it."""

    peer: str

    def is_silent(self) -> bool:
        """Return whether no byte of the client waits to be read."""

    def unsent_bytes(self) -> int:
        """Return the number of bytes of the answers that the client has not taken."""

    def abort(self) -> None:
        """Close at once."""


class ConnectionBook(ServerState):
    """The state that the connections of a process share: the server's state, and the bounds on connections.

    ``closable`` and ``unread`` are in time order: the first connection has been there for longest.
    """

    def __init__(self, limits: ServingSettings, maximum: int) -> None:
        super().__init__()
        self.limits, self.maximum = limits, maximum
        self.draining = False
        self.buffer = bytearray(READ_BYTES)  # what is read goes through it at once, so one is enough
        self._of_peer: Counter[str] = Counter()
        self._admitted: set[Connection] = set()
        self._closable: dict[str, dict[Connection, None]] = {}
        self._unread: dict[Connection, None] = {}

    @property
    def lingering(self) -> int:
        """Return the number of open connections that are no longer counted."""
        return len(self.connections) - len(self._admitted)

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, and close another one where there are too many.

        Returns:
            False if the connection must be refused: all others are being answered.
        """
        full = len(self._admitted) >= self.maximum
        peer = connection.peer
        if self._of_peer[peer] >= self.limits.maximum_connections_of_peer:
            admitted = self._close_one_of(peer)
        else:
            admitted = not full or self._close_one_of(self._of_peer.most_common(1)[0][0])
        if admitted:
            self._of_peer[peer] += 1
            self._admitted.add(connection)
            self.may_close(connection)
        return admitted

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection that is closed or about to be closed."""
        self._unread.pop(connection, None)
        if connection not in self._admitted:
            return
        self._admitted.remove(connection)
        self.must_stay(connection)
        self._of_peer[connection.peer] -= 1
        if self._of_peer[connection.peer] <= 0:
            del self._of_peer[connection.peer]
            self._closable.pop(connection.peer, None)

    def may_close(self, connection: Connection) -> None:
        """Note that no whole request of the connection is under way."""
        if connection not in self._admitted:
            return
        self._closable.setdefault(connection.peer, {})[connection] = None

    def must_stay(self, connection: Connection) -> None:
        """Note that a whole request of the connection has arrived."""
        self._closable.get(connection.peer, {}).pop(connection, None)

    def unread(self, connection: Connection) -> None:
        """Note that the client does not take its answer; close the slowest clients where too many bytes wait."""
        self._unread[connection] = None
        kept = sum(each.unsent_bytes() for each in self._unread)
        for slowest in list(self._unread):
            if kept <= UNSENT_BYTES:
                return
            kept -= slowest.unsent_bytes()
            slowest.abort()

    def taken(self, connection: Connection) -> None:
        """Note that the client has taken all that was sent."""
        self._unread.pop(connection, None)

    def _close_one_of(self, peer: str) -> bool:
        oldest = self._closable.get(peer, {})
        for connection in list(islice(oldest, CANDIDATES)):
            if connection.is_silent():
                connection.abort()
                self.forget(connection)
                return True
            oldest[connection] = oldest.pop(connection)  # its bytes are read next: the newest of all
        return False


def peer_of(address: str) -> str:
    """Return the peer behind an address: an IPv6 network (/64) belongs to one peer."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
