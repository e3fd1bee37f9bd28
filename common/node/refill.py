"""Authentication key from stored key: what keeps a link alive that is asked for keys while no block brings any.

Bob, whose numbers name segments, cuts bytes from the end of his newest block with room (as for his applications) and
asks Alice to do the same. Both keep them as a segment of the pool in the transaction that takes them from the block, so
that they are never delivered as well. Alice sends with it at once: Bob holds it. Bob sends with it when she has said
that she does; until then he asks again, in any later session, for the same bytes, and she answers the same.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from common.keys.inventory import REFUSALS, Slice
from common.node.keystore import new_key_id

_HEAD = struct.Struct("<?QQ")
STEP_BYTES, LEAST_BYTES = 1040, 256
GIVE_WAY = 10
"""Where her applications want the same bytes, they are hers for this many refills, or looks for room for one."""
KIND = "refill"
REFUSED = b'{"ok": false, "reason": "the bytes for the authentication pool are not available here"}'


@dataclass(frozen=True, slots=True)
class Refilled:
    """A segment made of stored key; ``agreed``: the peer is known to hold it."""

    number: int
    block_id: int
    offset: int
    agreed: bool
    pads: bytes = field(repr=False)

    def record(self) -> bytes:
        """What is stored of a refill."""
        return _HEAD.pack(self.agreed, self.block_id, self.offset) + self.pads

    def question(self) -> bytes:
        """What Bob asks of Alice."""
        return json.dumps({"refill": [self.number, self.block_id, self.offset, len(self.pads)]}).encode()


def refill_name(number: int) -> str:
    """Setting that keeps a segment."""
    return f"{KIND}/{number}"


def _read(number: int, record: bytes) -> Refilled:
    agreed, block_id, offset = _HEAD.unpack_from(record)
    return Refilled(number, block_id, offset, agreed, record[_HEAD.size :])


class PadShelf(Protocol):
    """What is needed of the key store; every call is durable when it returns."""

    def room(self, n_bytes: int, *, from_front: bool, simulated: bool) -> list[tuple[int, int, int]]:
        """(block_id, front, back) of committed blocks with so much room, in the order of cutting."""
        ...

    def cut_to_setting(self, one: Slice, name: str, head: bytes) -> bool:
        """Move bytes from the end of a block to a setting, behind ``head``; False if the block has not got them."""
        ...

    def put_back_setting(self, one: Slice, name: str) -> None:
        """Return what was moved to a setting to its block, unless more was cut since, and delete the setting."""
        ...

    def numbered_settings(self, kind: str) -> list[tuple[int, bytes]]:
        """(number, value) of every setting named `kind/number`, by number."""
        ...

    def put_setting(self, name: str, value: bytes) -> None:
        """Keep a value in the store."""
        ...

    def delete_setting(self, name: str) -> None:
        """Forget a value in the store."""
        ...


class PoolPort(Protocol):
    """What is needed of the authentication pool."""

    @property
    def low(self) -> bool:
        """Whether it needs key."""
        ...

    @property
    def missing_bits(self) -> int:
        """How much a direction lacks."""
        ...

    def add_segment(self, segment_id: int, secret: bytes, *, sendable: bool = True) -> None:
        """Add pads to the pool."""
        ...

    def forget(self, segment_id: int) -> None:
        """Drop a segment of the pool."""
        ...


class Refill:
    """One end's part. What touches the store may run in any thread, what touches the pool where the channel runs."""

    def __init__(self, shelf: PadShelf, pool: PoolPort) -> None:
        self._shelf, self._pool = shelf, pool
        self._refusals: Counter[tuple[int, int]] = Counter()
        self._left_to_alice: Counter[int] = Counter()

    def add(self, one: Refilled) -> None:
        """Give a segment to the pool."""
        self._pool.add_segment(one.number, one.pads, sendable=one.agreed)

    def restore(self) -> None:
        """After a start: what the store has for the pool."""
        for one in self._stored():
            self.add(one)

    def _stored(self) -> list[Refilled]:
        found = self._shelf.numbered_settings(KIND)
        return [_read(number, record) for number, record in found]

    def _cut(self, number: int, block_id: int, offset: int, n_bytes: int, *, agreed: bool) -> Refilled | None:
        """The bytes leave their block and become a segment, in one transaction."""
        one, head = Slice(new_key_id(), block_id, offset, n_bytes), _HEAD.pack(agreed, block_id, offset)
        if not self._shelf.cut_to_setting(one, refill_name(number), head):
            return None
        return next(one for one in self._stored() if one.number == number)

    # -- Bob ----------------------------------------------------------------------------------------------------------

    def wanted_bytes(self) -> int:
        """How much stored key the pool needs now, for both directions; 0 while it has enough."""
        return -(-self._pool.missing_bits // 8 // STEP_BYTES) * 2 * STEP_BYTES if self._pool.low else 0

    def unanswered(self) -> Refilled | None:
        """What Alice has not answered yet."""
        return next((one for one in self._stored() if not one.agreed), None)

    def cut(self, number: int, wanted_bytes: int) -> Refilled | None:
        """A new segment from the newest block that has room for it; a smaller one if there is no room."""
        self._left_to_alice -= Counter(list(self._left_to_alice))
        while wanted_bytes >= LEAST_BYTES:
            for block_id, _, back in self._shelf.room(wanted_bytes, from_front=False, simulated=True):
                if not self._left_to_alice[block_id]:
                    return self._cut(number, block_id, back - wanted_bytes, wanted_bytes, agreed=False)
            wanted_bytes //= 2
        return None

    def settle(self, one: Refilled, answer: bytes) -> Refilled | None:
        """Alice has answered: the segment may be used, or she holds nothing of it and never will."""
        if json.loads(answer).get("ok") is True:
            settled = replace(one, agreed=True)
            self._shelf.put_setting(refill_name(one.number), settled.record())
            return settled
        place = one.block_id, one.offset
        self._refusals[place] += 1
        self._left_to_alice[one.block_id] = GIVE_WAY
        if self._refusals[place] < REFUSALS:
            self._shelf.put_back_setting(Slice("", *place, len(one.pads)), refill_name(one.number))
        else:  # she has not got them (any more)
            self._shelf.delete_setting(refill_name(one.number))
        return None

    def conclude(self, one: Refilled, settled: Refilled | None) -> None:
        """Let the pool follow the store."""
        if settled is None:
            self._pool.forget(one.number)
        else:
            self.add(settled)

    # -- Alice --------------------------------------------------------------------------------------------------------

    def accept(self, payload: bytes) -> tuple[bytes, Refilled | None] | None:
        """(answer, segment to add) if this is Bob's question; a question that is repeated has the same answer."""
        asked = _asked(payload)
        if asked is None:
            return None
        number, block_id, offset, n_bytes = asked
        one = next((one for one in self._stored() if one.number == number), None)
        if one is None:
            one = self._cut(number, block_id, offset, n_bytes, agreed=True)
        elif (one.block_id, one.offset, len(one.pads)) != (block_id, offset, n_bytes):
            one = None
        return (REFUSED, None) if one is None else (b'{"ok": true}', one)


def _asked(payload: bytes) -> tuple[int, int, int, int] | None:
    try:
        document: Any = json.loads(payload)
        numbers = document["refill"]
        number, block_id, offset, n_bytes = numbers
    except (ValueError, KeyError, TypeError):
        return None
    if not all(type(x) is int and 0 <= x < 1 << 62 for x in numbers) or not number or not n_bytes:
        return None
    return number, block_id, offset, n_bytes
