"""The pipe between a node and the process that holds its ZeroMQ sockets: length-prefixed words, queues with a bound.

    1 kind | 4 length (little-endian) | body

Both ends use this one class. Nothing here waits: who calls looks when the socket can be read or written.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from enum import IntEnum
from itertools import islice

from classical_channel.framing import HEADER, MAX_BODY_BYTES

HEAD = struct.Struct("<BI")
MAX_PACKET_BYTES = HEADER.size + MAX_BODY_BYTES
READ_BYTES = 1 << 18
"""As much as a local socket holds by default; more would need more memory for each empty read."""
MAX_PIECES = 64
"""Words of one system call; well below every system's limit (1024 on Linux)."""


class Kind(IntEnum):
    """What a word is."""

    SETTINGS = 1  # node -> sockets, once, first: JSON with endpoint and CURVE keys
    PACKET = 2  # either way: one packet of the stream
    NEWS = 3  # sockets -> node: JSON with counters


class Pipe:
    """One end.

    Parameters
    ----------
    end : a connected local stream socket; it is made non-blocking.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self.waiting_bytes = 0

    def put(self, kind: Kind, body: bytes) -> None:
        """Queue a word. The caller bounds the queue by :attr:`waiting_bytes`."""
        self._out.append(memoryview(HEAD.pack(kind, len(body))))
        if body:
            self._out.append(memoryview(body))
        self.waiting_bytes += HEAD.size + len(body)

    def flush(self) -> bool:
        """Write what fits now; whether everything has gone.

        Raises
        ------
        OSError
            The other end is gone.
        """
        while self._out:
            try:
                gone = self.end.sendmsg(list(islice(self._out, MAX_PIECES)))
            except BlockingIOError:
                return False
            self.waiting_bytes -= gone
            while gone and gone >= len(self._out[0]):
                gone -= len(self._out.popleft())
            if gone:
                self._out[0] = self._out[0][gone:]
        return True

    def take(self) -> list[tuple[int, bytes]]:
        """One read: the words that it completes, possibly none.

        Raises
        ------
        EOFError
            The other end has closed.
        OSError
            The other end is gone.
        """
        try:
            piece = self.end.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not piece:
            raise EOFError("the other end of the pipe has closed")
        self._in += piece
        words, at = [], 0
        with memoryview(self._in) as view:
            while at + HEAD.size <= len(view):
                kind, length = HEAD.unpack_from(view, at)
                end = at + HEAD.size + length
                if end > len(view):
                    break
                words.append((kind, bytes(view[at + HEAD.size : end])))
                at = end
        del self._in[:at]
        return words
