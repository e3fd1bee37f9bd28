"""What both roles' sessions share: the handshake, unresolved blocks, requests between the two key managers.

Sans-I/O: messages in, effects out. `alice.session` and `bob.session` add the path of the data.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from common.config import Reconciliation
from common.datatypes import Bytes8
from common.errors import AuthenticationError, HandshakeMismatch, LocalProtocolError, RemoteProtocolError
from common.keybits import KeyBits
from common.keys.life import life_with
from common.protocol.block import Block, BlockFacts, Deed, settled_facts
from common.protocol.effects import AddPads, BlockDone, Effect, Errand, PeerStopped, Ready, Send
from common.protocol.frames import parities_of, result_of
from common.protocol.messages import (
    PROTOCOL_VERSION,
    BlockMessage,
    Bye,
    Ending,
    FrameResult,
    Hello,
    Message,
    Refuse,
    Reply,
    Request,
    Syndrome,
    Withdraw,
)
from common.protocol.schedule import Schedule
from common.protocol.story import Do, Story, Tale
from common.protocol.transitions import Role, State, ending, may_refuse, next_state
from common.randomness import Randomness, Uses, documents, read_uses, shortfall

MAX_REASON_BYTES = 500
_ANYWHERE = (Syndrome, FrameResult, Refuse, Withdraw)
"""Of single frames, which the exchange of frames looks after, and ends, for which no story waits."""
MOST_BLOCKS = 1 << 62
"""Block numbers are less: there is always a next one."""


class Store(Protocol):
    """Durable memory of a node; every call returns only once its effect survives a power cut.

    A key is *authenticated* once all that the peer said of its block has been: at Bob when FIXED has, at Alice when
    PREPARED has. The mark is as durable as the key, and no key without it is ever committed.
    """

    def store_pending(
        self, block_id: int, key: KeyBits, certificate: str, simulated: bool, *, authenticated: bool
    ) -> None:
        """Keep a key that is not decided yet."""
        ...

    def decide(self, block_id: int) -> None:
        """Alice: the key is authenticated and good; COMMIT will be repeated until acknowledged."""
        ...

    def commit(self, block_id: int) -> None:
        """The key may be delivered. Repeating is harmless; a key that is not authenticated is refused."""
        ...

    def destroy(self, block_id: int, state: str = "pending") -> None:
        """Forget a key that is still in this state. Repeating is harmless."""
        ...

    def unresolved(self) -> list[tuple[int, str]]:
        """(block_id, "pending" | "decided") of every block that is not at its end."""
        ...

    def newest_block(self) -> int:
        """The largest block number that was ever kept here; 0 without any."""
        ...

    def state_of(self, block_id: int) -> str | None:
        """ "pending", "decided", "committed" or None."""
        ...

    def is_authenticated(self, block_id: int) -> bool:
        """Whether the block is there and authenticated."""
        ...

    def certificate_of(self, block_id: int) -> str:
        """The certificate that was kept with a key."""
        ...

    def put_setting(self, name: str, value: bytes) -> None:
        """Keep a small named value (encrypted)."""
        ...

    def get_setting(self, name: str) -> bytes | None:
        """Read a setting that was stored."""
        ...

    def delete_setting(self, name: str) -> None:
        """Forget a setting that was stored."""
        ...


class SymbolMemory(Protocol):
    """Alice's memory of what she sent, as her session uses it."""

    def lookup(self, slots: NDArray[np.int64]) -> tuple[Bytes8, Bytes8, Bytes8]:
        """(bases, bits, intensities), each *(n,) uint8*; raises where a slot is no longer or not yet there."""
        ...

    def release_before(self, slot: int) -> None:
        """Wipe everything before ``slot``."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What the handshake says about this end."""

    role: Role
    software: str
    agreed: Mapping[str, object]
    simulated: bool
    signer: Ed25519PrivateKey | None = field(default=None, repr=False)
    """Signs this end's key certificates; no part of the handshake."""
    randomness: Mapping[str, Randomness] = field(default_factory=dict)
    """Use -> source of this end's random numbers: the uses of its role, all of them."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the peer's HELLO says beyond what must be equal, once it has been checked."""

    simulated: bool
    randomness: Uses
    decided: Sequence[int]
    newest_block: int


def pads_name(block_id: int) -> str:
    """Setting that keeps the authentication key of a block."""
    return f"pads/{block_id}"


