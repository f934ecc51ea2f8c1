"""New connections are ignored while those that have begun are accepted."""

from __future__ import annotations

import socket
import sys

import pytest

from serving.connections.handshakes import refuse_handshakes


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_a_new_connection_is_ignored_and_one_that_was_made_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address, 5) as made:
            refuse_handshakes(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, 0.2)
            accepted, _ = listening.accept()
            with accepted:
                made.sendall(b"asked")
                assert accepted.recv(5) == b"asked"
