"""Alice and Bob joined by two lists, in virtual time: the protocol with every fault a network and a power cut can make.

Nothing here sleeps or starts a thread. Jobs run when their virtual time comes; a crash forgets all but the store.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from classical_channel.channel import Channel, Received
from classical_channel.framing import Position
from classical_channel.keypool import KeyPool, Pad
from classical_channel.link import POINTERS, read_pointers
from classical_channel.memory_transport import MemoryPipe
from classical_channel.stream import ReliableStream
from common.errors import AuthenticationError, KeyStoreError
from common.keybits import KeyBits
from common.keys.inventory import Slice
from common.node import alarms
from common.node.refill import Refill, refill_name
from common.protocol.effects import AddPads, BlockDone, DropPads, Effect, Run, Send
from common.protocol.messages import decode
from common.protocol.session import LinkSession, pads_name

LINK_SECRET = random.Random(15).randbytes(1 << 14)
"""No two pads alike: else a tag that names another pad could verify."""
IDLE_NS = 100_000_000
JOB_NS = {"alice": 2_000_000, "bob": 5_000_000}


class PowerCut(Exception):
    """A kill in the middle of a job: raised by a store in place of a write."""


@dataclass
class DictStore:
    """The durable memory of a node as a dictionary; survives `End.crash`."""

    blocks: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    settings: dict[str, bytes] = field(default_factory=dict)
    history: list[tuple[str, int]] = field(default_factory=list)
    certificates: dict[int, str] = field(default_factory=dict)
    authenticated: set[int] = field(default_factory=set)
    count: int = 0
    cut_at: dict[int, int] = field(default_factory=dict)

    def write(self) -> None:
        """Called before everything that is made durable."""

    def store_pending(
        self, block_id: int, key: KeyBits, certificate: str, simulated: bool, *, authenticated: bool
    ) -> None:
        assert block_id not in self.blocks, "a block was stored twice"
        self.write()
        self.certificates[block_id] = certificate
        if authenticated:
            self.authenticated.add(block_id)
        self.blocks[block_id] = ("pending", key.take().tobytes())

    def decide(self, block_id: int) -> None:
        assert self.blocks[block_id][0] == "pending"
        self.write()
        self.authenticated.add(block_id)
        self._move(block_id, "decided")

    def commit(self, block_id: int) -> None:
        assert block_id in self.authenticated, "a key that is not authenticated was committed"
        self.write()
        self._move(block_id, "committed")

    def destroy(self, block_id: int, state: str = "pending") -> None:
        assert state != "committed"
        self.write()
        if self.state_of(block_id) == state:
            del self.blocks[block_id]
            self.authenticated.discard(block_id)

    def destroy_unauthenticated(self) -> list[int]:
        self.write()
        numbers = sorted(set(self.blocks) - self.authenticated)
        for number in numbers:
            del self.blocks[number]
            self.settings.pop(pads_name(number), None)
        return numbers

    def is_authenticated(self, block_id: int) -> bool:
        return block_id in self.authenticated

    def _move(self, block_id: int, state: str) -> None:
        self.blocks[block_id] = (state, self.blocks[block_id][1])
        self.history.append((state, block_id))

    def unresolved(self) -> list[tuple[int, str]]:
        return [(number, state) for number, (state, _) in sorted(self.blocks.items()) if state != "committed"]

    def newest_block(self) -> int:
        return max(self.blocks, default=0)

    def state_of(self, block_id: int) -> str | None:
        return self.blocks.get(block_id, (None, b""))[0]

    def certificate_of(self, block_id: int) -> str:
        return self.certificates[block_id]

    def pads(self) -> list[tuple[int, str, bytes]]:
        found = [(number, state, self.settings.get(pads_name(number))) for number, (state, _) in self.blocks.items()]
        return [(number, state, pads) for number, state, pads in found if pads]

    def put_setting(self, name: str, value: bytes) -> None:
        self.write()
        self.settings[name] = value

    def advance(self, values: Mapping[str, bytes]) -> None:
        self.write()
        self.settings.update(values)
        self.count += 1

    def get_setting(self, name: str) -> bytes | None:
        return self.settings.get(name)

    def delete_setting(self, name: str) -> None:
        self.write()
        self.settings.pop(name, None)

    def forget_pads(self) -> None:
        self.write()
        kept = {name: value for name, value in self.settings.items() if not name.startswith(("pads/", "refill/"))}
        self.settings = kept

    def numbered_settings(self, kind: str) -> list[tuple[int, bytes]]:
        named = [(name.removeprefix(f"{kind}/"), value) for name, value in self.settings.items()]
        return sorted((int(number), value) for number, value in named if number.isdigit())

    def room(self, n_bytes: int, *, from_front: bool, simulated: bool) -> list[tuple[int, int, int]]:
        """What is left of a block is its first bytes: only the pool takes some here, from the end."""
        left = [(number, self.left(number)) for number in sorted(self.committed(), reverse=not from_front)]
        return [(number, 0, n) for number, n in left if n >= n_bytes]

    def left(self, block_id: int) -> int:
        return self.cut_at.get(block_id, len(self.blocks[block_id][1]))

    def cut_to_setting(self, one: Slice, name: str, head: bytes) -> bool:
        state, key = self.blocks.get(one.block_id, ("pending", b""))
        if state == "pending" or one.offset + one.n_bytes > self.left(one.block_id):
            return False
        self.write()
        self.cut_at[one.block_id] = one.offset
        self.settings[name] = head + key[one.offset : one.offset + one.n_bytes]
        return True

    def put_back_setting(self, one: Slice, name: str) -> None:
        self.write()
        if self.cut_at.get(one.block_id) == one.offset:
            self.cut_at[one.block_id] = one.offset + one.n_bytes
        del self.settings[name]

    def committed(self) -> dict[int, bytes]:
        return {number: key for number, (state, key) in self.blocks.items() if state == "committed"}


class WatchedPool(KeyPool):
    """Whatever process it is of, an end goes through its pads in one direction."""

    named: list[Position]

    def next_pad(self) -> Pad:
        pad = super().next_pad()
        at = pad.segment, pad.offset
        assert not self.named or self.named[-1] < at, "a pad was used twice, or an earlier one later"
        self.named.append(at)
        return pad


SessionFactory = Callable[["End", int], LinkSession]


class End:
    """One end: session, channel, pool and durable store; restarts on demand."""

    def __init__(
        self,
        name: str,
        make_session: SessionFactory,
        secret: bytes = LINK_SECRET,
        pool_target_bits: int = 0,
        store: DictStore | None = None,
    ) -> None:
        self.name, self.alice, self.pool_target_bits = name, name == "alice", pool_target_bits
        self.store = store or DictStore()
        self.counted = 0  # outside the store, as `common/node/counter.py`
        self.instance = self.starts = 0
        self._make_session = make_session
        self._secret = secret
        self.done: list[Any] = []
        self.named: list[Position] = []
        self.running = False
        self.start()

    def start(self) -> None:
        """A new process on the old store; it refuses to run while an alarm stands."""
        alarms.refuse_if_latched(self.store, self.name)
        if self.store.count < self.counted:
            raise KeyStoreError("the key store was set back")
        self.running = True
        self.instance += 1  # in the key store, and set back with it
        self.starts += 1  # as the random bits of a process: no two have the same
        pointers = read_pointers(self.store.get_setting(POINTERS))
        self.pool = WatchedPool(self._secret, alice=self.alice, pointers=pointers, target_bits=self.pool_target_bits)
        self.pool.named = self.named
        for number, state, pads in self.store.pads():
            if state == "committed" or (self.alice and state == "decided"):
                self.pool.add_segment(number, pads, sendable=state == "committed")
        self.refill = Refill(self.store, self.pool)
        self.refill.restore()
        self.channel = Channel(ReliableStream(self.instance << 32 | self.starts), self.pool, alice=self.alice)
        self.session = self._make_session(self, self.instance)
        self.jobs: list[tuple[int, int, Run, Any]] = []
        self.counter = 0
        self.lane_free_ns: dict[str, int] = {}

    def end(self, error: BaseException | None = None) -> None:
        """The process ends, killed or by a fault; as the node, it locks the link after a failed authentication."""
        self.running = False
        if isinstance(error, AuthenticationError):
            with contextlib.suppress(PowerCut):
                alarms.latch(self.store, str(error), "")
                self.counted = self.store.count

    def carry(self, effects: list[Effect], now_ns: int) -> None:
        """Carry out effects; a job's work happens now, its result arrives later."""
        for effect in effects:
            if isinstance(effect, Send):
                message = effect.message
                self.channel.send(message.encode(), seal=message.SEALED, hold=message.HELD)
            elif isinstance(effect, Run):
                start = max(now_ns, self.lane_free_ns.get(effect.lane, 0))
                if effect.lane != "frames":
                    self.lane_free_ns[effect.lane] = start + JOB_NS[self.name]
                self.counter += 1
                heapq.heappush(self.jobs, (start, self.counter, effect, []))
            elif isinstance(effect, AddPads):
                self.pool.add_segment(effect.segment_id, effect.secret, sendable=effect.sendable)
            elif isinstance(effect, DropPads):
                self.pool.forget(effect.segment_id)
            elif isinstance(effect, BlockDone):
                self.done.append(effect.facts)

    def packets(self, now_ns: int) -> list[bytes]:
        """Reserve pads durably and delete used ones, then everything due."""
        while self.channel.placed and (pointers := self.pool.reservation()) is not None:
            self.store.advance({POINTERS: json.dumps(pointers).encode()})
            self.counted = self.store.count
            self.pool.confirm(pointers)
            for used in self.pool.exhausted_segments:
                self.store.delete_setting(pads_name(used))
                self.store.delete_setting(refill_name(used))
                self.pool.forget(used)
        return self.channel.packets(now_ns)

    def take(self, raw: bytes, now_ns: int) -> None:
        """A packet arrives."""
        for event in self.channel.receive(raw, now_ns):
            if isinstance(event, Received):
                self.carry(self.session.handle(decode(event.message), event.sealed, now_ns), now_ns)
            else:
                self.carry(self.session.opened(now_ns), now_ns)

    def run_jobs(self, now_ns: int) -> None:
        """Jobs whose time has come."""
        while self.jobs and self.jobs[0][0] <= now_ns:
            at, number, job, result = heapq.heappop(self.jobs)
            if not result:
                # Threads are done long before, or only just when, their result is heard of: Bob's, and Alice's.
                result = [job.work] if self.alice else [partial(_known, job.work())]
                heapq.heappush(self.jobs, (at + JOB_NS[self.name], number, job, result))
            else:
                self.carry(job.then(result[0]()), now_ns)