class LinkSession(ABC):
    """One end of the conversation."""

    def __init__(
        self,
        identity: Identity,
        store: Store,
        accept_request: Callable[[bytes], bytes],
        reconciliation: Reconciliation,
    ) -> None:
        self.identity = identity
        self.role = identity.role
        self.store = store
        self.ready = False
        self.simulated = identity.simulated
        self.randomness: dict[str, Uses] = {}
        """Role -> its sources; of both ends once the handshake is done."""
        self.held: str | None = None
        """Why no block may produce key now."""
        self.now_ns = 0
        self.schedule = Schedule(reconciliation, lambda: self.now_ns)
        self._accept_request = accept_request
        self._blocks: dict[int, Any] = {}
        self._talk = Story()
        """Of one session with the peer: over when another begins."""
        self._lasting = Story()
        """Of what the store holds: told to its end whatever becomes of the session."""
        self._hello_sent = False
        self._peer_hello: Greeting | None = None
        self._next_request = 1
        self._requests: dict[int, Callable[[bytes | None], list[Effect]]] = {}

    # -- what the roles provide ---------------------------------------------------------------------------------------

    @abstractmethod
    def handle_block(self, message: BlockMessage) -> list[Effect]:
        """One message of a block."""

    @abstractmethod
    def resolve(self, ours: list[tuple[int, str]], peer: Greeting) -> list[Effect]:
        """Settle the blocks that the last session left open."""

    # -- events -------------------------------------------------------------------------------------------------------

    def opened(self, now_ns: int) -> list[Effect]:
        """A new session with the peer began: everything not durable is refused, then say hello."""
        self.now_ns = now_ns
        self.ready = self._hello_sent = False
        self._peer_hello = None
        self._talk.close()
        self._talk = Story()
        effects: list[Effect] = []
        for block in self.open_blocks():
            if not self.must_keep(block):
                effects += self._drop(block, "the session with the peer ended")
            self.forget(block.block_id)
        for callback in list(self._requests.values()):
            effects += callback(None)
        self._requests.clear()
        return [*effects, *self._talk.begin(self._greet())]

    def handle(self, message: Message, sealed: bool, now_ns: int) -> list[Effect]:
        """One message of the peer.

        Raises
        ------
        RemoteProtocolError
            Not allowed here, or not sealed although its type must be.
        """
        self.now_ns = now_ns
        if message.SEALED and not sealed:
            raise RemoteProtocolError(f"{message!r} arrived without a seal")
        if isinstance(message, Hello):
            return self._heard_hello(message)
        if not self.ready:
            raise RemoteProtocolError(f"{message!r} arrived before the handshake")
        match message:
            case Request():
                return self._talk.begin(self._answer(message))
            case Reply():
                callback = self._requests.pop(message.request_id, None)
                return callback(message.payload) if callback else []
            case Bye():
                return [*self._refuse_open("the peer stopped"), PeerStopped()]
            case BlockMessage():
                return self.handle_block(message)
        raise RemoteProtocolError(f"{message!r} is not expected")

    def request(self, payload: bytes, then: Callable[[bytes | None], list[Effect]]) -> list[Effect]:
        """Ask the peer's key manager; ``then`` gets its answer, or None if it stays unknown."""
        if not self.ready:
            return then(None)
        number = self._next_request
        self._next_request += 1
        self._requests[number] = then
        return [Send(Request(number, payload))]

    def stop(self) -> list[Effect]:
        """Say goodbye: open blocks are refused, obligations stay."""
        if not self.ready:
            return []
        return [*self._refuse_open("this end stops"), Send(Bye())]

    def hold(self, reason: str | None, now_ns: int) -> list[Effect]:
        """While there is a reason, no block produces key: open ones are refused, and new ones as soon as they open."""
        self.now_ns, self.held = now_ns, reason
        return self._refuse_open(reason) if reason is not None and self.ready else []

    # -- handshake ----------------------------------------------------------------------------------------------------

    def _greet(self) -> Tale:
        """Say hello, once the store has told what the last session left open."""
        self._unresolved, stored = yield Do("store", Errand(self._recall))
        self._hello_sent = True
        yield Send(Hello(json.dumps(self._hello(self._unresolved, stored), sort_keys=True).encode()))
        yield from self._if_both()

    def _recall(self) -> tuple[list[tuple[int, str]], int]:
        return self.store.unresolved(), self.store.newest_block()

    def newest_block(self, stored: int) -> int:
        """The largest block number that this end has seen."""
        return stored

    def _hello(self, unresolved: list[tuple[int, str]], stored: int) -> dict[str, object]:
        return {
            "protocol_version": PROTOCOL_VERSION,
            "role": self.role.value,
            "software": self.identity.software,
            "simulated": self.identity.simulated,
            "randomness": documents(self.identity.randomness),
            "agreed": dict(self.identity.agreed),
            "pending": [number for number, state in unresolved if state == "pending"],
            "decided": [number for number, state in unresolved if state == "decided"],
            "newest_block": self.newest_block(stored),
        }

    def _heard_hello(self, message: Hello) -> list[Effect]:
        if self._peer_hello is not None:
            raise RemoteProtocolError("a second HELLO in one session")
        self._peer_hello = check_hello(message.payload, self.identity)
        return self._if_both()

    def _if_both(self) -> list[Effect]:
        if self._peer_hello is None or not self._hello_sent:
            return []
        self.ready = True
        self.simulated = self.identity.simulated or self._peer_hello.simulated
        self.randomness = {
            self.role.value: self.identity.randomness,
            self.role.peer.value: self._peer_hello.randomness,
        }
        return [Ready(), *self.resolve(self._unresolved, self._peer_hello)]

    def _answer(self, message: Request) -> Tale:
        """Hand a request of the peer to the key manager."""
        answer = yield Do("store", Errand(self._accept_request, (message.payload,)))
        yield Send(Reply(message.request_id, answer))

    # -- blocks -------------------------------------------------------------------------------------------------------

    def open_blocks(self) -> list[Block]:
        """Every block that has not ended."""
        return list(self._blocks.values())

    def forget(self, block_id: int) -> None:
        """Drop the record of an ended block, and end its story."""
        block = self._blocks.pop(block_id, None)
        if block is not None:
            block.story.close()

    def must_keep(self, block: Block) -> bool:
        """Whether an obligation keeps this block's key beyond the session: what is live of its story has been told."""
        return block.story.told

    def step(self, block: Block, message: BlockMessage, *, ours: bool) -> bool:
        """Move a block along the table; False if the message is to be ignored."""
        sender = self.role if ours else self.role.peer
        state = next_state(block.state, message, sender, ours=ours)
        if state is None:
            return False
        block.state = state
        block.note(message, sender)
        return True

    def say(self, block: Block, message: BlockMessage) -> Send:
        """Send a message of a block, moving the block along the table."""
        self.step(block, message, ours=True)
        return Send(message)

    def hear(self, block: Block, message: BlockMessage) -> list[Effect]:
        """A message of an open block: the table says whether it is legal, the story whether it is waited for."""
        before, story = block.state, block.story
        if next_state(before, message, self.role.peer, ours=False) is None:
            return []
        if not isinstance(message, _ANYWHERE) and not story.expects(message):
            raise RemoteProtocolError(f"{message!r}: nothing of block {block.block_id} waits for it now")
        self.step(block, message, ours=False)
        match message:
            case Syndrome():
                return story.after(block.frames.on_parities(parities_of(message)))
            case FrameResult():
                return story.after(block.frames.on_result(result_of(message)))
            case Refuse() | Withdraw():
                return self._end(block, self.refused(block, message, before))
        return story.hear(message)

    def _end(self, block: Block, effects: list[Effect]) -> list[Effect]:
        self.forget(block.block_id)
        return effects

    def give_up(self, block: Block, reason: str) -> list[Effect]:
        """Refuse a block and forget it."""
        return self._end(block, self.refuse(block, reason))

    def refuse(self, block: Block, reason: str) -> list[Effect]:
        """Refuse a block at this end and tell the peer why; one with an obligation stays."""
        if block.state is State.REFUSED or self.must_keep(block):
            return []
        kind = ending(block.state, self.role)
        if kind is None:
            raise LocalProtocolError(f"block {block.block_id} cannot be refused while it is {block.state.value}")
        send = self.say(block, kind(block.block_id, reason.encode()[:MAX_REASON_BYTES]))
        return [send, *self._drop(block, reason)]

    def refused(self, block: Block, message: Ending, state: State) -> list[Effect]:
        """The peer refused what was in this ``state`` here.

        Plain words may be somebody else's: the peer is told that the block has ended, and waits for nothing.
        """
        kind = ending(state, self.role) if isinstance(message, Refuse) else None
        answer: list[Effect] = [Send(kind(block.block_id, b"refused by both"))] if kind is not None else []
        return [*answer, *self._drop(block, "refused by the peer: " + message.reason)]

    def _refuse_open(self, reason: str) -> list[Effect]:
        effects: list[Effect] = []
        for block in self.open_blocks():
            if may_refuse(block.state, self.role) and not self.must_keep(block):
                effects += self.refuse(block, reason)
                self.forget(block.block_id)
        return effects

    def _drop(self, block: Block, reason: str) -> list[Effect]:
        """A block ends without key: forget it here and in the store."""
        block.state = State.REFUSED
        block.wipe()
        facts = block.facts(self.now_ns, reason)

        return [*self._lasting.begin(self._clear(block.block_id, facts)), *self.schedule.go_on()]

    def _clear(self, block_id: int, facts: BlockFacts) -> Tale:
        yield Do("store", Errand(self.destroy, (block_id,)))
        yield BlockDone(facts)

    # -- the store ----------------------------------------------------------------------------------------------------

    def in_store(self, function: Callable[..., object], *arguments: object) -> list[Effect]:
        """Have something done to the store; nothing follows from it."""
        return self._lasting.begin(_done(Do("store", Errand(function, arguments))))

    def keep(self, deed: Deed, raw: NDArray[np.uint8], authenticated: bool) -> None:
        """Store a new key as pending: its first bytes refill the authentication pool, the rest is for applications.

        Runs in the store lane. The pads are written first: a key is never held without its pads.
        """
        record = deed.certificate(life_with(deed.eps_spent, self.store.get_setting))
        pads, key = raw[: deed.refill_bytes], KeyBits.from_bytes(raw[deed.refill_bytes :].tobytes())
        if pads.size:
            self.store.put_setting(pads_name(deed.block_id), pads.tobytes())
        self.store.store_pending(deed.block_id, key, record, self.simulated, authenticated=authenticated)
        raw.fill(0)

    def commit(self, block_id: int, before: str, reported: bool) -> BlockFacts | None:
        """Commit a key that the other end holds as well; the facts of a block that only the store remembers.

        Runs in the store lane. A block is told of once: by its own record if it still has one (``reported``), by
        the store if another session or another process made it, and not at all when the commit is a repetition.
        """
        state = self.store.state_of(block_id)
        if state not in (before, "committed"):
            raise RemoteProtocolError(f"block {block_id} is not {before} here; are the stores of one link?")
        if not self.store.is_authenticated(block_id):
            self.destroy(block_id)
            raise AuthenticationError(f"block {block_id} rests on messages that were never authenticated")
        self.store.commit(block_id)
        return None if reported or state == "committed" else settled_facts(self.store.certificate_of(block_id))

    def destroy(self, block_id: int, state: str = "pending") -> None:
        """Forget a key that is still in this state, and its pads. Runs in the store lane."""
        self.store.destroy(block_id, state)
        if self.store.state_of(block_id) is None:
            self.store.delete_setting(pads_name(block_id))

    def add_pads(self, block_id: int, *, sendable: bool) -> list[Effect]:
        """Give the pool what a decided or committed block has for it."""
        return self._lasting.begin(self._add_pads(block_id, sendable))

    def _add_pads(self, block_id: int, sendable: bool) -> Tale:
        pads = yield Do("store", Errand(self.store.get_setting, (pads_name(block_id),)))
        if pads:
            yield AddPads(block_id, pads, sendable)


