"""Two key managers: the same bytes at both ends, each once, for the two applications that were named."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.keys.inventory import REFUSALS, Inventory, KeysRefused, Owners, Slice
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
    told, slices = a.reserve(owners, number, n_bytes)
    ids = [one.key_id for one in slices]
    assert a.refusal(slices, b.accept_from_peer(told)) is None
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
    told, slices = a.reserve(AB, 1, 16)
    ids = [one.key_id for one in slices]
    assert a.refusal(slices, b.accept_from_peer(told)) is None
    a.hand_out(ids)
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
    told, slices = a.reserve(AB, 2, 16)
    ids = [one.key_id for one in slices]
    answer = b.accept_from_peer(told)
    assert b.accept_from_peer(told) == answer
    other = json.dumps(json.loads(told) | {"slave": "sae-b2"}).encode()
    assert b"not available" in b.accept_from_peer(other)
    more = json.loads(told)
    more["reserve"].append([str(uuid.uuid4()), *more["reserve"][0][1:]])
    assert b"not available" in b.accept_from_peer(json.dumps(more).encode())
    assert a.refusal(slices, answer) is None
    assert b.fetch("sae-b", "sae-a", ids) == a.hand_out(ids)
    assert b"not available" in b.accept_from_peer(told), "delivered"
    assert alice.available_bits() == bob.available_bits() == 8 * (300 - 32)


def test_both_ends_ask_for_the_last_bytes_at_once(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as alice, open_store(tmp_path, "bob") as bob:
        add_block(alice, 1, 24)
        add_block(bob, 1, 24)
        a, b = inventory(alice, "alice"), inventory(bob, "bob")
        told_a, cut_a = a.reserve(AB, 1, 16)
        told_b, cut_b = b.reserve(BA, 1, 16)
        assert "not available" in str(a.refusal(cut_a, b.accept_from_peer(told_a)))
        assert "not available" in str(b.refusal(cut_b, a.accept_from_peer(told_b)))
        a.put_back(cut_a)
        b.put_back(cut_b)
        assert alice.available_bits() == bob.available_bits() == 8 * 24
        assert both_ways(b, a, BA, 1, 16)
        assert both_ways(a, b, AB, 1, 8)


def test_bytes_that_the_other_end_never_has_are_given_up(tmp_path: Path) -> None:
    """It has skipped them: they stand before all others of this end, and must not stop them for good."""
    with open_store(tmp_path, "alice") as alice, open_store(tmp_path, "bob") as bob:
        for store in (alice, bob):
            add_block(store, 1, 64)
        a, b = inventory(alice, "alice"), inventory(bob, "bob")
        assert bob.cut([Slice(str(uuid.uuid4()), 1, 0, 16)], AB, from_front=True, ours=False, simulated=False)
        for _ in range(REFUSALS):
            told, slices = a.reserve(AB, 1, 16)
            assert a.refusal(slices, b.accept_from_peer(told)) is not None
            a.put_back(slices)
        assert both_ways(a, b, AB, 3, 16)


Way = deque[tuple[str, bytes, list[Slice]]]


class Asks:
    """One end with several requests under way; what is on its way arrives in order."""

    def __init__(self, store: KeyStore, role: str) -> None:
        self.store, self.manager, self.owners = store, inventory(store, role), AB if role == "alice" else BA
        self.out: Way = deque()
        self.open: deque[list[Slice]] = deque()
        self.refused: list[Slice] = []
        self.made: dict[str, str] = {}

    def tidy(self) -> None:
        if not self.open:
            self.manager.put_back(self.refused)
            self.refused = []

    def ask(self, number: int, n_bytes: int) -> None:
        if self.refused:
            self.tidy()
        if self.refused:
            return
        with contextlib.suppress(KeysRefused):
            told, slices = self.manager.reserve(self.owners, number, n_bytes)
            self.open.append(slices)
            self.out.append(("question", told, slices))

    def hear(self, peer: Asks) -> None:
        if not peer.out:
            return
        kind, payload, slices = peer.out.popleft()
        if kind == "question":
            self.out.append(("answer", self.manager.accept_from_peer(payload), slices))
        else:
            assert self.open.popleft() is slices
            if self.manager.refusal(slices, payload) is None:
                self.made |= dict(self.manager.hand_out([one.key_id for one in slices]))
            else:
                self.refused += slices


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.one_of(st.none(), st.tuples(st.integers(1, 2), st.sampled_from([8, 16, 24])))),
        max_size=60,
    )
)
def test_whoever_asks_for_the_last_bytes_none_is_destroyed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, tuple[int, int] | None]]
) -> None:
    """Any order of asking and hearing at both ends: what was made is delivered, or there still, at both ends alike."""
    directory = tmp_path_factory.mktemp("ends")
    with (
        open_store(directory, "alice") as alice,
        open_store(directory, "bob") as bob,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("common.keys.inventory.REFUSALS", len(steps) + 1)
        for store in (alice, bob):
            store._db.execute("PRAGMA synchronous = OFF")
            add_block(store, 1, 60)
            add_block(store, 2, 90)
        ends = Asks(alice, "alice"), Asks(bob, "bob")
        for at_bob, asked in [*steps, *[(bool(n % 2), None) for n in range(4 * len(steps) + 4)]]:
            end, peer = ends[at_bob], ends[not at_bob]
            if asked is None:
                end.hear(peer)
            else:
                end.ask(*asked)
        for end in ends:
            end.tidy()
            assert not end.open
        for end, peer in (ends, ends[::-1]):
            fetched = [peer.manager.fetch(end.owners.slave, end.owners.master, [key_id]) for key_id in end.made]
            assert dict(key for (key,) in fetched) == end.made
        delivered = sum(len(base64.b64decode(key)) for end in ends for key in end.made.values())
        assert alice.waiting_keys() == bob.waiting_keys() == 0
        assert alice.available_bits() == bob.available_bits() == 8 * (150 - delivered)


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
