"""Somebody on the wire without keys: a TCP proxy that alters encrypted bytes, and connections that wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

GREETING_BYTES = 64
"""Of ZMTP 3.1, each way, before the first frame (ZeroMQ RFC 37)."""
LARGE = 2


async def frame(reader: asyncio.StreamReader) -> bytes:
    """One whole ZMTP frame: flags, length, body."""
    flags = await reader.readexactly(1)
    length = await reader.readexactly(8 if flags[0] & LARGE else 1)
    return flags + length + await reader.readexactly(int.from_bytes(length, "big"))


class Vandal:
    """Passes frames on, and alters the last byte of one frame of each of the first connections.

    Parameters
    ----------
    target_port : where the frames go. connections : so many are spoilt, in turn on the way to the target and back.
    at_frame : the handshake of CURVE has two frames each way.
    """

    def __init__(self, target_port: int, connections: int, at_frame: int = 4) -> None:
        self._target_port, self._connections, self._at_frame = target_port, connections, at_frame
        self.seen = self.altered = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._serving: set[asyncio.Task[None] | None] = set()

    @contextlib.asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[None]:
        """Listen while the context lasts."""
        async with await asyncio.start_server(self._connection, "127.0.0.1", port):
            yield
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*filter(None, self._serving))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        self._writers.append(writer)
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        self._writers.append(back)
        number, self.seen = self.seen, self.seen + 1
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pass_on(reader, back, number % 2 == 0))
            tasks.create_task(self._pass_on(onward, writer, number % 2 == 1))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alter: bool) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            left = GREETING_BYTES
            while left and (piece := await reader.read(left)):
                writer.write(piece)
                left -= len(piece)
            count = 0
            while True:
                raw = await frame(reader)
                count += 1
                if alter and count == self._at_frame and self.altered < self._connections:
                    self.altered += 1
                    raw = raw[:-1] + bytes([raw[-1] ^ 1])
                writer.write(raw)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections to a local port that say nothing; those that the other end closes stay in the list."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(count)]


def closed(connection: socket.socket) -> bool:
    """Whether the other end has closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
