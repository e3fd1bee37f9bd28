"""Stored key for the authentication pool: both ends hold it or neither sends with it, and no application gets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from classical_channel.keypool import KeyPool
from common.keys.inventory import Owners, Slice
from common.node.keystore import KeyStore
from common.node.refill import Refill
from tests.stores import add_block

SECRET = bytes(range(256)) * 16
TARGET_BITS = 1 << 15
NUMBER = 5 << 32 | 7


@dataclass
class End:
    store: KeyStore
    pool: KeyPool
    refill: Refill

    @property
    def sendable_bits(self) -> int:
        return self.pool.bits_left


def start(directory: Path, role: str) -> End:
    (directory / "store.key").write_bytes(bytes(32))
    store = KeyStore.open(directory / f"{role}.sqlite", directory / "store.key")
    pool = KeyPool(SECRET, alice=role == "alice", target_bits=TARGET_BITS)
    made = End(store, pool, Refill(store, pool))
    made.refill.restore()
    return made


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[dict[str, End]]:
    made = {role: start(tmp_path, role) for role in ("alice", "bob")}
    for end in made.values():
        add_block(end.store, 1, 4096)
    yield made
    for end in made.values():
        end.store.close()


def restart(ends: dict[str, End], role: str, directory: Path) -> End:
    ends[role].store.close()
    ends[role] = start(directory, role)
    return ends[role]


def test_both_ends_add_the_same_and_no_application_gets_it(ends: dict[str, End], tmp_path: Path) -> None:
    alice, bob = ends["alice"], ends["bob"]
    begun = [alice.sendable_bits, bob.sendable_bits]
    assert bob.refill.unanswered() is None
    one = bob.refill.cut(NUMBER, 1024)
    assert one is not None
    bob.refill.add(one)
    assert bob.sendable_bits == begun[1], "Alice does not hold it yet"
    answered = alice.refill.accept(one.question())
    assert answered is not None
    answer, hers = answered
    assert hers is not None
    alice.refill.add(hers)
    assert hers.pads == one.pads
    assert bob.refill.unanswered() == one
    bob.refill.conclude(one, bob.refill.settle(one, answer))
    assert bob.refill.unanswered() is None
    for role, before in zip(("alice", "bob"), begun, strict=True):
        assert ends[role].sendable_bits == before + 128 * 31
        again = restart(ends, role, tmp_path)
        assert again.sendable_bits == before + 128 * 31, "a restart has lost it"
        assert again.store.available_bits() == 8 * 3072
        assert again.store.room(3073, from_front=True, simulated=True) == []
        late = Slice("6e1d4c6e-0000-4000-8000-000000000000", 1, 3072, 16)
        assert not again.store.cut([late], Owners("a", "b"), from_front=True, ours=True, simulated=True)


def test_what_is_not_answered_is_not_sent_from_and_asked_again(ends: dict[str, End], tmp_path: Path) -> None:
    begun = ends["bob"].sendable_bits
    one = ends["bob"].refill.cut(NUMBER, 1024)
    assert one is not None
    bob = restart(ends, "bob", tmp_path)
    assert bob.sendable_bits == begun
    assert bob.refill.unanswered() == one
    first = ends["alice"].refill.accept(one.question())
    alice = restart(ends, "alice", tmp_path)
    assert alice.refill.accept(one.question()) == first, "the same question has the same answer"


def test_what_alice_cannot_hold_is_destroyed(ends: dict[str, End]) -> None:
    """Her application was faster: nobody sends with bytes that the other does not hold."""
    alice, bob = ends["alice"], ends["bob"]
    taken = Slice("6e1d4c6e-0000-4000-8000-000000000000", 1, 0, 4000)
    assert alice.store.cut([taken], Owners("a", "b"), from_front=True, ours=True, simulated=True)
    one = bob.refill.cut(NUMBER, 1024)
    assert one is not None
    bob.refill.add(one)
    answered = alice.refill.accept(one.question())
    assert answered is not None
    assert answered[1] is None
    before = bob.sendable_bits
    bob.refill.conclude(one, bob.refill.settle(one, answered[0]))
    assert bob.refill.unanswered() is None
    assert bob.store.numbered_settings("refill") == []
    assert bob.sendable_bits == before


def test_one_number_names_one_segment(ends: dict[str, End]) -> None:
    alice = ends["alice"]
    assert alice.refill.accept(b'{"refill": [7, 1, 3584, 512]}') is not None
    answered = alice.refill.accept(b'{"refill": [7, 1, 3072, 512]}')
    assert answered is not None
    assert answered[1] is None
    assert b"false" in answered[0]


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'{"reserve": []}', b'{"refill": 5}', b'{"refill": [1, 2, 3]}', b'{"refill": [0, 1, 0, 512]}',
     b'{"refill": [true, 1, 0, 512]}', b'{"refill": [1, 1, -1, 512]}', b'{"refill": [1, 1, 0, 0]}'],
)  # fmt: skip
def test_what_is_no_such_question_is_for_the_inventory(ends: dict[str, End], raw: bytes) -> None:
    assert ends["alice"].refill.accept(raw) is None


def test_a_new_link_secret_forgets_it(ends: dict[str, End]) -> None:
    assert ends["bob"].refill.cut(NUMBER, 1024) is not None
    ends["bob"].store.forget_pads()
    assert ends["bob"].refill.unanswered() is None


def test_key_is_taken_where_there_is_some(ends: dict[str, End]) -> None:
    """From the end of the newest block with room; less than wanted, if there is no more; nothing from nothing."""
    bob = ends["bob"]
    one = bob.refill.cut(NUMBER, 1 << 14)
    assert one is not None
    assert (one.block_id, one.offset, len(one.pads)) == (1, 0, 4096)
    assert bob.refill.cut(NUMBER + 1, 1 << 14) is None
