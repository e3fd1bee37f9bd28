"""Schedules: what Eve does to messages and what power cuts do to both ends, drawn from one number and repeatable by it.

A schedule names a few acts of Eve (alter a field of a message, its tag or its header; lose, delay, double, reorder it;
put an older packet or one of the other direction in its place) and a few kills (when some message is sent or arrives,
at a write of the key store, after so many steps, with or without a goodbye). It runs in virtual time until its light is
used up and all is quiet. Then Eve leaves, a person clears the alarms, both ends start again, make one more block, and
what they hold is compared. At every commit the key, its marks and its messages are compared with the peer's store.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from classical_channel.framing import FRAME, PLAIN, SEAL, Frame, Kind, Packet
from common.errors import LinkLocked, QkdError, RemoteProtocolError
from common.node import alarms
from common.protocol.block import certified_digests
from common.protocol.messages import BlockMessage, Hello, Message, Refuse, decode, message_types
from common.protocol.session import pads_name
from tests.pair import DictStore, End, Pair, PowerCut

MS = 1_000_000
PATIENCE_NS = 60_000 * MS
FIELDS = {kind.__name__.upper(): kind for kind in message_types().values()}
PACKETS = ("SYN", "ACK", "ANY")
OFTEN = ("HELLO", "ANNOUNCE", "VERIFIED", "PROPOSE", "SEED", "FIXED", "PREPARED", "COMMIT", "COMMITTED")
"""The messages on which a key turns, chosen more often than the rest."""
ONCE = ("refuse", "lose", "lose all", "delay", "double", "swap", "replay", "reflect", "seal", "header", "junk")
DEEDS = (*["alter"] * 5, *ONCE)
KILLS = ("sender", "receiver before", "receiver after", "write", "steps", "goodbye")
HOLDS = 3
"""As many times something forbids key for a moment at one end or the other: open blocks are refused."""


@dataclass(frozen=True)
class Act:
    """One thing that Eve does, or one kill, when the ``nth`` packet with this message is sent."""

    what: str
    message: str
    nth: int
    number: int


class Schedule:
    """Everything that will happen, from one number."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        draw = self.rng
        self.deeds = [self._act(DEEDS) for _ in range(draw.choice((0, 1, 1, 1, 2, 3)))]
        self.kills = [self._act(KILLS) for _ in range(draw.choice((0, 1, 1, 2, 2, 3)))]

    def _act(self, kinds: tuple[str, ...]) -> Act:
        draw = self.rng
        message = draw.choice(OFTEN) if draw.random() < 0.7 else draw.choice((*FIELDS, *PACKETS))
        return Act(draw.choice(kinds), message, draw.randrange(3), draw.getrandbits(32))

    def __repr__(self) -> str:
        return f"Schedule({self.seed}): Eve {self.deeds}, kills {self.kills}"


