"""What a client may keep of a server: each bound, and that others are answered meanwhile."""

from __future__ import annotations

import socket
import time

import pytest

from serving.connections.open_connections import UNSENT_BYTES, peer_of
from serving.connections.protocol import DISCARDED_BYTES
from tests.serving.few_lines import LARGE
from tests.serving.listening import answer, ask, server

HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


def opened(port: int, count: int, sent: bytes = b"") -> list[socket.socket]:
    connections = []
    for _ in range(count):
        connections.append(socket.create_connection(("127.0.0.1", port), 10))
        connections[-1].sendall(sent)
    return connections


def closed(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"POST /body HTTP/1.1\r\nHo", b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_new_caller_takes_the_place_of_whoever_has_sent_no_whole_request(sent: bytes) -> None:
    with server(maximum_connections=20) as (port, book):
        silent = opened(port, 60, sent)
        assert ask(port).startswith(b"HTTP/1.1 200")
        assert len(book.connections) <= 21
        assert closed(silent[0])
        for connection in silent:
            connection.close()


def test_a_connection_that_is_being_answered_keeps_its_place() -> None:
    with server(maximum_connections=10) as (port, _):
        busy = opened(port, 10, b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.1)
        refused = ask(port)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in refused
        assert all(answer(connection).startswith(b"HTTP/1.1 200") for connection in busy)
        assert ask(port).startswith(b"HTTP/1.1 200")


def test_a_peer_has_fewer_places_than_all() -> None:
    with server(maximum_connections=50, maximum_connections_of_peer=10) as (port, book):
        connections = opened(port, 30)
        assert ask(port).startswith(b"HTTP/1.1 200")
        assert len(book.connections) <= 11
        for connection in connections:
            connection.close()


def test_an_ipv6_network_is_one_peer() -> None:
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:2") != peer_of("2001:db8:0:1::1")
    assert peer_of("192.0.2.1") != peer_of("192.0.2.2")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 20_000,
        b"GET / HTTP/1.1\r\nx: " + b"a" * 2_000_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101,
    ],
)
def test_a_head_has_a_bound(head: bytes) -> None:
    with server() as (port, _):
        assert ask(port, head + b"\r\n").startswith(b"HTTP/1.1 431")
        assert ask(port).startswith(b"HTTP/1.1 200")


def test_a_head_below_the_bound_passes_in_whatever_pieces() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"h%d: %s\r\n" % (n, b"v" * 150) for n in range(90)) + b"\r\n"
    with server() as (port, _):
        for size in (97, 1000, len(head)):
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                for start in range(0, len(head), size):
                    connection.sendall(head[start : start + size])
                assert answer(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"GET / HT", b"HTTP/1.1 408"),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", b"HTTP/1.1 408"),
    ],
)
def test_a_request_must_arrive_in_time(sent: bytes, code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.connections.protocol.ANSWERING_SECONDS", 0.1)
    with server(request_seconds=0.2) as (port, _), socket.create_connection(("127.0.0.1", port), 5) as connection:
        began = time.monotonic()
        connection.sendall(sent)
        assert answer(connection).startswith(code)
        assert closed(connection)
        assert time.monotonic() - began < 3


def test_a_next_request_that_never_comes_whole_ends_the_connection() -> None:
    with server(request_seconds=0.2) as (port, _), socket.create_connection(("127.0.0.1", port), 5) as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert answer(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
        assert closed(connection)


def test_a_client_that_does_not_read_is_cut_off_and_keeps_nobody_waiting() -> None:
    with server(taking_seconds=0.3) as (port, book), socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall((b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n") * 20)
        assert ask(port).startswith(b"HTTP/1.1 200")
        until = time.monotonic() + 5
        while book.connections and time.monotonic() < until:
            time.sleep(0.02)
        assert not book.connections


def test_what_is_kept_for_all_that_do_not_read_is_bounded() -> None:
    with server() as (port, book):
        deaf = opened(port, 3 * UNSENT_BYTES // LARGE, b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.3)
        assert sum(each.unsent_bytes() for each in list(book.connections)) <= UNSENT_BYTES
        assert ask(port).startswith(b"HTTP/1.1 200")
        for connection in deaf:
            connection.close()


def test_requests_sent_ahead_are_answered_in_order_and_few_are_held() -> None:
    count = 500
    with server() as (port, book), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(GET * count)
        found = b""
        while found.count(b"\r\n\r\nok") < count:
            found += connection.recv(1 << 16)
            assert all(len(each.pipeline) < 20 for each in list(book.connections))
        assert found.count(b"HTTP/1.1 200") == count


@pytest.mark.parametrize("request_line", [b"HEAD / ", b"HEAD /204 ", b"GET /204 ", b"GET /304 "])
def test_an_answer_without_a_body_arrives_before_the_next_request(request_line: bytes) -> None:
    with server() as (port, _), socket.create_connection(("127.0.0.1", port), 2) as connection:
        for _ in range(2):
            connection.sendall(request_line + b"HTTP/1.1\r\n" + HOST + b"\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1 << 16)
            assert head.count(b"HTTP/1.1 ") == 1
        connection.sendall(GET)
        assert answer(connection).endswith(b"\r\n\r\nok")


def test_answers_without_bodies_to_requests_sent_ahead_come_in_order() -> None:
    with server() as (port, _), socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\nGET /304 HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
        found = b""
        while not found.endswith(b"\r\n\r\nok"):
            found += connection.recv(1 << 16)
        assert [each[:3] for each in found.split(b"HTTP/1.1 ")[1:]] == [b"200", b"304", b"200"]


def test_nonsense_after_a_request_does_not_take_its_answer() -> None:
    with server() as (port, _):
        found = ask(port, b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n\x00\x01nonsense\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in found.lower()
        assert ask(port, b"\x00\x01nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_body_that_nobody_waits_for_has_an_end() -> None:
    with server() as (port, _), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200")
        chunks = (b"100000\r\n" + b"a" * (1 << 20) + b"\r\n") * 20 * (DISCARDED_BYTES >> 20)
        with pytest.raises(ConnectionError):
            connection.sendall(chunks)


def test_a_request_that_comes_as_the_idle_connection_is_about_to_close_is_answered() -> None:
    """The loop is busy while the request arrives and the time for it runs out."""
    with server(keep_alive_seconds=1) as (port, book), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(GET)
        answer(connection)
        (idle,) = book.connections
        loop = idle.loop
        loop.call_soon_threadsafe(time.sleep, 1.5)
        loop.call_soon_threadsafe(idle.timeout_keep_alive_handler)
        time.sleep(0.3)
        connection.sendall(GET)
        assert answer(connection).startswith(b"HTTP/1.1 200")


def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    """The head and the body are two segments: without the option the body waits for the client's delayed ACK."""
    with server() as (port, book), socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 200")
        (connection,) = book.connections
        held = connection.transport.get_extra_info("socket")
        assert held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
