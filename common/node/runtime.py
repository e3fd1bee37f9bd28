"""The asyncio shell that carries out a session's effects: messages to the channel, jobs to worker threads.

The only place where the clock is read. The event loop never computes: jobs longer than a millisecond run in lanes,
single threads that keep order (sift, block, store) or a pool (frames).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from common.errors import AuthenticationError, LocalProtocolError, QkdError
from common.keys import life
from common.keys.life import Share
from common.node import alarms
from common.node.alarms import DurableStore
from common.node.compute import make_executor
from common.node.load import Load
from common.node.refill import refill_name
from common.protocol.block import BlockFacts
from common.protocol.effects import AddPads, BlockDone, DropPads, Effect, Lane, PeerStopped, Ready, Run, Send
from common.protocol.messages import decode
from common.protocol.session import LinkSession, pads_name
from common.units import NS_PER_S

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger("qkd.node")
POINTERS = "auth/pointers"


class TransportPort(Protocol):
    """What the shell needs of a transport."""

    def start(self) -> None:
        """Bind or connect the socket."""
        ...

    def send(self, packet: bytes) -> None:
        """Send a packet without waiting."""
        ...

    async def receive(self) -> bytes:
        """Wait for the next packet."""
        ...

    async def watch(self) -> None:
        """Look after the connection, for ever."""
        ...

    def fault(self, *, silent: bool) -> str | None:
        """What an operator must know of the connection, in words; ``silent``: nothing is heard from the peer."""
        ...

    @property
    def wire(self) -> DataclassInstance:
        """Counters: connections, and strangers among them."""
        ...


class PoolPort(Protocol):
    """What the shell needs of the authentication pool."""

    def reservation(self) -> dict[str, tuple[int, int]] | None:
        """Pointers to make durable."""
        ...

    def confirm(self, pointers: dict[str, tuple[int, int]]) -> None:
        """Tell that the pads are durable."""
        ...

    def give_back(self) -> dict[str, tuple[int, int]]:
        """The pointers of an orderly end."""
        ...

    def add_segment(self, segment_id: int, secret: bytes, *, sendable: bool = True) -> None:
        """Add pads to the pool."""
        ...

    @property
    def exhausted_segments(self) -> list[int]:
        """Segments whose pads are all used."""
        ...

    def forget(self, segment_id: int) -> None:
        """A segment is gone from the disk."""
        ...


@runtime_checkable
class PeerOpened(Protocol):
    """A session with this instance of the peer began."""

    @property
    def peer_instance(self) -> int:
        """The start counter of the peer."""
        ...


class PeerSaid(Protocol):
    """A message of the peer."""

    @property
    def message(self) -> bytes:
        """As it was sent."""
        ...

    @property
    def sealed(self) -> bool:
        """Whether a seal covered it."""
        ...


class ChannelPort(Protocol):
    """What the shell needs of the authenticated channel."""

    tags_sent: int
    tags_verified: int
    eps_auth_spent: float

    @property
    def last_heard_ns(self) -> int | None:
        """When the peer was last heard."""
        ...

    @property
    def placed(self) -> bool:
        """Whether tags may be sent, as far as the peer's claim goes."""
        ...

    @property
    def drained(self) -> bool:
        """Whether everything is acknowledged."""
        ...

    def notice(self, now_ns: int) -> str | None:
        """What an operator should know of packets that were not believed."""
        ...

    def send(self, message: bytes, *, seal: bool = False, hold: bool = False) -> None:
        """Queue a message for sending."""
        ...

    def packets(self, now_ns: int) -> list[bytes]:
        """Take the packets to send."""
        ...

    def receive(self, raw: bytes, now_ns: int) -> Sequence[PeerOpened | PeerSaid]:
        """Events of a packet."""
        ...

    def next_timer_ns(self, now_ns: int) -> int:
        """When to call again."""
        ...


def now_ns() -> int:
    """Monotonic time of this process in ns."""
    return time.monotonic_ns()


