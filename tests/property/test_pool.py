"""Nothing that light, applications or restarts do empties the authentication pool and so ends the link for good."""

from __future__ import annotations

from typing import Any

import pytest

from classical_channel.framing import Frame, Kind, Packet
from common.errors import AuthenticationError
from common.protocol.messages import (
    Announce,
    BlockMessage,
    Fixed,
    FrameResult,
    Prepared,
    Propose,
    Refuse,
    Seed,
    Sift,
    Syndrome,
    Verified,
    Withdraw,
    decode,
)
from common.protocol.story import Until
from common.protocol.transitions import Role, State, ending
from tests.pair import End, Pair
from tests.property.test_protocol import Feeder, Sky, agree, make_pair, short_blocks_give_key
from tests.schedules import refusing

__all__ = ["short_blocks_give_key"]
MS = 1_000_000


def pads(pair: Pair) -> list[int]:
    """Left for sending, at Alice and at Bob."""
    return [end.pool.bits_left // 128 for end in (pair.alice, pair.bob)]


def ready(seed: int = 1, target_bits: int = 0) -> tuple[Pair, Sky]:
    pair, sky = make_pair(seed)
    if target_bits:
        pair.alice, pair.bob = (
            End(end.name, end._make_session, pool_target_bits=target_bits) for end in (pair.alice, pair.bob)
        )
    pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)
    pair.settle(500 * MS)
    return pair, sky


@pytest.mark.parametrize("given_up_by", ["alice", "bob"])
def test_blocks_that_end_before_any_promise_cost_no_tag(given_up_by: str) -> None:
    """Every batch overflows, or the light is too bad for a key: two thousand blocks in a row."""
    pair, sky = ready()
    before = pads(pair)
    alice, bob = pair.alice.session, pair.bob.session
    n_blocks, position = 2000, 0
    for number in range(n_blocks):
        pair.bob.carry(bob.on_detections(sky.detections(position, 8192), pair.now_ns), pair.now_ns)
        position += 8192
        pair.run(lambda number=number: len(alice.open_blocks()) > 0 or len(pair.alice.done) > number)
        end = pair.alice if given_up_by == "alice" else pair.bob
        for block in list(end.session.open_blocks()):
            end.carry(end.session.give_up(block, "too many errors"), pair.now_ns)
        pair.run(lambda number=number: min(len(pair.alice.done), len(pair.bob.done)) > number)
    assert pads(pair) == before
    assert {facts.state for facts in pair.alice.done + pair.bob.done} == {"refused"}
    Feeder(pair, sky).position = position
    pair.run(lambda: len(pair.alice.store.committed()) >= 1)
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)


@pytest.mark.parametrize("victim", [Sift, Announce, Syndrome, FrameResult, Verified, Propose, Seed, Fixed, Prepared])
def test_a_forged_refusal_costs_the_block_and_then_a_failed_tag(victim: type[BlockMessage]) -> None:
    """Whoever is told that the peer refuses says so to the peer, who waits for nothing; the next seal tells of it."""
    pair, sky = ready()
    feeder = Feeder(pair, sky)
    forged: list[int] = []

    def fault(number: int, raw: bytes) -> list[tuple[int, bytes]]:
        packet = Packet.decode(raw)
        if packet.kind is Kind.DATA and not forged:
            message = decode(Frame.decode(packet.body).message)
            if isinstance(message, victim):
                forged.append(message.block_id)
                return [(0, refusing(packet).encode())]
        return [(0, raw)]

    to_bob = victim in (Sift, Syndrome, Propose, Seed, Fixed)
    (pair.to_bob if to_bob else pair.to_alice).fault = fault
    faults: list[tuple[End, Exception]] = []
    pair.on_fault = lambda end, error: faults.append((end, error))
    pair.settle(5_000 * MS)
    assert forged
    assert feeder.position > 0
    (end, error) = faults[0]
    assert isinstance(error, AuthenticationError)
    assert end is (pair.bob if to_bob else pair.alice)
    for store in (pair.alice.store, pair.bob.store):
        assert forged[0] not in store.committed()
        assert store.state_of(forged[0]) != "decided"


