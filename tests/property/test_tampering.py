"""No key rests on words that nobody authenticated: Eve alters messages, and either process ends and starts again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from classical_channel.framing import FRAME, SEAL, Frame, Kind, Packet
from common.errors import AuthenticationError, LinkLocked, RemoteProtocolError
from common.node import alarms
from common.protocol.messages import Commit, Message, Prepared, Seed, Verify, decode
from tests.pair import End, Pair
from tests.property.test_protocol import (  # noqa: F401
    Feeder,
    agree,
    finish,
    make_pair,
    short_blocks_give_key,
)

FIRST = 1 << 32 | 1


def message_of(raw: bytes) -> Message | None:
    """The message in a packet."""
    packet = Packet.decode(raw)
    return decode(Frame.decode(packet.body).message) if packet.kind is Kind.DATA else None


def altered(raw: bytes, message: Message) -> bytes:
    """The packet with another message in it, and the tag that it had."""
    packet = Packet.decode(raw)
    seal = packet.body[-SEAL.size :] if packet.body[0] else b""
    return replace(packet, body=packet.body[: FRAME.size] + message.encode() + seal).encode()


class Eve:
    """Sits on one direction; what she does to a message, she does until she is told to stop."""

    def __init__(self, act: Callable[[bytes, Message], list[bytes]]) -> None:
        self.acting, self._act = True, act
        self.touched: list[str] = []

    def __call__(self, number: int, raw: bytes) -> list[tuple[int, bytes]]:
        message = message_of(raw)
        if not self.acting or message is None:
            return [(0, raw)]
        sent = self._act(raw, message)
        if sent != [raw]:
            self.touched.append(message.name)
        return [(0, one) for one in sent]


def zero_seed(raw: bytes, message: Message) -> list[bytes]:
    """A seed of zeros makes a key of zeros."""
    return [altered(raw, replace(message, payload=bytes(len(message.payload))))] if isinstance(message, Seed) else [raw]


def certificates_agree(pair: Pair) -> None:
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)
    assert pair.alice.store.committed()


def test_a_failed_tag_destroys_what_rests_on_it_and_locks_the_link() -> None:
    """Eve zeroes the seed; Bob's process ends with the failed tag. No restart makes a key of that block."""
    pair, sky = make_pair()
    pair.to_bob.fault = eve = Eve(zero_seed)
    Feeder(pair, sky)
    with pytest.raises(AuthenticationError, match="did not verify"):
        pair.run(lambda: False, limit_ns=60_000_000_000)
    eve.acting = False
    assert "SEED" in eve.touched
    assert pair.bob.store.blocks == {}
    assert not any(name.startswith("pads/") for name in pair.bob.store.settings)
    with pytest.raises(LinkLocked, match="did not verify"):
        pair.crash(pair.bob)
    alarms.clear(pair.bob.store)
    pair.crash(pair.bob)
    pair.run(lambda: len(pair.bob.store.committed()) >= 2)
    assert FIRST not in pair.alice.store.blocks
    certificates_agree(pair)


@pytest.mark.parametrize("lost", ["FIXED", "PREPARED", "COMMIT"])
@pytest.mark.parametrize("at_alice", [True, False])
def test_a_restart_commits_nothing_that_was_not_authenticated(lost: str, at_alice: bool) -> None:
    """Eve zeroes the seed and loses every sealed message that would tell; then a process happens to restart."""

    def act(raw: bytes, message: Message) -> list[bytes]:
        return [] if message.name == lost else zero_seed(raw, message)

    pair, sky = make_pair()
    pair.to_bob.fault = eve = Eve(act)
    pair.to_alice.fault = back = Eve(lambda raw, message: [] if message.name == lost else [raw])
    pair.on_fault = lambda end, error: None
    Feeder(pair, sky)
    pair.run(lambda: "SEED" in eve.touched)
    pair.settle(300_000_000)
    eve.acting = back.acting = False
    for end in (pair.alice, pair.bob):
        alarms.clear(end.store)
    for end in (pair.alice, pair.bob) if not pair.bob.running else (pair.alice if at_alice else pair.bob,):
        pair.crash(end)
    pair.run(lambda: len(pair.bob.store.committed()) >= 2 and len(pair.alice.store.committed()) >= 2)
    assert FIRST not in pair.bob.store.blocks
    assert FIRST not in pair.alice.store.blocks
    certificates_agree(pair)


