"""A network between the nodes that delays, cuts, throttles, alters, doubles and halves what they send."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from random import Random

from tests.integration.wire import GREETING_BYTES, frame

WAITING_FRAMES = 64
"""So many at most are on their way; then the sender waits, as with TCP."""


class Proxy:
    """Set its attributes at any time; they hold for the next frame.

    Attributes
    ----------
    delay_s : one way. bits_per_s : of the line, each way; None for no limit. flip, double, half : how often a frame is
    altered, sent twice, or followed by the end of the connection in its middle. down : nothing goes through.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self._port, self._target_port, self._rng = port, target_port, Random(3)
        self.delay_s, self.flip, self.double, self.half = 0.0, 0.0, 0.0, 0.0
        self.bits_per_s: float | None = None
        self.down = False
        self.spoilt = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()

    def calm(self) -> None:
        """A good network again."""
        self.delay_s = self.flip = self.double = self.half = 0.0
        self.bits_per_s, self.down = None, False

    def cut(self) -> None:
        """Every connection, now."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve in a thread."""
        ready, stop = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with await asyncio.start_server(self._connection, "127.0.0.1", self._port):
                ready.set()
                await stop.wait()
                self._abort()

        thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        ends = {writer, back}
        self._writers |= ends
        try:
            if not self.down:
                await asyncio.gather(self._pass_on(reader, back), self._pass_on(onward, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers -= ends
            for one in ends:
                one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: a queue of frames that are due at their times."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING_FRAMES)
        sender = asyncio.ensure_future(self._send(queue, writer))
        try:
            async for raw in self._frames(reader):
                if self.down or sender.done():
                    break
                for piece in self._spoil(raw):
                    await queue.put((self._loop.time() + self.delay_s, piece))
        finally:
            sender.cancel()
            writer.transport.abort()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender

    async def _frames(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        left = GREETING_BYTES
        while left and (piece := await reader.read(left)):
            left -= len(piece)
            yield piece
        while True:
            yield await frame(reader)

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, raw = await queue.get()
            await asyncio.sleep(max(due - self._loop.time(), 0.0))
            if self.bits_per_s is not None:
                await asyncio.sleep(8 * len(raw) / self.bits_per_s)
            if not raw:
                writer.transport.abort()
                return
            writer.write(raw)
            await writer.drain()

    def _spoil(self, raw: bytes) -> list[bytes]:
        draw = self._rng.random()
        if draw < self.flip + self.double + self.half:
            self.spoilt += 1
        if draw < self.flip:
            at, bit = self._rng.randrange(len(raw)), 1 << self._rng.randrange(8)
            return [raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]]
        if draw < self.flip + self.double:
            return [raw, raw]
        if draw < self.flip + self.double + self.half:
            return [raw[: len(raw) // 2], b""]
        return [raw]
