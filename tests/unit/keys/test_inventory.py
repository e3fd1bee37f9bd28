"""Two key managers: the same bytes at both ends, each once, for the two applications that were named."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.keys.inventory import Inventory, KeysRefused, Owners
from common.node.keystore import KeyStore
from tests.stores import add_block, inventory, open_store

Ends = tuple[KeyStore, KeyStore, Inventory, Inventory]
AB, BA = Owners("sae-a", "sae-b"), Owners("sae-b", "sae-a")


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with open_store(tmp_path, "alice") as alice, open_store(tmp_path, "bob") as bob:
        for store in (alice, bob):
            for number in (1, 2, 3):
                add_block(store, number, 100)
        yield alice, bob, inventory(alice, "alice"), inventory(bob, "bob")


def both_ways(a: Inventory, b: Inventory, owners: Owners, number: int, n_bytes: int) -> dict[str, str]:
    told, ids = a.reserve(owners, number, n_bytes)
    a.settle(ids, b.accept_from_peer(told))
    made = a.hand_out(ids)
    assert b.fetch(owners.slave, owners.master, ids) == made
    return dict(made)


def test_keys_are_equal_and_never_the_same_bytes(ends: Ends) -> None:
    _, _, a, b = ends
    keys: dict[str, str] = {}
    for _ in range(3):
        keys |= both_ways(a, b, AB, 2, 16)
        keys |= both_ways(b, a, BA, 2, 16)
    assert len(keys) == len(set(keys.values())) == 12
    assert all(len(base64.b64decode(key)) == 16 for key in keys.values())
    assert all(str(uuid.UUID(key_id)) == key_id for key_id in keys)


def test_a_key_is_fetched_once(ends: Ends) -> None:
    _, _, a, b = ends
    (key_id,) = both_ways(a, b, AB, 1, 16)
    with pytest.raises(KeysRefused, match="not found on KME"):
        b.fetch("sae-b", "sae-a", [key_id])


def test_only_the_named_slave_fetches(ends: Ends) -> None:
    _, _, a, b = ends
    told, ids = a.reserve(AB, 1, 16)
    a.settle(ids, b.accept_from_peer(told))
    for caller, master in (("sae-b2", "sae-a"), ("sae-b", "sae-a2"), ("sae-a", "sae-a"), ("nobody", "sae-a")):
        with pytest.raises(KeysRefused) as refused:
            b.fetch(caller, master, ids)
        assert refused.value.unauthorised
    with pytest.raises(KeysRefused, match="not found"):
        b.fetch("sae-b", "sae-a", [*ids, str(uuid.uuid4())])
    assert len(b.fetch("sae-b", "sae-a", ids)) == 1, "a refused batch takes nothing"


def test_only_known_applications_ask(ends: Ends) -> None:
    _, _, a, _ = ends
    with pytest.raises(KeysRefused) as refused:
        a.reserve(BA, 1, 16)
    assert refused.value.unauthorised
    with pytest.raises(KeysRefused, match="not known"):
        a.reserve(Owners("sae-a", "sae-a2"), 1, 16)


def test_a_question_that_is_repeated_has_the_same_answer(ends: Ends) -> None:
    """The answer was lost with its session: nothing is cut twice, and nothing of others is named."""
    alice, bob, a, b = ends
    told, ids = a.reserve(AB, 2, 16)
    answer = b.accept_from_peer(told)
    assert b.accept_from_peer(told) == answer
    other = json.dumps(json.loads(told) | {"slave": "sae-b2"}).encode()
    assert b"not available" in b.accept_from_peer(other)
    more = json.loads(told)
    more["reserve"].append([str(uuid.uuid4()), *more["reserve"][0][1:]])
    assert b"not available" in b.accept_from_peer(json.dumps(more).encode())
    a.settle(ids, answer)
    assert b.fetch("sae-b", "sae-a", ids) == a.hand_out(ids)
    assert b"not available" in b.accept_from_peer(told), "delivered"
    assert alice.available_bits() == bob.available_bits() == 8 * (300 - 32)


def test_both_ends_ask_for_the_last_bytes_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as alice, open_store(tmp_path, "bob") as bob:
        add_block(alice, 1, 24)
        add_block(bob, 1, 24)
        a, b = inventory(alice, "alice"), inventory(bob, "bob")
        told_a, ids_a = a.reserve(AB, 1, 16)
        told_b, ids_b = b.reserve(BA, 1, 16)
        with pytest.raises(KeysRefused, match="not available"):
            a.settle(ids_a, b.accept_from_peer(told_a))
        with pytest.raises(KeysRefused, match="not available"):
            b.settle(ids_b, a.accept_from_peer(told_b))
        assert alice.owners_of(ids_a) == bob.owners_of(ids_b) == {}


def test_not_enough_key_takes_nothing(ends: Ends) -> None:
    alice, _, a, _ = ends
    with pytest.raises(KeysRefused) as refused:
        a.reserve(AB, 4, 80)
    assert refused.value.later
    assert alice.available_bits() == 8 * 300
    assert a.count(80) == 3


def test_simulated_keys_need_consent(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as alice:
        add_block(alice, 1, 64, simulated=True)
        with pytest.raises(KeysRefused):
            inventory(alice, "alice").reserve(AB, 1, 8)
        assert inventory(alice, "alice", deliver_simulated=True).reserve(AB, 1, 8)


ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b'{"reserve": [], "master": "sae-a", "slave": "sae-b"}',
        json.dumps({"reserve": [[ID, 1, 0, 0]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 1, -1, 8]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 1, 0, 1 << 70]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [["no-uuid", 1, 0, 8]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 1, 0, 8], [ID, 1, 8, 8]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 9, 0, 8]], "master": "sae-a", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 1, 0, 8]], "master": "sae-b", "slave": "sae-b"}).encode(),
        json.dumps({"reserve": [[ID, 1, 0, 8]], "master": "sae-a", "slave": "sae-a"}).encode(),
    ],
)
def test_nonsense_from_the_peer_is_refused_with_a_reason(ends: Ends, payload: bytes) -> None:
    _, bob, _, b = ends
    answer = json.loads(b.accept_from_peer(payload))
    assert answer["ok"] is False
    assert answer["reason"]
    assert bob.available_bits() == 8 * 300
