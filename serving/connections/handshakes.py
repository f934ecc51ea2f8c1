"""Stop new connections in the kernel before the service stops listening.

A connection that the kernel completes between the last ``accept`` and the end of listening is reset, although its
client may have sent a request already. So the kernel is told to ignore the first packet of new connections (SYN), those
whose handshake has begun are accepted, and only then does listening end. A client that was ignored asks again after a
second and is refused, or is answered by the successor of the service.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

HANDSHAKE_SECONDS = 0.1  # for the handshakes that have begun
SO_ATTACH_FILTER = 26  # Linux, asm-generic/socket.h; Python names it nowhere
TCP_FLAGS, SYN, SYN_AND_ACK = 13, 0x02, 0x12  # the flags' byte in a TCP header (RFC 9293), and two values of it
# Classic BPF, see Documentation/networking/filter.rst of Linux: (code, jump if true, jump if false, value).
PROGRAM = (
    (0x30, 0, 0, TCP_FLAGS),  # load the byte
    (0x54, 0, 0, SYN_AND_ACK),  # and
    (0x15, 0, 1, SYN),  # equal?
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # pass it whole
)


def refuse_handshakes(listening: socket.socket) -> None:
    """Let the kernel ignore new connections to a listening socket; without effect on systems other than Linux."""
    if sys.platform != "linux":  # the number may be that of another option
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in PROGRAM))
    # struct sock_fprog: the number of instructions, padding, the address.
    described = struct.pack("HP", len(PROGRAM), ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a kernel without socket filters
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
