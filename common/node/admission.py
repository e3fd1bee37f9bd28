"""TLS connections with a bound: who has shown a certificate stays, who says nothing goes first.

A connection costs a file descriptor and some ten kilobytes, and anybody can open one. So there are two bounded rooms:
connections before the end of the TLS handshake, where the oldest of the address that holds most of them makes room for
a new one, and those of clients with a certificate, where the one that has been idle longest does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

log = logging.getLogger("qkd.keys")
HANDSHAKE_S = 5.0
IDLE_S = 60.0
"""A client that has asked nothing for so long is let go; the next request opens a new connection."""
SWEEP_S = 5.0
UNPROVEN, PROVEN = 64, 256
"""Connections before and after the handshake. With buffers for bodies all together stay below 64 MB."""
BACKLOG = 128
NO_ROOM_S = 0.1
"""The system has no descriptor or memory left: accept again so much later."""


@dataclass(eq=False, slots=True)
class _Connection:
    address: str
    transport: asyncio.BaseTransport | None = None
    task: asyncio.Task[None] | None = None
    requests: int = 0
    since_s: float = 0.0


class Admission:
    """Accepts and bounds the connections of one service.

    Parameters
    ----------
    protocol : makes what serves one connection.
    context : asks every client for a certificate.

    Attributes
    ----------
    turned_away : connections that ended, or were ended, without a certificate.
    """

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext) -> None:
        self._protocol, self._context = protocol, context
        self._unproven: list[_Connection] = []
        self._proven: dict[asyncio.BaseTransport, _Connection] = {}
        self.turned_away = 0

    @contextlib.asynccontextmanager
    async def listen(self, host: str | None, port: int) -> AsyncIterator[None]:
        """Accept connections while the context lasts.

        Raises
        ------
        OSError
            The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with contextlib.ExitStack() as listeners:
            sockets = [listeners.enter_context(_listener(family, address)) for family, _, _, _, address in set(found)]
            serving = asyncio.ensure_future(self._serve(sockets))
            try:
                yield
            finally:
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    async def _serve(self, listeners: list[socket.socket]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(self._accept(listener, tasks))
            tasks.create_task(self._sweep())

    @contextlib.contextmanager
    def request(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """The connection is at work while the context lasts, and idle from its end on."""
        connection = None if transport is None else self._proven.get(transport)
        if connection is None:
            yield
            return
        connection.requests += 1
        try:
            yield
        finally:
            connection.requests -= 1
            connection.since_s = asyncio.get_running_loop().time()

    @property
    def connections(self) -> int:
        """Open connections of clients with a certificate."""
        self._forget_closed()
        return len(self._proven)

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("key delivery: no connection can be taken: %s", error.strerror)
                self._make_room(0)
                await asyncio.sleep(NO_ROOM_S)
                continue
            connection = _Connection(str(address[0]))
            self._unproven.append(connection)
            connection.task = tasks.create_task(self._admit(accepted, connection))
            self._make_room(UNPROVEN)
            await asyncio.sleep(0)  # the handshake begins before the next comes in

    def _make_room(self, most: int) -> None:
        """End unproven connections until there are at most this many, the oldest of the busiest address first."""
        while len(self._unproven) > most:
            busiest = Counter(one.address for one in self._unproven).most_common(1)[0][0]
            oldest = next(one for one in self._unproven if one.address == busiest)
            self._unproven.remove(oldest)
            if oldest.task is not None:
                oldest.task.cancel()

    async def _admit(self, accepted: socket.socket, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                self._protocol, accepted, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (OSError, asyncio.CancelledError):  # what is wrong with a stranger is the stranger's affair
            accepted.close()
            self.turned_away += 1
            return
        finally:
            if connection in self._unproven:
                self._unproven.remove(connection)
        connection.transport, connection.since_s = transport, loop.time()
        self._forget_closed()
        if len(self._proven) >= PROVEN:
            self._end_idle(1)
        if len(self._proven) >= PROVEN:
            transport.close()
        else:
            self._proven[transport] = connection

    def _forget_closed(self) -> None:
        self._proven = {transport: one for transport, one in self._proven.items() if not transport.is_closing()}

    def _end_idle(self, most: int, since_s: float = float("inf")) -> None:
        """Close up to this many connections that wait for a request, longest first, of those idle since ``since_s``."""
        idle = [one for one in self._proven.values() if not one.requests and one.since_s < since_s]
        for connection in sorted(idle, key=lambda one: one.since_s)[:most]:
            assert connection.transport is not None
            connection.transport.close()
        self._forget_closed()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._end_idle(PROVEN, asyncio.get_running_loop().time() - IDLE_S)


def _listener(family: int, address: object) -> socket.socket:
    """A listening, non-blocking socket."""
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)  # type: ignore[arg-type]
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one