def _done(wish: Do) -> Tale:
    yield wish


def check_hello(payload: bytes, identity: Identity) -> Greeting:
    """Parse the peer's HELLO and compare every field that must be equal.

    Raises
    ------
    HandshakeMismatch
        Names the first field that differs.
    RemoteProtocolError
        Not a HELLO at all.
    """
    try:
        hello = json.loads(payload)
        agreed, blocks, newest = hello["agreed"], [*hello["pending"], *hello["decided"]], hello["newest_block"]
        version, role, simulated = hello["protocol_version"], hello["role"], hello["simulated"]
        said = hello["randomness"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RemoteProtocolError(f"HELLO cannot be read ({type(error).__name__})") from None
    if version != PROTOCOL_VERSION:
        raise HandshakeMismatch("protocol_version", PROTOCOL_VERSION, version)
    if role != identity.role.peer.value:
        raise HandshakeMismatch("role", identity.role.value, role)
    typed = isinstance(agreed, dict) and isinstance(simulated, bool) and {type(n) for n in [*blocks, newest]} == {int}
    if not typed or min(blocks, default=1) <= 0 or not 0 <= newest < MOST_BLOCKS:
        raise RemoteProtocolError("HELLO has fields of the wrong type")
    for name in sorted(set(agreed) | set(identity.agreed)):
        if agreed.get(name) != identity.agreed.get(name):
            raise HandshakeMismatch(name, identity.agreed.get(name), agreed.get(name))
    try:
        uses = read_uses(said, role)
    except ValueError as error:
        raise RemoteProtocolError(f"HELLO: {error}") from None
    least = str(identity.agreed.get("security.randomness", "computational"))
    weak = None if simulated or identity.simulated else shortfall(uses, least)
    if weak is not None:
        raise HandshakeMismatch("security.randomness", least, weak)
    return Greeting(simulated, uses, hello["decided"], newest)
