"""HTTP/1.1 with bounds: uvicorn's protocol, and how much and for how long a client may keep of the service.

Bounded are the head of a request (bytes, headers), the time until a whole request has arrived, the time until a client
has taken an answer, the requests that are sent ahead of answers, and the connections
(``serving.connections.open_connections``). Bodies are bounded by
``serving.middleware.auth_and_timing``, which refuses them before they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import termios
from asyncio import TimerHandle
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.connections.open_connections import ConnectionBook, peer_of

PIECE_BYTES = 512  # parsed at a time: a piece holds few requests
DISCARDED_BYTES = 2 * 1024 * 1024  # of a body whose request is answered already
LINGERING_SECONDS = 1.0  # for a client to read why it is refused, before the connection is closed
MAXIMUM_LINGERING = 128  # connections
ANSWERING_SECONDS = 1.0  # for the application to say that a body came too late
CONTINUE = b"HTTP/1.1 100 "  # the interim answer that asks for a body
FIRST_REQUEST_SECONDS = 0.5  # for a new connection's first request when the service ends


@dataclass(frozen=True)
class ConnectionRefusal:
    """The reason why a connection cannot go on."""

    status: HTTPStatus
    detail: str

    def response(self) -> bytes:
        """Return the whole response, which closes the connection."""
        content = json.dumps({"detail": self.detail}).encode()
        again = "Retry-After: 1\r\n" if self.status is HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n{again}Connection: close\r\n\r\n"
        )
        return head.encode() + content


class BoundExceeded(Exception):
    """A request breaks a bound; raised through the parser."""

    def __init__(self, refusal: ConnectionRefusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


NOT_HTTP = ConnectionRefusal(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP/1.1 request")
TOO_LATE = ConnectionRefusal(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive whole in time")
TOO_MANY = ConnectionRefusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "more connections than the service keeps: try again in a second"
)


class HeldFlow(FlowControl):
    """Flow control that reads nothing more while the client owes something."""

    held = False

    def hold(self, held: bool) -> None:
        """Stop reading, or go on reading."""
        self.held = held
        if held:
            self.pause_reading()
        else:
            self.resume_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless the flow is held."""
        if not self.held:
            super().resume_reading()


