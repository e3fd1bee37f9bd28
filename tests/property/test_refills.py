"""Stored key refills the authentication pool: no kill lets an end send with bytes that the other does not hold."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import QkdError
from common.node.refill import Refill, Refilled, refill_name
from tests.pair import LINK_SECRET, DictStore, End, Pair
from tests.property.test_pool import MS, Asked, pads
from tests.property.test_protocol import Feeder, give_key, make_pair, short_blocks_give_key

__all__ = ["short_blocks_give_key"]
SECRET, BLOCKS = LINK_SECRET[:4160], 6
"""128 tags a direction."""
SMALL_TARGET_BITS, LARGE_TARGET_BITS = 1 << 13, 1 << 17
"""A pool that is low now and then; one that is low until nothing more is stored."""
SPARE, SPARE_PADS = 1 << 60, 128
"""A last segment, behind all refills: the link goes on where none of them may be used."""


@functools.cache
def stored() -> tuple[Pair, dict[str, DictStore]]:
    """A pair, and its stores with some blocks of 750 bytes."""
    pair, sky = make_pair()
    with pytest.MonkeyPatch.context() as patch:
        give_key(patch, 6000)
        patch.setattr("alice.session.SEED_PART_BYTES", 1000)
        Feeder(pair, sky)
        pair.run(lambda: len(pair.alice.store.committed()) >= BLOCKS)
    pair.on_step = lambda now_ns: None
    pair.settle()
    for end in (pair.alice, pair.bob):
        for name in [name for name in end.store.settings if name.startswith(("pads/", "auth/"))]:
            del end.store.settings[name]
    return pair, {"alice": pair.alice.store, "bob": pair.bob.store}


class Link:
    """A pair that has key in store and makes no more; its daemons' refilling, in virtual time."""

    def __init__(self, target_bits: int, refill: type[Refill] = Refill, *, spare: bool = True) -> None:
        first, stores = stored()
        self.asking = self.refilled = 0
        self.refill = refill
        ends = []
        for old in (first.alice, first.bob):
            store = copy.deepcopy(stores[old.name])
            if spare:
                store.settings[refill_name(SPARE)] = Refilled(SPARE, 0, 0, True, LINK_SECRET[4160:8320]).record()
            end = End(old.name, self.accepting(old), SECRET, target_bits, store)
            end.instance = end.starts = 100  # later than the processes that made the blocks
            ends.append(end)
        self.pair = pair = Pair(*ends)
        for end in ends:
            pair.crash(end)
        pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)

    def accepting(self, old: End) -> Any:
        make = old._make_session

        def accept(end: End, payload: bytes) -> bytes:
            answered = end.refill.accept(payload)
            if answered is None:
                return payload[::-1]
            if answered[1] is not None:
                end.refill.add(answered[1])
            return answered[0]

        def session(end: End, instance: int) -> Any:
            for number, _ in end.store.numbered_settings("refill"):
                end.pool.forget(number)
            end.refill = self.refill(end.store, end.pool)
            end.refill.restore()
            made = make(end, instance)
            made._accept_request = lambda payload: accept(end, payload)
            return made

        return session

    def look(self, now_ns: int) -> None:
        """Bob's task, as in `common.node.node`."""
        bob = self.pair.bob
        if not bob.running or not bob.session.ready or self.asking == bob.starts:
            return
        refill = bob.refill
        one = refill.unanswered()
        if one is None and (wanted := refill.wanted_bytes()):
            one = refill.cut(bob.session.next_segment(), wanted)  # type: ignore[attr-defined]
        if one is None:
            return
        refill.add(one)
        self.asking = process = bob.starts

        def then(answer: bytes | None) -> list[Any]:
            if self.pair.bob.starts == process:
                self.asking = 0
                if answer is not None:
                    self.refilled += b"true" in answer
                    refill.conclude(one, refill.settle(one, answer))
            return []

        bob.carry(bob.session.request(one.question(), then), now_ns)

    def ask(self, *ends: End) -> None:
        """One question of each, and its answer."""
        asked = [Asked(self.pair, end) for end in ends]
        for one in asked:
            one.ask(b"x")
        self.pair.run(lambda: all(one.answers == [b"x"] for one in asked), 20_000 * MS)

    def drain(self, n_pads: int) -> None:
        """Until so many pads of the first segment are left to Bob, or one less."""
        while pads(self.pair)[1] > SPARE_PADS + n_pads:
            self.ask(self.pair.alice)

    def used(self) -> list[set[int]]:
        """Refills that each end has sent with."""
        return [{number for number, _ in end.named} - {0, SPARE} for end in (self.pair.alice, self.pair.bob)]

    def check(self) -> None:
        """Both ends' segments are equal, and no byte of them is left for an application."""
        held = []
        for end in (self.pair.alice, self.pair.bob):
            mine = [one for one in end.refill._stored() if one.number != SPARE]
            held.append({one.number: one.pads for one in mine})
            for one in mine:
                key = end.store.blocks[one.block_id][1]
                assert one.pads == key[one.offset : one.offset + len(one.pads)]
                assert end.store.left(one.block_id) <= one.offset
        assert all(held[0][number] == held[1][number] for number in held[0].keys() & held[1].keys())