def _known(value: Any) -> Any:
    return value


class Pair:
    """Both ends and the two pipes between them."""

    def __init__(self, alice: End, bob: End) -> None:
        self.alice, self.bob = alice, bob
        self.to_bob, self.to_alice = MemoryPipe(), MemoryPipe()
        self.now_ns = 0
        self.on_step: Callable[[int], None] = lambda now_ns: None
        self.on_fault: Callable[[End, Exception], None] = _raise
        """Told of every fault that ends an end's process (`End.end` has been called)."""

    def step(self) -> None:
        """Advance to the next thing that happens."""
        for end, out in ((self.alice, self.to_bob), (self.bob, self.to_alice)):
            for packet in self._call(end, lambda end=end: end.packets(self.now_ns), []):
                out.send(packet, self.now_ns)
        ends = [end for end in (self.alice, self.bob) if end.running]
        times = [end.channel.next_timer_ns(self.now_ns) for end in ends] or [self.now_ns + IDLE_NS]
        times += [t for t in (self.to_bob.next_arrival_ns(), self.to_alice.next_arrival_ns()) if t is not None]
        times += [end.jobs[0][0] for end in ends if end.jobs]
        self.now_ns = max(self.now_ns + 1_000, min(times))
        for end, inward in ((self.alice, self.to_alice), (self.bob, self.to_bob)):
            for packet in inward.arrivals(self.now_ns):
                self._call(end, lambda end=end, packet=packet: end.take(packet, self.now_ns))
            self._call(end, lambda end=end: end.run_jobs(self.now_ns))
        self.on_step(self.now_ns)

    def _call(self, end: End, work: Callable[[], Any], otherwise: Any = None) -> Any:
        """What an end does while it runs; a fault ends its process."""
        if not end.running:
            return otherwise
        try:
            return work()
        except Exception as error:
            end.end(error)
            self.on_fault(end, error)
            return otherwise

    def run(self, until: Callable[[], bool], limit_ns: int = 120_000_000_000) -> None:
        """Step until a condition holds; AssertionError when it does not in time."""
        end = self.now_ns + limit_ns
        while not until():
            self.step()
            assert self.now_ns < end, "the condition was not reached in virtual time"

    def settle(self, duration_ns: int = 5_000_000_000) -> None:
        """Let everything on its way arrive."""
        end = self.now_ns + duration_ns
        while self.now_ns < end:
            self.step()

    def crash(self, end: End) -> None:
        """kill -9 and restart; what was on its way to the process is lost."""
        end.end()
        (self.to_alice if end.alice else self.to_bob).cut()
        end.start()


def _raise(end: End, error: Exception) -> None:
    raise error
