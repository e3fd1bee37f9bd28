"""Keys for applications: cut from committed blocks, agreed with the peer, handed out once, destroyed on any doubt.

Both ends hold the same blocks. The end whose application asks first cuts: Alice from the front of the oldest block that
has room, Bob from the back of the newest, so that they meet only when nothing is left. It tells the peer which bytes
belong to which key ID before it answers, and asks until it knows; if the peer refuses, the bytes return to their block.
A byte is either in a block or in one key, never in both (source: ours, decisions 70 and 205).
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.errors import QkdError

#: One message between the key managers names at most this many keys.
MAX_SLICES = 1 << 12
REFUSALS = 4
"""So often the peer refuses the same bytes before they are destroyed: it has not got them (any more)."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class KeysRefused(QkdError):
    """No keys for this request, for a reason that the application may be told.

    Parameters
    ----------
    message : the reason. unauthorised : the caller may not have these keys at all. later : asking again may help.
    """

    remedy = "Correct the request, or ask again later."

    def __init__(self, message: str, *, unauthorised: bool = False, later: bool = False) -> None:
        super().__init__(message)
        self.unauthorised, self.later = unauthorised, later


@dataclass(frozen=True, slots=True)
class Slice:
    """Which bytes of which block are a key."""

    key_id: str
    block_id: int
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Owners:
    """The pair of applications that a key belongs to; the master asked for it."""

    master: str
    slave: str