class WholeAnswer:
    """The transport of one answer: the head waits for the first part of the body, and both are sent together.

    Two sends would be two system calls of the service, and wake the client twice.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send bytes of the answer, or keep the head."""
        if self._head is not None:
            data, self._head = self._head + data, b""
        elif not data.startswith(CONTINUE):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or about to be closed."""
        return self._transport.is_closing()


def _send_at_once(connection: socket.socket) -> None:
    """Send small segments without waiting for the client's acknowledgement, which may take 40 ms.

    asyncio does so only for sockets that were made with the number of the protocol. Connections of a listening
    socket that asyncio is given lack the number.
    """
    with contextlib.suppress(OSError):  # not a TCP socket
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class BoundedProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """One connection. ``server_state`` is the book of all connections of the process."""

    flow: HeldFlow

    def __init__(
        self,
        config: Config,
        server_state: ConnectionBook,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.book, self.limits = server_state, server_state.limits
        self._made_at = self.loop.time()
        self.peer = ""
        self._unparsed = b""
        self._in_head = self._arrived = self._ended = self._waits_for_client = False
        self._head_bytes = self._discarded = 0
        self._arrival: TimerHandle | None = None  # until a whole request must have arrived
        self._taking: TimerHandle | None = None  # until the client must have taken what was sent
        self._closing: RequestResponseCycle | None = None  # whose answer closes the connection

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, or refuse the connection."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that pause_writing says: not all is taken
        _send_at_once(transport.get_extra_info("socket"))
        self.flow = HeldFlow(transport)
        self.peer = peer_of(self.client[0]) if self.client else ""
        if self.book.admit(self):
            self._await_request()
        else:
            self._refuse(TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_timers()
        self._unset_keepalive_if_required()
        self.book.forget(self)
        super().connection_lost(exc)

    def is_silent(self) -> bool:
        """Return whether no byte of the client waits to be read."""
        if self._unparsed:
            return False
        try:
            waiting = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0" * 4)
        except OSError:
            return True
        return not any(waiting)

    def unsent_bytes(self) -> int:
        """Return the number of bytes of the answers that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless a request has come in since the loop last looked."""
        if self.is_silent():
            super().timeout_keep_alive_handler()

    # What arrives

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer for the next bytes."""
        return self.book.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes of the client."""
        if not self._ended:
            self._unparsed += bytes(self.book.buffer[:nbytes])
            self._parse()

    def _parse(self) -> None:
        """Parse until a request must wait for an earlier answer, or until the client must first take an answer."""
        while self._unparsed and not self._must_wait():
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:]
            self._unset_keepalive_if_required()
            self._feed(piece)
        if not self._ended:
            self.flow.hold(self._must_wait())
            if not (self._unparsed or self._arrived or self._arrival):
                self._await_request()

    def _must_wait(self) -> bool:
        return bool(self.pipeline) or self.flow.write_paused or self._ended or self.transport.is_closing()

    def _feed(self, piece: bytes) -> None:
        self._arrived = False
        try:
            self.parser.feed_data(piece)
            if self._in_head:
                self._head_bytes += len(piece)
                self._check_head(self._head_bytes)
        except BoundExceeded as exceeded:
            self._end(exceeded.refusal)
        except httptools.HttpParserUpgrade:
            self._end(NOT_HTTP)  # the request itself is answered; there is nothing to upgrade to
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._end(cause.refusal if isinstance(cause, BoundExceeded) else NOT_HTTP)

    def _check_head(self, size: int) -> None:
        if size > self.limits.maximum_head_bytes or len(self.headers) > self.limits.maximum_headers:
            rule = (
                f"the head of a request has at most {self.limits.maximum_head_bytes} bytes and "
                f"{self.limits.maximum_headers} headers"
            )
            raise BoundExceeded(ConnectionRefusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, rule))

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._discarded = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head; a header after the body is ignored."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request over, unless the head of the request breaks a bound."""
        self._in_head = False
        self._check_head(len(self.url) + sum(len(name) + len(value) for name, value in self.headers))
        super().on_headers_complete()
        if self.cycle.scope["method"] != "HEAD":  # uvicorn writes no body after the head, not even an empty one
            self.cycle.transport = WholeAnswer(self.transport)  # type: ignore[assignment]
        if self.book.draining:
            self._close_after_newest()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, or discard the part if the request is answered already."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > DISCARDED_BYTES:
                self.transport.abort()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a whole request has arrived."""
        super().on_message_complete()
        self._arrived = True
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        if self._is_answering():
            self.book.must_stay(self)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # What is sent

    def on_response_complete(self) -> None:
        """Continue with the next request, once the client has taken this answer."""
        self._waits_for_client = self.flow.write_paused and bool(self.pipeline)
        if self._waits_for_client:
            return
        super().on_response_complete()
        if not self.pipeline and not self._is_answering():
            self.book.may_close(self)
        if not self.transport.is_closing():
            self._parse()

    def pause_writing(self) -> None:
        """Note that the client has not taken all sent bytes."""
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self.limits.taking_seconds, self.abort)
        self.flow.hold(not self._ended)
        self.book.may_close(self)
        self.book.unread(self)

    def resume_writing(self) -> None:
        """Continue after the client has taken all sent bytes."""
        super().resume_writing()
        self.book.taken(self)
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        if self._is_answering():
            self.book.must_stay(self)
        if self._waits_for_client:
            self.on_response_complete()
        elif not self.transport.is_closing():
            self._parse()

    # The end

    def drain(self) -> None:
        """Answer the accepted requests, the last one with ``Connection: close``."""
        if self._is_answering():
            self._close_after_newest()

    def shutdown(self) -> None:
        """Close the connection, unless a request is under way.

        The first request of a new connection counts as under way.
        """
        young = FIRST_REQUEST_SECONDS - (self.loop.time() - self._made_at)
        if self._is_answering() or not self.is_silent():
            self.drain()
        elif self.cycle is None and young > 0:
            self.loop.call_later(young, self.shutdown)
        else:
            self.transport.close()

    def _close_after_newest(self) -> None:
        """Make the answer to the newest request close the connection, and no answer before."""
        if self._closing is not None and not self._closing.response_started:
            self._closing.keep_alive = True
        self._closing = self.cycle if self.cycle.keep_alive else None
        self.cycle.keep_alive = False

    def _await_request(self) -> None:
        patience = LINGERING_SECONDS if self.book.draining else self.limits.request_seconds
        self._arrival = self.loop.call_later(patience, self._arrives_too_late)

    def _arrives_too_late(self) -> None:
        """Refuse half a request.

        The application itself refuses a body that the application waits for, if there is time.
        """
        self._arrival = None
        if self._is_answering():
            self._arrival = self.loop.call_later(ANSWERING_SECONDS, self._end, TOO_LATE)
        elif self._in_head:
            self._refuse(TOO_LATE)
        else:
            self.transport.close()

    def _end(self, refusal: ConnectionRefusal) -> None:
        """Stop reading: close after the answers to the accepted requests, or refuse."""
        half = self._is_answering() and self.cycle.more_body and not self.cycle.response_started
        if self._is_answering() and (not half or self.pipeline):
            self._ended, self._unparsed = True, b""
            self._close_after_newest()
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: ConnectionRefusal) -> None:
        """Send the reason, and close the connection when the client has had the time to read the reason."""
        self._ended, self._unparsed = True, b""
        self._cancel_timers()
        self.book.forget(self)
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.is_closing() or self.book.lingering >= MAXIMUM_LINGERING:
            self.transport.abort()
            return
        self.transport.write(refusal.response())
        with contextlib.suppress(OSError):  # the client has gone
            self.transport.write_eof()
        self.flow.hold(False)  # what still comes is discarded; closing with it unread would take the answer away
        self._arrival = self.loop.call_later(LINGERING_SECONDS, self.abort)

    def _cancel_timers(self) -> None:
        for timer in (self._arrival, self._taking):
            if timer is not None:
                timer.cancel()
        self._arrival = self._taking = None