class WatchedStore(DictStore):
    """A store that compares with the peer's at each commit, and whose writes can be where the power fails."""

    peer: WatchedStore
    fuse: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, tuple[bytes, bytes | None, tuple[bytes, bytes]]] = {}
        """(key, pads, transcripts) of every block when it was committed."""

    def write(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise PowerCut

    def commit(self, block_id: int) -> None:
        super().commit(block_id)
        key = self.blocks[block_id][1]
        mine = (key, self.settings.get(pads_name(block_id)), certified_digests(self.certificates[block_id]))
        assert self.kept.setdefault(block_id, mine)[::2] == mine[::2]
        assert self.peer.blocks.get(block_id, ("", b""))[1] == key, "one end commits what the other does not hold"
        assert block_id in self.peer.authenticated, "one end commits what the other has not authenticated"
        theirs = certified_digests(self.peer.certificates[block_id])
        assert theirs == mine[2], "the two ends commit a key that was made of different messages"


def _name(packet: Packet) -> str:
    if packet.kind is not Kind.DATA:
        return packet.kind.name
    return decode(Frame.decode(packet.body).message).name


class World:
    """A pair under a schedule.

    Parameters
    ----------
    make_pair : a fresh pair whose ends have `WatchedStore`.
    feed : gives Bob detections where he can take some; which part of a block.
    """

    def __init__(self, schedule: Schedule, pair: Pair, feed: Callable[[int], float]) -> None:
        self.schedule, self.pair, self._draw = schedule, pair, schedule.rng
        self._feed = feed
        self._seen: list[bytes] = []
        self._waiting = list(schedule.deeds)
        self._kills = list(schedule.kills)
        self._count: dict[str, int] = {}
        self._lost: set[str] = set()
        self._later: list[tuple[int, Callable[[], None]]] = []
        self._steps = 0
        self.failed_tags = 0
        self.done: set[tuple[str, str]] = set()
        """What Eve did, to which messages."""
        self.blocks = 0.0
        """Blocks of light that are still to come."""
        pair.to_bob.fault = lambda number, raw: self._on_packet(pair.alice, pair.bob, raw)
        pair.to_alice.fault = lambda number, raw: self._on_packet(pair.bob, pair.alice, raw)
        pair.on_step, pair.on_fault = self._on_step, self._on_fault
        self._at_step: dict[int, Callable[[], None]] = {}
        for kill in [kill for kill in self._kills if kill.what in ("write", "steps", "goodbye")]:
            self._kills.remove(kill)
            end, moment = (pair.alice, pair.bob)[kill.number & 1], kill.number >> 1
            if kill.what == "write":
                end.store.fuse = moment % 40
            else:
                goodbye = kill.what == "goodbye"
                self._at_step[moment % 150] = lambda end=end, goodbye=goodbye: self._stop(end, goodbye)
        self._at_step[schedule.rng.randrange(100)] = self._request
        for _ in range(schedule.rng.randrange(HOLDS + 1)):
            end = schedule.rng.choice((pair.alice, pair.bob))
            self._at_step[schedule.rng.randrange(150)] = lambda end=end: self._hold(end)

    # -- Eve ----------------------------------------------------------------------------------------------------------

    def _on_packet(self, sender: End, receiver: End, raw: bytes) -> list[tuple[int, bytes]]:
        name = _name(Packet.decode(raw))
        self._seen.append(raw)
        for key in (name, "ANY"):
            self._count[key] = self._count.get(key, 0) + 1
        sent = [(0, raw)]
        if name in self._lost:
            sent = []
        for act in [act for act in self._waiting if act.message in (name, "ANY")]:
            if self._count[act.message] > act.nth:
                self._waiting.remove(act)
                self.done.add((act.what, name))
                sent = [one for delay, packet in sent for one in self._do(act, delay, packet, name)]
        for kill in [kill for kill in self._kills if kill.message in (name, "ANY")]:
            if self._count[kill.message] > kill.nth:
                self._kills.remove(kill)
                victim = sender if kill.what == "sender" else receiver
                delay = 0 if kill.what != "receiver after" else MS + kill.number % (12 * MS)
                self._later.append((self.pair.now_ns + delay, lambda victim=victim: self._kill(victim)))
                if not delay:
                    victim.end()
        return sent

    def _do(self, act: Act, delay: int, raw: bytes, name: str) -> list[tuple[int, bytes]]:
        draw = random.Random(act.number)
        try:
            packet = Packet.decode(raw)
        except RemoteProtocolError:  # junk by now
            return [(delay, raw)]
        match act.what:
            case "lose":
                return []
            case "lose all":
                self._lost.add(name)
                return []
            case "delay":
                return [(delay + draw.randrange(3000) * MS, raw)]
            case "double":
                return [(delay, raw), (delay + draw.randrange(3000) * MS, raw)]
            case "swap":
                return [(delay + 30 * MS, raw)]
            case "replay" | "reflect":
                old = draw.choice(self._seen)
                body = Packet.decode(old).body
                if act.what == "reflect" or draw.random() < 0.5:
                    return [(delay, old), (delay + MS, raw)]
                return [(delay, replace(packet, body=body).encode())] if body else [(delay, old), (delay + MS, raw)]
            case "seal" if is_sealed(packet):
                at = len(packet.body) - 1 - draw.randrange(SEAL.size)
                return [(delay, replace(packet, body=flipped(packet.body, at, draw)).encode())]
            case "header":
                return [(delay, self._header(packet, draw)), *([(delay + MS, raw)] if draw.random() < 0.5 else [])]
            case "junk" if packet.body:
                body = flipped(packet.body, draw.randrange(len(packet.body)), draw)
                return [(delay, replace(packet, body=body[: draw.choice((None, 1, -1, 20))]).encode())]
            case "refuse" if packet.kind is Kind.DATA:
                return [(delay, refusing(packet).encode())]
            case "alter" if packet.kind is Kind.DATA:
                return [(delay, alter(packet, draw).encode())]
        return [(delay, raw)]

    def _header(self, packet: Packet, draw: random.Random) -> bytes:
        name = draw.choice(("sender", "receiver", "sequence", "acknowledged", "claim"))
        value = getattr(packet, name)
        if name == "claim":
            return replace(packet, claim=draw.choice(((0, 0), (value[0], value[1] + 16), (1 << 63, 0)))).encode()
        changed = draw.choice((value + 1, max(value - 1, 0), 0, 1 << 63, draw.getrandbits(8)))
        return replace(packet, **{name: changed}).encode()

    # -- processes ----------------------------------------------------------------------------------------------------

    def _kill(self, end: End) -> None:
        end.end()
        self._restart_later(end)

    def _stop(self, end: End, goodbye: bool) -> None:
        if goodbye and end.running:
            end.carry(end.session.stop(), self.pair.now_ns)
            self._later.append((self.pair.now_ns + 20 * MS, lambda: self._kill(end)))
        else:
            self._kill(end)

    def _request(self) -> None:
        """The key managers talk, too: each asks the other."""
        for end in (self.pair.alice, self.pair.bob):
            for _ in range(3 if end.running else 0):
                end.carry(end.session.request(b"one key please", lambda reply: []), self.pair.now_ns)

    def _hold(self, end: End) -> None:
        if end.running:
            for reason in ("it is too bright", None):
                end.carry(end.session.hold(reason, self.pair.now_ns), self.pair.now_ns)

    def _restart_later(self, end: End) -> None:
        delay = self._draw.choice((0, 1, 20, 500, 3000)) * MS
        self._later.append((self.pair.now_ns + delay, lambda: self._restart(end)))

    def _restart(self, end: End) -> None:
        if end.running:
            return
        try:
            self.pair.crash(end)
        except LinkLocked:
            if self._draw.random() < 0.7:  # a person clears it sooner or later, or not before the end
                self._later.append((self.pair.now_ns + self._draw.randrange(3000) * MS, lambda: self._clear(end)))

    def _clear(self, end: End) -> None:
        end.store.fuse = None
        alarms.clear(end.store)
        self._restart(end)

    def _on_fault(self, end: End, error: Exception) -> None:
        if not isinstance(error, QkdError | PowerCut):
            raise error
        self.failed_tags += alarms.latched(end.store) is not None
        (self.pair.to_alice if end.alice else self.pair.to_bob).cut()
        self._restart_later(end)

    def _on_step(self, now_ns: int) -> None:
        self._steps += 1
        if self._steps in self._at_step:
            self._at_step[self._steps]()
        due = [call for at, call in self._later if at <= now_ns]
        self._later = [(at, call) for at, call in self._later if at > now_ns]
        for call in due:
            call()
        if self.pair.bob.running and self.blocks > 0:
            self.blocks -= self._feed(now_ns)

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self, blocks: int = 3, limit_ns: int = 5_000 * MS) -> None:
        """The schedule, its end, and what must hold."""
        self.blocks = blocks
        pair = self.pair
        until = pair.now_ns + limit_ns
        while pair.now_ns < until and self._open():
            pair.step()
        self._waiting, self._kills, self._later, self._lost, self._at_step = [], [], [], set(), {}
        ends = [pair.alice, pair.bob]
        self._draw.shuffle(ends)
        for end in ends:
            end.store.fuse = None
            alarms.clear(end.store)
            pair.crash(end)
            for _ in range(self._draw.randrange(30)):
                pair.step()
        made, self.blocks = len(pair.bob.store.committed()), 100
        pair.run(lambda: len(pair.alice.store.committed()) > made, PATIENCE_NS)
        self.blocks = 0
        pair.settle(1_500 * MS)
        self.compare()

    def _open(self) -> bool:
        """Whether something can still happen: light, a restart, or a message that somebody repeats."""
        ends = (self.pair.alice, self.pair.bob)
        quiet = all(end.running and end.channel.drained and not end.jobs for end in ends)
        return self.blocks > 0 or not quiet

    def compare(self) -> None:
        """Both ends hold the same, made of the same messages; nothing is open; what was committed is there."""
        alice, bob = self.pair.alice.store, self.pair.bob.store
        assert alice.committed() == bob.committed(), "the committed keys differ"
        for mine in (alice, bob):
            assert {n: kept[0] for n, kept in mine.kept.items()} == mine.committed(), "a committed key was lost"
            assert all(state == "committed" for number, (state, _) in mine.blocks.items()), "a key stays undecided"
        pads = [{number: kept[1] for number, kept in mine.kept.items()} for mine in (alice, bob)]
        assert pads[0] == pads[1], "the pads differ"