class Shelf(Protocol):
    """What the inventory needs of the key store; every call is durable when it returns."""

    def room(self, n_bytes: int, *, from_front: bool, simulated: bool) -> list[tuple[int, int, int]]:
        """(block_id, front, back) of blocks with at least ``n_bytes`` left, in the order of cutting; some, not all."""
        ...

    def cut(self, slices: Sequence[Slice], owners: Owners, *, from_front: bool, ours: bool, simulated: bool) -> bool:
        """Move bytes from blocks to keys, all or none; False when a block has not got them (any more)."""
        ...

    def release(self, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Read keys and destroy them in the store, all of them or (unknown ID) KeyError."""
        ...

    def owners_of(self, key_ids: Sequence[str]) -> dict[str, tuple[Owners, bool]]:
        """Owners of the keys that are there, and whether our application asked for it."""
        ...

    def put_back(self, slices: Sequence[Slice], *, from_front: bool) -> None:
        """Keys, in the order of cutting, become bytes of their blocks again, or are destroyed if more was cut since."""
        ...

    def discard(self, key_ids: Sequence[str]) -> None:
        """Destroy keys; unknown ones are ignored."""
        ...

    def count_keys(self, n_bytes: int, *, simulated: bool) -> int:
        """How many keys of this size can be cut."""
        ...


class Inventory:
    """The key manager of one end.

    Parameters
    ----------
    shelf : the key store.
    alice : whether this is Alice's end: she cuts from the front.
    saes : SAE ID -> KME ID; kme_id, peer_kme_id : this end and the other.
    deliver_simulated : whether keys made with simulated devices may be handed out.
    new_id : makes a fresh key ID, a UUID in its canonical form (ETSI GS QKD 014, clause 6.3).
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        alice: bool,
        saes: Mapping[str, str],
        kme_id: str,
        peer_kme_id: str,
        deliver_simulated: bool,
        new_id: Callable[[], str],
    ) -> None:
        self._shelf, self._alice, self._new_id = shelf, alice, new_id
        self._saes, self._here, self._there = dict(saes), kme_id, peer_kme_id
        self._simulated = deliver_simulated
        self._refusals: Counter[tuple[int, int]] = Counter()
        self._left_to_peer: Counter[int] = Counter()

    # -- the end whose application asks -------------------------------------------------------------------------------

    def check_owners(self, owners: Owners) -> None:
        """The master must be served here, the slave at the peer."""
        if self._saes.get(owners.master) != self._here:
            raise KeysRefused(f"{owners.master!r} is not an application of this node", unauthorised=True)
        if self._saes.get(owners.slave) != self._there:
            raise KeysRefused(f"slave SAE {owners.slave!r} is not known at the other end of this link")

    def count(self, n_bytes: int) -> int:
        """How many keys of this size can be made now; none spans two blocks."""
        return self._shelf.count_keys(n_bytes, simulated=self._simulated)

    def reserve(self, owners: Owners, number: int, n_bytes: int) -> tuple[bytes, list[Slice]]:
        """Cut ``number`` keys of ``n_bytes``.

        Returns
        -------
        (what to tell the peer, what was cut). The keys wait for the peer's answer.

        Raises
        ------
        KeysRefused
            Not enough key, or an unknown application.
        """
        self.check_owners(owners)
        slices = self._choose(number, n_bytes)
        while len(slices) == number and not self._shelf.cut(
            slices, owners, from_front=self._alice, ours=True, simulated=self._simulated
        ):
            slices = self._choose(number, n_bytes)  # the peer's request took some of them meanwhile
        if len(slices) < number:
            raise KeysRefused(f"not enough key: {len(slices)} of {number} keys can be made now", later=True)
        rows = [[s.key_id, s.block_id, s.offset, s.n_bytes] for s in slices]
        document = {"reserve": rows, "master": owners.master, "slave": owners.slave}
        return json.dumps(document).encode(), slices

    def refusal(self, slices: Sequence[Slice], answer: bytes) -> str | None:
        """The peer answered: None if it holds these keys too; else why not, and they shall be put back."""
        reply = _document(answer)
        if reply.get("ok") is True:
            self._refusals.pop(_place(slices[0]), None)
            return None
        self._refusals[_place(slices[0])] += 1
        return str(reply.get("reason", "no reason given"))

    def put_back(self, slices: Sequence[Slice]) -> None:
        """What the peer has refused, in the order of cutting; nothing that was cut later is open."""
        gone = [one for one in slices if self._refusals[_place(one)] >= REFUSALS]
        self._shelf.discard([one.key_id for one in gone])
        self._shelf.put_back([one for one in slices if one not in gone], from_front=self._alice)

    def times_refused(self, slices: Sequence[Slice]) -> int:
        """How often running the peer has refused what begins where these do."""
        return self._refusals[_place(slices[0])]

    def leave_to_peer(self, slices: Sequence[Slice]) -> None:
        """Both ends want the last bytes of these blocks: nothing more is cut from them before :meth:`take_again`."""
        self._left_to_peer.update({one.block_id for one in slices})

    def take_again(self, slices: Sequence[Slice]) -> None:
        """They are for both ends again."""
        self._left_to_peer -= Counter({one.block_id for one in slices})

    def hand_out(self, key_ids: Sequence[str]) -> list[tuple[str, str]]:
        """(key ID, base64 key) of each key that the peer holds too; they are gone from the store."""
        return _encode(key_ids, self._shelf.release(key_ids))

    def _choose(self, number: int, n_bytes: int) -> list[Slice]:
        slices: list[Slice] = []
        for block_id, front, back in self._shelf.room(n_bytes, from_front=self._alice, simulated=self._simulated):
            while len(slices) < number and back - front >= n_bytes and not self._left_to_peer[block_id]:
                at = front if self._alice else back - n_bytes
                slices.append(Slice(self._new_id(), block_id, at, n_bytes))
                front, back = (at + n_bytes, back) if self._alice else (front, at)
        return slices

    # -- the other end ------------------------------------------------------------------------------------------------

    def accept_from_peer(self, payload: bytes) -> bytes:
        """The peer's key manager says which bytes are a key; cut the same bytes, or refuse with a reason.

        A question that is repeated, in the next session, has the same answer: its keys wait for our application.
        """
        try:
            document = _document(payload)
            owners = Owners(str(document["master"]), str(document["slave"]))
            slices = [_slice(row) for row in document["reserve"]]
        except (KeyError, TypeError, ValueError):
            return _refusal("the request cannot be read")
        if self._saes.get(owners.slave) != self._here:
            return _refusal(f"slave SAE {owners.slave!r} is not an application of this node")
        if self._saes.get(owners.master) != self._there:
            return _refusal(f"master SAE {owners.master!r} is not known here as an application of the other end")
        if not 0 < len(slices) <= MAX_SLICES or len({s.key_id for s in slices}) < len(slices):
            return _refusal("no key, too many keys, or a key ID twice")
        done = self._shelf.cut(slices, owners, from_front=not self._alice, ours=False, simulated=self._simulated)
        if not done and not self._were_cut(slices, owners):
            return _refusal("the named bytes are not available here")
        return b'{"ok": true}'

    def _were_cut(self, slices: Sequence[Slice], owners: Owners) -> bool:
        found = self._shelf.owners_of([one.key_id for one in slices])
        return len(found) == len(slices) and all(held == (owners, False) for held in found.values())

    def fetch(self, caller: str, master: str, key_ids: Sequence[str]) -> list[tuple[str, str]]:
        """Keys that the peer's application told ours about: all of them, and gone from the store; or none.

        Raises
        ------
        KeysRefused
            An ID that is not there, or belongs to others.
        """
        if self._saes.get(caller) != self._here:
            raise KeysRefused(f"{caller!r} is not an application of this node", unauthorised=True)
        if not key_ids or len(set(key_ids)) < len(key_ids):
            raise KeysRefused("key_IDs is empty or names a key twice")
        found = self._shelf.owners_of(key_ids)
        if any(ours or owners != Owners(master, caller) for owners, ours in found.values()):
            raise KeysRefused("these keys were not made for this application", unauthorised=True)
        if len(found) < len(key_ids):
            raise KeysRefused("one or more keys specified are not found on KME")
        try:
            return _encode(key_ids, self._shelf.release(key_ids))
        except KeyError:  # another connection of the same application was faster
            raise KeysRefused("one or more keys specified are not found on KME") from None


def _place(one: Slice) -> tuple[int, int]:
    return one.block_id, one.offset


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _slice(row: Any) -> Slice:
    key_id, block_id, offset, n_bytes = row
    numbers = (block_id, offset, n_bytes)
    if not isinstance(key_id, str) or not _UUID.fullmatch(key_id):
        raise ValueError("not a key ID")
    if not all(type(x) is int and 0 <= x < 1 << 63 for x in numbers) or n_bytes == 0:
        raise ValueError("not a slice")
    return Slice(key_id, block_id, offset, n_bytes)


def _refusal(reason: str) -> bytes:
    return json.dumps({"ok": False, "reason": reason}).encode()


def _encode(key_ids: Sequence[str], keys: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return [(key_id, base64.b64encode(keys[key_id]).decode("ascii")) for key_id in key_ids]