@pytest.mark.parametrize("name", ["ANNOUNCE", "VERIFIED"])
def test_what_bob_will_say_cannot_be_said_before_he_says_it(name: str) -> None:
    """Eve, who made his detections, foresees all of it but the nonce: what Alice answers too early produces no key."""
    said: list[Message] = []

    def act(raw: bytes, message: Message) -> list[bytes]:
        if message.name == name and not said:
            said.append(message)
            return [altered(raw, replace(message, nonce=bytes(16)))]
        return [raw]

    pair, sky = make_pair()
    pair.to_alice.fault = Eve(act)
    Feeder(pair, sky)
    with pytest.raises(AuthenticationError):
        pair.run(lambda: False)
    assert not pair.alice.store.committed() | pair.bob.store.committed()
    assert not any(end.store.state_of(FIRST) for end in (pair.alice, pair.bob))
    again, _ = make_pair()
    again.to_alice.fault = Eve(lambda raw, message: said.append(message) or [raw] if message.name == name else [raw])
    Feeder(again, sky)
    again.bob.session._random_bytes = lambda n: np.ones(n, np.uint8)
    again.run(lambda: len(said) >= 2)
    assert replace(said[0], nonce=b"") == replace(said[1], nonce=b"")
    assert said[0] != said[1]


def test_a_point_at_which_every_string_verifies_is_refused() -> None:
    """Eve lets Bob compare at r = 0, where the tags of all strings are equal: the clamped bits alone are set."""
    zero_when_clamped = (0xF0000003F0000003F0000003F0000000).to_bytes(16, "little")

    def act(raw: bytes, message: Message) -> list[bytes]:
        if not isinstance(message, Verify):
            return [raw]
        return [altered(raw, replace(message, hash_key=zero_when_clamped, tag=bytes(16)))]

    pair, sky = make_pair()
    pair.to_bob.fault = Eve(act)
    Feeder(pair, sky)
    with pytest.raises(RemoteProtocolError, match="every string would have the same tag"):
        pair.run(lambda: False)


def stored(end: End, state: str) -> bool:
    return end.store.state_of(FIRST) == state


def test_a_key_that_was_promised_survives_a_failed_tag() -> None:
    """Alice may have decided: what both ends had authenticated before is settled, not split."""
    pair, sky = make_pair()

    def act(raw: bytes, message: Message) -> list[bytes]:
        return [altered(raw, replace(message, bob_to_alice=bytes(32)))] if isinstance(message, Commit) else [raw]

    pair.to_bob.fault = eve = Eve(act)
    Feeder(pair, sky)
    with pytest.raises(AuthenticationError):
        pair.run(lambda: False)
    eve.acting = False
    assert stored(pair.alice, "decided")
    assert stored(pair.bob, "pending")
    alarms.clear(pair.bob.store)
    pair.crash(pair.bob)
    pair.run(lambda: len(pair.alice.store.committed()) >= 2)
    assert stored(pair.alice, "committed")
    certificates_agree(pair)


def test_ends_that_do_not_have_the_same_messages_make_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tags hold, the transcripts differ (a defect, a store that was exchanged): it is as bad as a failed tag."""
    pair, sky = make_pair()
    monkeypatch.setattr("bob.session.Prepared", lambda number, *digests: Prepared(number, digests[0], bytes(32)))
    Feeder(pair, sky)
    with pytest.raises(AuthenticationError, match=r"PREPARED.*same messages"):
        pair.run(lambda: False)
    assert pair.alice.store.blocks == {}


def test_a_commit_of_another_block_s_messages_destroys_the_key_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, sky = make_pair()
    with monkeypatch.context() as patch:
        patch.setattr("alice.session.Commit", lambda number, *digests: Commit(number, *reversed(digests)))
        Feeder(pair, sky)
        with pytest.raises(AuthenticationError, match=r"COMMIT.*same messages"):
            pair.run(lambda: False)
    assert pair.bob.store.blocks == {}
    assert stored(pair.alice, "decided")
    alarms.clear(pair.bob.store)
    pair.crash(pair.bob)
    pair.run(lambda: len(pair.bob.store.committed()) >= 2)
    assert FIRST not in pair.alice.store.blocks
    told: list[Any] = [facts for facts in pair.alice.done if facts.block_id == FIRST]
    assert [(facts.state, facts.secret_bits, facts.reason) for facts in told] == [
        ("refused", 0, "refused by the peer: its key is not held here")
    ]
    certificates_agree(pair)


def test_a_key_without_the_mark_is_not_committed() -> None:
    """Whatever put it there: Bob's store holds a pending key that nobody authenticated, and Alice says COMMIT."""
    pair, sky = make_pair()
    Feeder(pair, sky)
    pair.run(lambda: stored(pair.bob, "pending"))
    pair.bob.store.authenticated.clear()
    with pytest.raises(AuthenticationError, match="never authenticated"):
        pair.run(lambda: False)
    assert pair.bob.store.blocks == {}