def is_sealed(packet: Packet) -> bool:
    """Whether the packet's body ends with a seal."""
    return bool(packet.body) and (packet.kind is Kind.SYN or packet.body[0] == 1)


def flipped(raw: bytes, at: int, draw: random.Random) -> bytes:
    """One byte changed."""
    return raw[:at] + bytes([raw[at] ^ draw.randrange(1, 256)]) + raw[at + 1 :]


def alter(packet: Packet, draw: random.Random) -> Packet:
    """One field of the message changed, its tag (if any) kept; what is no message any more stays as it is."""
    seal = packet.body[-SEAL.size :] if is_sealed(packet) else b""
    try:
        message = decode(Frame.decode(packet.body).message)
    except RemoteProtocolError:
        return packet
    for _ in range(10):
        try:
            raw = other(message, draw).encode()
            decode(raw)
        except (struct.error, RemoteProtocolError):
            continue
        return replace(packet, body=packet.body[: FRAME.size] + raw + seal)
    return packet


def refusing(packet: Packet) -> Packet:
    """A plain REFUSE in the place of a message of a block."""
    message = decode(Frame.decode(packet.body).message)
    if not isinstance(message, BlockMessage):
        return packet
    _, received = FRAME.unpack_from(packet.body)
    return replace(packet, body=FRAME.pack(PLAIN, received) + Refuse(message.block_id, b"").encode())


