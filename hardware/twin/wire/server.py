"""The thread in which wire-level twins live: one asyncio loop, TCP listeners and pseudo-terminals, and the faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import tty
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass
class Faults:
    """What is wrong with an instrument now; tests and `qkd hil serve` set it while the twin runs."""

    silent: bool = False
    """Takes everything, answers nothing (a time-out)."""
    half_open: bool = False
    """Closes the connection instead of answering."""
    garbage: bool = False
    """Answers noise."""
    error: str = ""
    """Goes into the error queue once for the next command, such as `-222,"Data out of range"`."""
    identity: str = ""
    """Answers this to `*IDN?` (another instrument, another firmware)."""


class Dialogue(Protocol):
    """One instrument's protocol: bytes in, bytes out."""

    faults: Faults

    def feed(self, data: bytes) -> bytes:
        """What the instrument answers to these bytes."""
        ...


class WireServer:
    """Runs dialogues behind addresses until closed; all of them in one thread.

    Use as a context manager: ``with WireServer() as server: port = server.tcp(ScpiDialogue(...))``.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire twins", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._terminals: list[int] = []
        self._at_end: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for close in self._at_end:
            close()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def defer(self, close: Callable[[], None]) -> None:
        """Close a twin's own parts when the server ends."""
        self._at_end.append(close)

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)  # whoever was accepted just now gets its task
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)  # lets the transports close
        await self._loop.shutdown_default_executor()
        for handle in self._terminals:
            self._loop.remove_reader(handle)
            os.close(handle)
        self._terminals.clear()

    def tcp(self, make: Callable[[], Dialogue], host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve a dialogue for every connection; the port."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialogue = make()
            while data := await reader.read(1 << 20):
                answer = spoil(dialogue.feed(data), dialogue.faults)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()

        return self.stream(talk, host, port)

    def stream(
        self,
        talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> int:
        """Serve a conversation of any kind; the port."""

        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                with contextlib.suppress(OSError):
                    await talk(reader, writer)
            except asyncio.CancelledError:
                writer.transport.abort()
            finally:
                self._tasks.discard(task)
                writer.close()

        async def start() -> int:
            server = await asyncio.start_server(guarded, host, port, limit=1 << 22)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(start(), self._loop).result(5.0)

    def serial(self, dialogue: Dialogue) -> str:
        """Serve a dialogue on a pseudo-terminal; the path that a serial port has."""
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        path = os.ttyname(theirs)
        self._terminals += [ours, theirs]  # theirs stays open, or the pair would hang up between two clients

        def ready() -> None:
            with contextlib.suppress(BlockingIOError):
                answer = spoil(dialogue.feed(os.read(ours, 1 << 16)), dialogue.faults)
                os.write(ours, answer or b"")

        self._loop.call_soon_threadsafe(self._loop.add_reader, ours, ready)
        return path


def spoil(answer: bytes, faults: Faults) -> bytes | None:
    """The answer as the faults leave it; None closes the connection."""
    if faults.half_open:
        return None
    if faults.silent or not answer:
        return b""
    return b"\xff\x00?!\n" if faults.garbage else answer
