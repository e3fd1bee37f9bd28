"""The authenticated channel delivers every message once and in order, whatever happens to single packets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classical_channel import channel
from classical_channel.channel import HOLD_BYTES, HOLD_NS, Channel, Received
from classical_channel.framing import FRAME, HELD, Kind, Packet
from classical_channel.keypool import KeyPool
from classical_channel.memory_transport import MemoryPipe
from classical_channel.stream import ReliableStream
from common.errors import AuthenticationError, AuthenticationPoolEmpty, LocalProtocolError, RemoteProtocolError

SECRET = bytes(range(256)) * 9
MS = 1_000_000


class Reserving(KeyPool):
    """Its pointers are durable at once."""

    def can_send(self) -> bool:
        if (pointers := self.reservation()) is not None:
            self.confirm(pointers)
        return super().can_send()


def ends(bob_secret: bytes = SECRET) -> tuple[Channel, Channel, KeyPool, KeyPool]:
    pools = Reserving(SECRET, alice=True), Reserving(bob_secret, alice=False)
    return (
        Channel(ReliableStream(1), pools[0], alice=True),
        Channel(ReliableStream(1), pools[1], alice=False),
        *pools,
    )


def exchange(alice: Channel, bob: Channel, fault: object = None, messages: int = 12) -> list[Received]:
    to_bob, to_alice = MemoryPipe(), MemoryPipe()
    if fault is not None:
        to_bob.fault = to_alice.fault = fault  # type: ignore[assignment]
    got: list[Received] = []
    for number in range(messages):
        alice.send(b"message %d" % number, seal=number % 5 == 0)
    for now_ns in range(MS, 20_000 * MS, 20 * MS):
        for end, out in ((alice, to_bob), (bob, to_alice)):
            for packet in end.packets(now_ns):
                out.send(packet, now_ns)
        for raw in to_bob.arrivals(now_ns):
            got += [event for event in bob.receive(raw, now_ns) if isinstance(event, Received)]
        for raw in to_alice.arrivals(now_ns):
            alice.receive(raw, now_ns)
        if len(got) == messages and alice.drained:
            break
    return got


def connect(alice: Channel, bob: Channel) -> None:
    """Open Alice's session first: what is queued before an opening belongs to none. Bob's opens with her first word."""
    for _ in range(4):
        for end, peer in ((alice, bob), (bob, alice)):
            for packet in end.packets(0):
                peer.receive(packet, 0)
    assert alice.open


EXPECTED = [(b"message %d" % n, n % 5 == 0) for n in range(12)]


@given(
    st.integers(0, 40),
    st.sampled_from(["lose", "duplicate", "delay", "lose all for a while"]),
    st.integers(1, 900),
)
def test_any_single_fault_is_repaired(number: int, kind: str, delay_ms: int) -> None:
    def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
        if kind == "lose all for a while":
            return [] if n < number else [(0, packet)]
        if n != number:
            return [(0, packet)]
        return {"lose": [], "duplicate": [(0, packet), (delay_ms * MS, packet)], "delay": [(delay_ms * MS, packet)]}[
            kind
        ]

    alice, bob, _, _ = ends()
    connect(alice, bob)
    assert [(r.message, r.sealed) for r in exchange(alice, bob, fault)] == EXPECTED


@given(st.lists(st.integers(0, 300), min_size=30, max_size=30))
def test_any_reordering_is_repaired(delays: list[int]) -> None:
    def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
        return [(delays[n % len(delays)] * MS, packet)]

    alice, bob, _, _ = ends()
    connect(alice, bob)
    assert [(r.message, r.sealed) for r in exchange(alice, bob, fault)] == EXPECTED


@given(st.integers(0, 13), st.integers(49, 80), st.integers(1, 255))
def test_a_flipped_bit_is_never_accepted_as_sealed(number: int, offset: int, mask: int) -> None:
    def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
        if n != number or len(packet) <= offset:
            return [(0, packet)]
        return [(0, packet[:offset] + bytes([packet[offset] ^ mask]) + packet[offset + 1 :])]

    alice, bob, _, _ = ends()
    connect(alice, bob)
    try:
        got = exchange(alice, bob, fault)
    except (AuthenticationError, RemoteProtocolError):
        return
    sealed_up_to = max((i for i, r in enumerate(got) if r.sealed), default=-1)
    assert [(r.message, r.sealed) for r in got[: sealed_up_to + 1]] == EXPECTED[: sealed_up_to + 1]


def test_different_link_secrets_never_open_a_session_and_are_told_of() -> None:
    alice, bob, _, _ = ends(bob_secret=bytes(reversed(SECRET)))
    assert exchange(alice, bob) == []
    assert not alice.open
    assert not bob.open
    assert "link secrets differ" in str(bob.notice(20_000 * MS))


def test_pads_are_never_used_twice_across_restarts() -> None:
    used: set[tuple[int, int]] = set()
    pointers = None
    for _ in range(6):
        pool = KeyPool(SECRET, alice=True, pointers=pointers)
        for _ in range(9):
            if (wanted := pool.reservation()) is not None:
                pointers = wanted
                pool.confirm(wanted)
            try:
                pad = pool.next_pad()
            except AuthenticationPoolEmpty:
                return
            assert (pad.segment, pad.offset) not in used
            used.add((pad.segment, pad.offset))
    assert len(used) == 54


def test_a_replayed_tag_is_refused() -> None:
    _, _, alice_pool, bob_pool = ends()
    assert alice_pool.can_send()
    pad = alice_pool.next_pad()
    assert bob_pool.pad_for(pad.segment, pad.offset) == pad
    bob_pool.burn(pad)
    with pytest.raises(AuthenticationError, match="not usable"):
        bob_pool.pad_for(pad.segment, pad.offset)


def test_an_empty_pool_stops_loudly() -> None:
    alice, bob, pool, _ = ends()
    connect(alice, bob)
    while pool.can_send():
        pool.next_pad()
        if (wanted := pool.reservation()) is not None:
            pool.confirm(wanted)
        if pool.bits_left == 0:
            break
    alice.send(b"one more", seal=True)
    with pytest.raises(AuthenticationPoolEmpty):
        alice.packets(10**10)


def test_after_a_failed_tag_nothing_is_believed_any_more() -> None:
    """The seal after a failed one covers only what follows it: accepting it would hide the altered message."""
    alice, bob, _, _ = ends()
    connect(alice, bob)
    for number in range(4):
        alice.send(b"message %d" % number, seal=number % 2 == 0)
    packets = alice.packets(0)
    packets[1] = packets[1][:-1] + bytes([packets[1][-1] ^ 1])
    got: list[Received] = []
    refusals = 0
    for raw in packets:
        try:
            got += [event for event in bob.receive(raw, 0) if isinstance(event, Received)]
        except AuthenticationError:
            refusals += 1
    assert refusals == 2
    assert [event.sealed for event in got] == [True, False]


def test_a_transcript_longer_than_every_bound_allows_for_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classical_channel.authentication.LARGEST_TRANSCRIPT_BYTES", 1000)
    alice, bob, _, _ = ends()
    connect(alice, bob)
    alice.send(b"first", seal=True)
    for _ in range(10):
        alice.send(bytes(100))
    with pytest.raises(LocalProtocolError, match="more than 1000 bytes"):
        alice.packets(0)


def held(alice: Channel, now_ns: int, *messages: bytes) -> list[bytes]:
    for message in messages:
        alice.send(message, hold=True)
    return alice.packets(now_ns)


def flags(packets: list[bytes]) -> list[int]:
    return [FRAME.unpack_from(body)[0] for body in (Packet.decode(raw).body for raw in packets) if body]


def taken(bob: Channel, packets: list[bytes]) -> list[tuple[bytes, bool]]:
    events = [event for raw in packets for event in bob.receive(raw, 0)]
    return [(event.message, event.sealed) for event in events if isinstance(event, Received)]


def opened_pair() -> tuple[Channel, Channel, KeyPool]:
    alice, bob, pool, _ = ends()
    connect(alice, bob)
    alice.send(b"hello", seal=True)
    assert taken(bob, alice.packets(0)) == [(b"hello", True)]
    return alice, bob, pool


def test_held_messages_share_a_seal_and_keep_their_order() -> None:
    alice, bob, pool = opened_pair()
    before = pool.bits_left
    assert flags(held(alice, HOLD_NS - 1, b"one", b"two", b"three")) == []
    assert alice.next_timer_ns(HOLD_NS - 1) == HOLD_NS
    assert not alice.drained
    packets = alice.packets(HOLD_NS)
    assert flags(packets) == [HELD, HELD, 1]
    assert before - pool.bits_left == 128
    assert taken(bob, packets[:2]) == [], "handed on before anything says that it is authentic"
    assert taken(bob, packets[2:]) == [(b"one", True), (b"two", True), (b"three", True)]


def test_a_seal_of_something_else_takes_the_held_along() -> None:
    alice, bob, pool = opened_pair()
    before = pool.bits_left
    held(alice, 1, b"question")
    alice.send(b"plain")
    alice.send(b"sealed", seal=True)
    packets = alice.packets(2)
    assert taken(bob, packets) == [(b"plain", False), (b"question", True), (b"sealed", True)]
    assert before - pool.bits_left == 128


@pytest.mark.parametrize("flag", [None, 0])
def test_an_altered_held_message_is_never_handed_on(flag: int | None) -> None:
    """Neither with other words nor as a plain one."""
    alice, bob, _ = opened_pair()
    held(alice, 1, b"one", b"two")
    packets = alice.packets(HOLD_NS)
    packet = Packet.decode(packets[0])
    body = bytearray(packet.body)
    if flag is None:
        body[-1] ^= 1
    else:
        body[0] = flag
    packets[0] = packet.head() + bytes(body)
    got = taken(bob, packets[:-1])
    with pytest.raises(AuthenticationError, match="did not verify"):
        bob.receive(packets[-1], 0)
    assert all(not sealed for _, sealed in got)


def test_with_little_key_left_more_messages_share_a_seal() -> None:
    alice, _, pool = opened_pair()
    pool._target_bits = 2 * pool.least_bits
    held(alice, HOLD_NS, b"one")
    assert alice.next_timer_ns(HOLD_NS) == 8 * HOLD_NS
    pool._target_bits *= 1000
    assert alice.next_timer_ns(HOLD_NS) == channel.HOLD_MOST_NS


def test_what_is_held_is_bounded_at_both_ends() -> None:
    alice, bob, _ = opened_pair()
    (first,) = held(alice, 1, bytes(HOLD_BYTES))
    assert flags([first]) == [1]
    sent = Packet.decode(first)
    alice.receive(Packet(Kind.ACK, sent.receiver, sent.sender, 0, sent.sequence).encode(), 1)  # room for more
    forged = Packet.decode(held(alice, 2 * HOLD_NS, b"x", bytes(1 << 20))[0])
    assert forged.body[0] == HELD
    body = FRAME.pack(HELD, 0) + bytes(1 << 20)
    forgeries = [replace(forged, sequence=number, body=body).encode() for number in range(2, 19)]
    assert taken(bob, forgeries[:-1]) == []
    with pytest.raises(RemoteProtocolError, match="held messages came without a seal"):
        bob.receive(forgeries[-1], 0)