def other(message: Message, draw: random.Random) -> Message:
    """The message with one field changed."""
    if not message.FIELDS:
        return message
    name = message.FIELDS[-1] if draw.random() < 0.4 else draw.choice(message.FIELDS)
    value = getattr(message, name)
    if isinstance(value, int):
        near = (value + 1, max(value - 1, 0), 0, value ^ 1 << draw.randrange(16))
        return replace(message, **{name: draw.choice((*near, draw.getrandbits(16)))})
    if isinstance(message, Hello):
        return replace(message, payload=other_hello(message.payload, draw))
    if not value:
        return replace(message, **{name: b"\0"})
    changed = flipped(value, draw.randrange(len(value)), draw)
    if name != "payload":
        return replace(message, **{name: draw.choice((changed, bytes(len(value))))})
    return replace(message, payload=draw.choice((changed, changed, bytes(len(value)), value[:-1], value + b"\0")))


def other_hello(payload: bytes, draw: random.Random) -> bytes:
    """Other blocks that are said to be decided or pending."""
    hello: dict[str, Any] = json.loads(payload)
    name = draw.choice(("decided", "pending"))
    hello[name] = [] if hello[name] else [(1 << 32) + 1 + draw.randrange(3)]
    return json.dumps(hello, sort_keys=True).encode()