def test_an_idle_link_lives_on_stored_key() -> None:
    """Requests alone, for as long as there is key: each refill brings more tags than it costs."""
    link = Link(SMALL_TARGET_BITS, spare=False)
    link.pair.on_step = link.look
    n, begun = 80, min(pads(link.pair))
    for _ in range(n):
        link.ask(link.pair.alice, link.pair.bob)
        link.pair.settle(400 * MS)
    assert link.refilled >= 2
    assert begun < 2 * n, "the refills were not needed: a weak test"
    assert min(pads(link.pair)) > 16
    link.pair.settle()
    link.check()


Kills = list[tuple[int, bool]]


def live(kills: Kills, n_pads: int, refill: type[Refill] = Refill) -> list[set[int]]:
    """A link whose pool runs into its refills while it is killed; the refills that each end has sent with."""
    link = Link(LARGE_TARGET_BITS, refill)
    pair = link.pair
    link.drain(n_pads)
    pair.on_step = link.look
    for steps, at_alice in kills:
        for _ in range(steps):
            pair.step()
        pair.crash(pair.alice if at_alice else pair.bob)
    pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready, 20_000 * MS)
    for _ in range(12):
        link.ask(pair.alice, pair.bob)
    pair.settle()
    link.check()
    return link.used()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=4), st.integers(1, 24))
def test_kills_at_both_ends_while_the_pool_is_refilled(kills: Kills, n_pads: int) -> None:
    """A segment that one end alone holds is never sent from; both go on with the next."""
    live(kills, n_pads)


def schedules() -> Iterator[tuple[Kills, int]]:
    """One kill at every moment around the first question, where the next pad is soon a refill's."""
    for n_pads in (8, 4):
        for steps in range(0, 30, 2):
            for at_alice in (True, False):
                yield [(steps, at_alice)], n_pads


def test_refills_are_sent_with_at_both_ends() -> None:
    """Else the property above would say nothing."""
    assert all(live([], 8))


class SendsEarly(Refill):
    """Bob does not wait for the answer."""

    def add(self, one: Refilled) -> None:
        self._pool.add_segment(one.number, one.pads)


class ForgetsWhatItPromised(Refill):
    """Alice says yes and keeps it in memory alone."""

    def accept(self, payload: bytes) -> Any:
        answered = super().accept(payload)
        if answered is not None and answered[1] is not None:
            self._shelf.delete_setting(refill_name(answered[1].number))
        return answered


class ForgetsWhatItAsked(Refill):
    """Bob's next process does not know what the last one has asked for."""

    def restore(self) -> None:
        for one in self._stored():
            if not one.agreed:
                self._shelf.delete_setting(refill_name(one.number))
        super().restore()


class RefusesARepetition(Refill):
    """Alice holds it and says no."""

    def accept(self, payload: bytes) -> Any:
        before = len(self._stored())
        answered = super().accept(payload)
        if answered is not None and len(self._stored()) == before:
            return b'{"ok": false}', None
        return answered


class LeavesItToApplications(Refill):
    """The bytes stay in their block, too."""

    def accept(self, payload: bytes) -> Any:
        before = dict(self._shelf.cut_at)  # type: ignore[attr-defined]
        answered = super().accept(payload)
        self._shelf.cut_at = before  # type: ignore[attr-defined]
        return answered


@pytest.mark.parametrize(
    "wrong", [SendsEarly, ForgetsWhatItPromised, ForgetsWhatItAsked, RefusesARepetition, LeavesItToApplications]
)
def test_the_property_finds_a_refill_that_is_wrong(wrong: type[Refill]) -> None:
    for kills, n_pads in schedules():
        try:
            live(kills, n_pads, wrong)
        except (AssertionError, QkdError):
            return
    pytest.fail("no schedule shows it")