@pytest.mark.parametrize("state", [State.FIXED, State.PREPARED])
def test_alice_withdraws_under_a_seal_where_bob_may_have_promised(state: State) -> None:
    pair, sky = ready()
    Feeder(pair, sky)
    alice: Any = pair.alice.session
    make = alice._make

    def made_and_not_told(*of_block: Any) -> Any:
        yield from make(*of_block)
        yield Until(lambda: False)

    alice._make = made_and_not_told
    pair.run(lambda: any(block.state is state for block in alice.open_blocks()))
    block = next(block for block in alice.open_blocks() if block.state is state)
    effects = alice.refuse(block, "held")
    kinds = {type(effect.message) for effect in effects if hasattr(effect, "message")}
    assert kinds == {Withdraw}
    assert Withdraw.SEALED
    assert not Refuse.SEALED
    alice.forget(block.block_id)
    pair.alice.carry(effects, pair.now_ns)
    pair.on_step = lambda now_ns: None
    pair.settle()
    assert block.block_id not in pair.bob.store.blocks
    assert block.block_id not in pair.alice.store.blocks


def test_a_long_transcript_is_sealed_before_its_tag_could_not_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain messages alone, for days: a seal now and then, long before the bound of the forgery probability ends."""
    monkeypatch.setattr("classical_channel.channel.SEAL_BYTES", 100_000)
    pair, sky = ready()
    before, bob = pads(pair), pair.bob.session
    sent = pair.bob.channel.bytes_sent
    for number in range(100):
        pair.bob.carry(bob.on_detections(sky.detections(8192 * number, 8192), pair.now_ns), pair.now_ns)
        pair.settle(20 * MS)
        pair.bob.carry(bob.void_filling("overflow", pair.now_ns), pair.now_ns)
        pair.settle(20 * MS)
    due = (pair.bob.channel.bytes_sent - sent) // 100_000
    assert due > 2
    assert 0 < before[1] - pads(pair)[1] <= due + 1


def test_only_alice_ends_what_may_be_promised_and_never_in_plain_words() -> None:
    may_be_promised = (State.FIXED, State.PREPARED)
    assert {ending(state, Role.ALICE) for state in may_be_promised} == {Withdraw}
    assert [ending(state, Role.BOB) for state in may_be_promised] == [Refuse, None]
    before = (State.FILLING, State.CLOSED, State.VERIFYING, State.VERIFIED, State.PROPOSED)
    assert {ending(state, role) for state in before for role in Role} == {Refuse}


# -- requests of applications -----------------------------------------------------------------------------------------


class Asked:
    """Requests of one end, and their answers in the order in which they came."""

    def __init__(self, pair: Pair, end: End) -> None:
        self.pair, self.end = pair, end
        self.answers: list[bytes | None] = []

    def ask(self, payload: bytes) -> None:
        def then(answer: bytes | None) -> list[Any]:
            self.answers.append(answer)
            return []

        self.end.carry(self.end.session.request(payload, then), self.pair.now_ns)


@pytest.mark.parametrize("both", [False, True])
def test_ten_thousand_requests_in_a_minute_cost_few_tags(both: bool) -> None:
    """One tag covers all that wait, and the less is left, the longer they wait; their order is kept."""
    pair, _ = ready(target_bits=1 << 16)
    before, begun_ns = pads(pair), pair.now_ns
    asked = [Asked(pair, end) for end in ((pair.alice, pair.bob) if both else (pair.alice,))]
    n = 10_000
    for number in range(n):
        for one in asked:
            one.ask(b"%06d" % number)
        while pair.now_ns < begun_ns + (number + 1) * 6 * MS:
            pair.step()
    pair.run(lambda: all(len(one.answers) == n for one in asked), 5_000 * MS)
    for one in asked:
        assert one.answers == [(b"%06d" % number)[::-1] for number in range(n)]
    spent = [a - b for a, b in zip(before, pads(pair), strict=True)]
    assert min(spent) > 100
    assert max(spent) < 450, "the pool is spent on questions"


def test_a_single_request_waits_for_nothing() -> None:
    pair, _ = ready()
    asked = Asked(pair, pair.bob)
    for number in range(5):
        begun_ns = pair.now_ns
        asked.ask(b"x")
        pair.run(lambda number=number: len(asked.answers) > number)
        assert pair.now_ns - begun_ns < 12 * MS
        pair.settle(100 * MS)


# -- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob", "both"])
def test_hundreds_of_starts_without_a_block_leave_tags_for_one(who: str) -> None:
    """A service manager that starts a node again and again, for a night: 2016 tags a direction at the beginning."""
    pair, sky = make_pair()
    secret = bytes(range(256)) * 256
    pair.alice, pair.bob = (End(end.name, end._make_session, secret) for end in (pair.alice, pair.bob))
    for number in range(450):
        restarted = pair.alice if who == "alice" or (who == "both" and number % 2) else pair.bob
        pair.crash(restarted)
        pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)
        pair.settle(20 * MS)
    assert min(pads(pair)) > 64
    Feeder(pair, sky)
    pair.run(lambda: len(pair.alice.store.committed()) >= 1)
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)