class Lanes:
    """Worker threads: one each for sift, block and store, a pool for frames."""

    def __init__(self, frame_threads: int = 0) -> None:
        self._pools = {
            lane: make_executor(frame_threads if lane == "frames" else 1, lane)
            for lane in ("sift", "frames", "block", "store")
        }

    def __getitem__(self, lane: Lane) -> Executor:
        return self._pools[lane]

    def close(self) -> None:
        """Wait for running jobs, drop the rest; the store lane finishes everything."""
        for lane, pool in self._pools.items():
            pool.shutdown(wait=True, cancel_futures=lane != "store")


class Shell:
    """Runs one end of the link.

    Parameters
    ----------
    session, channel, transport, pool, store : this end's parts.
    lanes : worker threads.
    on_block : told of every ended block.
    on_ready : told of every successful handshake.
    load : what the jobs cost is counted here.

    Attributes
    ----------
    after_effects : called after every step of the session, for those who wait for its queues.
    """

    def __init__(
        self,
        session: LinkSession,
        channel: ChannelPort,
        transport: TransportPort,
        pool: PoolPort,
        store: DurableStore,
        lanes: Lanes,
        on_block: Callable[[BlockFacts], None],
        on_ready: Callable[[], None],
        load: Load | None = None,
    ) -> None:
        self.load = load or Load()
        self.session, self.channel, self.transport, self.pool, self.store = session, channel, transport, pool, store
        self._lanes, self._on_block, self._on_ready = lanes, on_block, on_ready
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reserving = False
        self._tags_before = Share.decode(store.get_setting(life.TAGS)).plus(0, life.RESTART_EPS)
        self.after_effects: list[Callable[[], None]] = []
        self.jobs_running = 0
        self.peer_stopped = asyncio.Event()

    async def run(self) -> None:
        """Serve the link until cancelled or until a fault that ends it; the fault is raised."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._pump_on_time())
            tasks.create_task(self.transport.watch())
            tasks.create_task(self._raise_failure())
            tasks.create_task(self.load.watch())

    async def _raise_failure(self) -> None:
        await self._failed

    def fail(self, error: BaseException) -> None:
        """End the link with this fault; after a failed authentication it stays down until a person clears the alarm."""
        if self._failed.done():
            return
        if not isinstance(error, QkdError):
            log.error("what nobody foresaw has ended the link", exc_info=error)
            error = LocalProtocolError(f"{type(error).__name__} where nobody expected it; the log tells where")
        if isinstance(error, AuthenticationError):
            log.critical("authentication failed: no key is made on this link (%s)", error)
            # Behind all that this lane has been given: what it stores before is destroyed, and nothing comes after.
            self._lanes["store"].submit(alarms.lock, self.store, error)
        self._failed.set_exception(error)

    async def _receive(self) -> None:
        while not self._failed.done():
            raw = await self.transport.receive()
            try:
                for event in self.channel.receive(raw, now_ns()):
                    self._take(event)
            except Exception as error:
                self.fail(error)
            self.pump()
            await asyncio.sleep(0)  # packets that wait already would keep timers and signals waiting

    def _take(self, event: PeerOpened | PeerSaid) -> None:
        if isinstance(event, PeerOpened):
            log.info("session with peer instance %d", event.peer_instance)
            self.carry(self.session.opened(now_ns()))
        else:
            self.carry(self.session.handle(decode(event.message), event.sealed, now_ns()))

    def carry(self, effects: list[Effect]) -> None:
        """Carry out effects in order."""
        for effect in effects:
            match effect:
                case Send(message):
                    self.channel.send(message.encode(), seal=message.SEALED, hold=message.HELD)
                case Run():
                    self._submit(effect)
                case BlockDone(facts):
                    self._on_block(facts)
                case Ready():
                    self._on_ready()
                case AddPads(segment_id, secret, sendable):
                    self.pool.add_segment(segment_id, secret, sendable=sendable)
                case DropPads(segment_id):
                    self.pool.forget(segment_id)
                case PeerStopped():
                    log.info("the peer stopped in good order")
                    self.peer_stopped.set()
        if effects:
            self._wake.set()
        for look in self.after_effects:
            look()

    def act(self, effects: Callable[[], list[Effect]]) -> None:
        """Run a session call and carry out what it returns; its fault ends the link."""
        try:
            self.carry(effects())
        except Exception as error:
            self.fail(error)

    def _submit(self, job: Run) -> None:
        loop = asyncio.get_running_loop()
        self.jobs_running += 1

        def done(future: asyncio.Future[object]) -> None:
            self.jobs_running -= 1
            if future.cancelled():
                return
            error = future.exception()  # asked for also after a failure: asyncio reports a fault nobody has looked at
            if self._failed.done():
                return
            if error is not None:
                self.fail(error)
            else:
                self.act(lambda: job.then(future.result()))

        loop.run_in_executor(self._lanes[job.lane], self.load.job(job.lane, job.work)).add_done_callback(done)

    def pump(self) -> None:
        """Put everything due on the transport."""
        self._reserve_pads()
        try:
            for packet in self.channel.packets(now_ns()):
                self.transport.send(packet)
        except Exception as error:
            self.fail(error)

    def _reserve_pads(self) -> None:
        """The pointer into the authentication key is on disk before a pad is used, and not before one is needed.

        Nothing is written once the link has failed: what a forged tag names is not what the peer has used.
        """
        needed = self.channel.placed and not self._reserving and not self._failed.done()
        pointers = self.pool.reservation() if needed else None
        if pointers is None:
            return
        self._reserving = True
        values = self._positions(pointers)

        def done(_: object) -> list[Effect]:
            self._reserving = False
            self.pool.confirm(pointers)
            self._wake.set()
            return [] if self._failed.done() else [self._forget_pads(number) for number in self.pool.exhausted_segments]

        self._submit(Run("store", lambda: self.store.advance(values), done))

    def give_back_pads(self) -> None:
        """At an orderly end, after the last packet: reserved pads that were not used are the next process's."""
        if self.channel.placed and not self._reserving and not self._failed.done():
            self._reserving = True  # for good
            self._lanes["store"].submit(self.store.advance, self._positions(self.pool.give_back()))

    def _positions(self, pointers: dict[str, tuple[int, int]]) -> dict[str, bytes]:
        return {POINTERS: json.dumps(pointers).encode(), life.TAGS: self.tags().encode()}

    def tags(self) -> Share:
        """All tags of the link's life, of both directions, as far as this end knows of them."""
        channel = self.channel
        return self._tags_before.plus(channel.tags_sent + channel.tags_verified, channel.eps_auth_spent)

    def _forget_pads(self, segment_id: int) -> Run:
        """Used authentication key is deleted, from the disk and from memory."""

        def done(_: object) -> list[Effect]:
            self.pool.forget(segment_id)
            return []

        def delete() -> None:
            for name in (pads_name(segment_id), refill_name(segment_id)):
                self.store.delete_setting(name)

        return Run("store", delete, done)

    async def _pump_on_time(self) -> None:
        while True:
            self.pump()
            wait_s = (self.channel.next_timer_ns(now_ns()) - now_ns()) / NS_PER_S
            try:
                async with asyncio.timeout(max(wait_s, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything sent is acknowledged and no job runs, at most ``timeout_s``."""
        end = now_ns() + timeout_s * NS_PER_S
        while now_ns() < end and (self.jobs_running or not self.channel.drained):
            self.pump()
            await asyncio.sleep(0.02)


def stop_event() -> asyncio.Event:
    """Set by SIGINT or SIGTERM; a signal that comes after the loop has ended changes nothing."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is under way
            loop.call_soon_threadsafe(event.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)  # asyncio's own handlers go with the loop, before the process has ended
    return event
