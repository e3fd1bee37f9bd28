"""Eve owns the channel: what her packets can end, and what they cannot."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classical_channel.authentication import PAD_BYTES, TranscriptHash
from classical_channel.channel import Channel, Opened, Received
from classical_channel.framing import FRAME, PLAIN, SEAL, SEALED, Frame, Kind, Packet
from classical_channel.keypool import FLOOR_PADS, HASH_KEY_BYTES, PADS_PER_HASH_KEY, ROW_BYTES, KeyPool
from classical_channel.stream import EARLY_BYTES, HISTORY_BYTES, WINDOW_BYTES, WINDOW_PACKETS, ReliableStream
from common.errors import AuthenticationError, PeerUnreachable, RemoteProtocolError
from common.units import NS_PER_MS

SECRET = bytes((17 * n + n // 251) % 256 for n in range(8 * ROW_BYTES))
ALICE, BOB = 3 << 32 | 77, 8 << 32 | 99
Eve = Callable[[bytes], list[bytes]]


def honest(raw: bytes) -> list[bytes]:
    return [raw]


class Link:
    """Two channels and whoever stands between them."""

    def __init__(self, secret: bytes = SECRET) -> None:
        self.now_ns, self.secret = 0, secret
        self.got: dict[str, list[Received]] = {"alice": [], "bob": []}
        self.opened: list[str] = []
        self.pools = {name: KeyPool(secret, alice=name == "alice") for name in self.got}
        self.ends = {
            name: Channel(ReliableStream(number), self.pools[name], alice=name == "alice")
            for name, number in (("alice", ALICE), ("bob", BOB))
        }
        self.eve: dict[str, Eve] = {"alice": honest, "bob": honest}
        self.heard: list[bytes] = []

    def restart(self, name: str, number: int) -> None:
        """A new process on what was durable."""
        self.pools[name] = KeyPool(self.secret, alice=name == "alice", pointers=self.pools[name]._durable)
        self.ends[name] = Channel(ReliableStream(number), self.pools[name], alice=name == "alice")

    def step(self, ms: int = 50) -> None:
        self.now_ns += ms * NS_PER_MS
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            while self.ends[name].placed and (pointers := self.pools[name].reservation()) is not None:
                self.pools[name].confirm(pointers)
            for raw in self.ends[name].packets(self.now_ns):
                self.heard.append(raw)
                for forwarded in self.eve[name](raw):
                    self.give(peer, forwarded)

    def give(self, name: str, raw: bytes) -> None:
        for event in self.ends[name].receive(raw, self.now_ns):
            if isinstance(event, Opened):
                self.opened.append(name)
                self.ends[name].send(b"HELLO from " + name.encode(), seal=True)
            else:
                self.got[name].append(event)

    def run(self, steps: int = 20) -> None:
        for _ in range(steps):
            self.step()

    def still_talks(self) -> None:
        """Both ends are in the session they were in, and the next sealed messages arrive."""
        before = list(self.opened)
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            self.ends[name].send(b"plain", seal=False)
            self.ends[name].send(b"still here", seal=True)
            self.run()
            assert self.got[peer][-1] == Received(b"still here", True)
        assert self.opened == before


def joined() -> Link:
    link = Link()
    link.run()
    assert sorted(link.opened) == ["alice", "bob"]
    assert [len(got) for got in link.got.values()] == [1, 1]
    return link


def seal(segment: int, offset: int) -> bytes:
    return SEAL.pack(segment, offset, bytes(16))


HELLO = FRAME.pack(SEALED, 0) + b"hello" + seal(0, 16)
KIND = st.sampled_from([Kind.SYN, Kind.DATA, Kind.ACK])
NUMBER = st.one_of(
    st.sampled_from([0, 1, 2, 3, WINDOW_PACKETS, 1 << 63, (1 << 64) - 1, ALICE, BOB]), st.integers(0, (1 << 64) - 1)
)


@given(
    KIND,
    st.integers(1, (1 << 64) - 1).filter(lambda number: number != BOB),
    st.sampled_from([0, ALICE, BOB]) | NUMBER,
    NUMBER,
    st.tuples(NUMBER, st.integers(0, 1 << 30)),
    st.sampled_from([b"", seal(0, 16), seal(0, 512), seal(1 << 63, 0), HELLO, b"\0" * 20]) | st.binary(max_size=80),
)
def test_no_packet_under_another_number_touches_a_session(
    kind: Kind, sender: int, receiver: int, number: int, claim: tuple[int, int], body: bytes
) -> None:
    """One packet with a sender of 2^63 muted the peer for good."""
    link = joined()
    link.give("alice", Packet(kind, sender, receiver, number % 3, number, claim, body).encode())
    link.still_talks()


@given(
    st.sampled_from([Kind.SYN, Kind.ACK]),
    st.sampled_from([0, ALICE]) | NUMBER,
    NUMBER,
    st.tuples(NUMBER, st.integers(0, 1 << 30)),
    st.sampled_from([b"", seal(0, 16), seal(0, 512)]),
)
def test_no_packet_in_the_peers_name_but_data_touches_a_session(
    kind: Kind, receiver: int, acknowledged: int, claim: tuple[int, int], body: bytes
) -> None:
    link = joined()
    body = body if kind is Kind.SYN else b""
    link.give("alice", Packet(kind, BOB, receiver, 0, acknowledged, claim, body).encode())
    link.still_talks()


@given(st.integers(1, WINDOW_PACKETS + 100).filter(lambda n: n != 2) | NUMBER.filter(lambda n: n != 2))
def test_data_that_is_not_the_next_message_ends_nothing_by_itself(sequence: int) -> None:
    """It is forgotten if the true one came before, or is the one that fails its seal; here it is the far or the old."""
    link = joined()
    body = FRAME.pack(PLAIN, 1) + b"forged"
    if 2 < sequence <= 2 * WINDOW_PACKETS + 1:
        sequence += 2 * WINDOW_PACKETS
    link.give("alice", Packet(Kind.DATA, BOB, ALICE, sequence, 1, body=body).encode())
    link.still_talks()


@given(st.binary(max_size=300))
def test_no_bytes_end_a_session(raw: bytes) -> None:
    link = joined()
    link.give("alice", raw)
    link.give("alice", b"QKD2" + raw)
    link.still_talks()


def test_the_next_message_forged_is_found_at_the_next_seal_and_not_believed() -> None:
    """What remains to an Eve who holds the channel, and cannot be otherwise without a tag on every packet."""
    link = joined()
    link.give("alice", Packet(Kind.DATA, BOB, ALICE, 2, 1, body=FRAME.pack(PLAIN, 1) + b"forged").encode())
    link.ends["bob"].send(b"true", seal=True)
    link.ends["bob"].send(b"sealed", seal=True)
    with pytest.raises(AuthenticationError, match="did not verify"):
        link.run()
    assert link.got["alice"][1:] == [Received(b"forged", False)]


def test_an_acknowledgement_that_lies_loses_nothing() -> None:
    """Eve holds back messages and says that they have arrived: they are repeated once the peer says otherwise."""
    link = joined()
    link.eve["alice"] = lambda raw: [] if len(raw) > 80 else [raw]
    for number in range(WINDOW_PACKETS - 2):
        link.ends["alice"].send(b"%060d" % number)
    link.step()
    link.give("alice", Packet(Kind.ACK, BOB, ALICE, 0, WINDOW_PACKETS - 1).encode())
    link.eve["alice"] = honest
    link.ends["alice"].send(b"sealed", seal=True)
    link.run()
    sent = [b"%060d" % number for number in range(WINDOW_PACKETS - 2)]
    assert [one.message for one in link.got["bob"][1:]] == [*sent, b"sealed"]
    link.still_talks()


def test_a_session_that_cannot_go_on_says_so() -> None:
    """Eve lied for longer than what is kept: an end, after which both start anew, is better than silence for ever."""
    link = joined()
    stream = link.ends["alice"]._stream
    link.eve["alice"] = link.eve["bob"] = lambda raw: []
    for _ in range(3):
        for number in range(WINDOW_PACKETS - 2):
            link.ends["alice"].send(b"%060d" % number)
        link.step()
        link.give("alice", Packet(Kind.ACK, BOB, ALICE, 0, stream.next_sequence - 1).encode())
    link.eve["alice"] = link.eve["bob"] = honest
    with pytest.raises(PeerUnreachable, match="acknowledged in its name"):
        link.run(400)


def test_what_is_kept_is_bounded() -> None:
    link = joined()
    stream = link.ends["alice"]._stream
    for _ in range(3000):
        link.ends["alice"].send(bytes(60_000))
        link.step(1)
    kept = sum(len(body) for body, _ in stream._kept.values())
    assert kept <= HISTORY_BYTES + WINDOW_BYTES + 60_100
    assert len(stream._kept) == len(stream._ends) - 1


def test_a_flood_of_early_packets_is_bounded_in_memory() -> None:
    link = joined()
    stream = link.ends["alice"]._stream
    for number in range(3, 3 + 2 * WINDOW_PACKETS):
        body = FRAME.pack(PLAIN, 1) + bytes(1 << 17)
        link.give("alice", Packet(Kind.DATA, BOB, ALICE, number, 1, body=body).encode())
    assert 0 < sum(map(len, stream._early.values())) == stream._early_bytes <= EARLY_BYTES
    link.ends["bob"].send(b"the next one is taken all the same")
    link.step()
    assert b"the next one is taken all the same" in [one.message for one in link.got["alice"]]


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_new_process_takes_over_and_the_old_one_is_heard_no_more(who: str) -> None:
    link = joined()
    peer = "bob" if who == "alice" else "alice"
    old = list(link.heard)
    link.restart(who, 9 << 32 | 5)
    link.run()
    assert link.opened[2:] in ([who, peer], [peer, who])
    assert not link.ends[peer].ignored
    for raw in old:  # Eve plays the whole session before once more
        for name in ("alice", "bob"):
            link.give(name, raw)
    link.still_talks()


def test_a_process_that_is_heard_spends_two_pads_and_lies_cost_none() -> None:
    """Whoever asks and whatever it says: one seal for a process, one for its first message."""
    link = Link()
    for number in range(1, 40):
        link.give("alice", Packet(Kind.SYN, number << 40, 0).encode())
        link.give("alice", Packet(Kind.SYN, number << 40, 0, body=seal(0, 16 * number)).encode())
        link.step()
    assert max(end.tags_sent for end in link.ends.values()) == 2
    link.still_talks()


# -- order between the directions -------------------------------------------------------------------------------------


def altered(raw: bytes, number: int) -> bytes:
    """The same message, said to have been framed when ``number`` messages had been received."""
    packet = Packet.decode(raw)
    if packet.kind is not Kind.DATA:
        return raw
    return replace(packet, body=packet.body[:1] + number.to_bytes(8, "little") + packet.body[9:]).encode()


def test_how_many_messages_had_been_received_stands_in_every_tag() -> None:
    """Eve says that Bob's message was sent before he heard Alice's: his next seal fails."""
    link = joined()
    link.ends["alice"].send(b"a question")
    link.run()
    link.eve["bob"] = lambda raw: [altered(raw, 1)]
    link.ends["bob"].send(b"an answer")
    link.step()
    assert link.got["alice"][-1] == Received(b"an answer", False)
    link.eve["bob"] = honest
    link.ends["bob"].send(b"sealed", seal=True)
    with pytest.raises(AuthenticationError):
        link.run()


@pytest.mark.parametrize("number", [0, 3, 1 << 63])
def test_a_number_of_received_messages_that_cannot_be_is_refused_at_once(number: int) -> None:
    """Never more than were sent, never fewer than before."""
    link = joined()
    link.ends["alice"].send(b"a question")
    link.ends["bob"].send(b"an answer")
    link.run()
    link.eve["bob"] = lambda raw: [altered(raw, number)]
    link.ends["bob"].send(b"another")
    with pytest.raises(RemoteProtocolError, match="which cannot be"):
        link.run()


# -- claims -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 32 - 1), st.sampled_from([0, 0, 1, 1 << 63]))
def test_a_lie_about_what_is_burnt_never_empties_the_pool(offset: int, segment: int) -> None:
    """Before the first tag of a process it may burn pads, but not the last ones; the truth that follows ends a wait."""
    link = Link()
    link.give("alice", Packet(Kind.SYN, 5, 0, claim=(segment, offset & 0xFFFFFFFF)).encode())
    assert link.pools["alice"].bits_left >= 128 * FLOOR_PADS
    link.run()
    link.still_talks()


def test_a_lie_during_a_session_burns_nothing() -> None:
    link = joined()
    before = link.pools["alice"].bits_left
    for receiver in (0, ALICE):
        for sender in (BOB, 5):
            link.give("alice", Packet(Kind.ACK, sender, receiver, 0, 1, (0, 2048)).encode())
    assert link.pools["alice"].bits_left == before
    link.still_talks()


def test_no_tag_is_sent_where_nothing_is_left_beyond_the_claim() -> None:
    link = Link()
    lie = Packet(Kind.SYN, BOB, 0, claim=(0, 4 * ROW_BYTES - 64)).encode()
    link.eve["bob"] = lambda raw: [lie]
    link.run()
    assert link.ends["alice"].tags_sent == 0
    assert "was set back" in str(link.ends["alice"].notice(link.now_ns))


# -- the hash key is renewed ------------------------------------------------------------------------------------------


def test_a_hash_key_serves_64_tags() -> None:
    """Both ends take the next row's r with its first pad, and go on agreeing."""
    link = joined()
    used: dict[bytes, int] = {}
    take = link.pools["alice"].next_pad

    def watched() -> object:
        pad = take()
        used[pad.hash_key] = used.get(pad.hash_key, 0) + 1
        return pad

    link.pools["alice"].next_pad = watched  # type: ignore[method-assign, assignment]
    for number in range(3 * PADS_PER_HASH_KEY):
        link.ends["alice"].send(b"plain %d" % number)
        link.ends["alice"].send(b"sealed %d" % number, seal=True)
        link.step()
    link.run()
    assert [one.message for one in link.got["bob"][1:]] == [
        word % n for n in range(3 * PADS_PER_HASH_KEY) for word in (b"plain %d", b"sealed %d")
    ]
    assert len(used) == 4
    assert max(used.values()) == PADS_PER_HASH_KEY


DEEDS = ("", "lose", "kill alice", "kill bob", "kill both")
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["alice", "bob"]), st.integers(1, 70), st.sampled_from(DEEDS), st.integers(0, 5)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(OPERATIONS)
def test_both_ends_agree_on_every_hash_key_whatever_is_lost_and_whoever_restarts(
    operations: list[tuple[str, int, str, int]],
) -> None:
    """Sealed and plain messages over many rows, packets lost, processes killed in any order: no tag ever fails."""
    link = Link(bytes(secrets_of(40)))
    for number, (name, count, deed, when) in enumerate(operations, 1):
        link.run(12)
        link.eve["alice"] = link.eve["bob"] = losing_every_third(when) if deed == "lose" else honest
        for each in range(count):
            link.ends[name].send(b"plain")
            link.ends[name].send(b"sealed %d" % each, seal=True)
        for step in range(12):
            if step == when and deed.startswith("kill"):
                for victim in ("alice", "bob") if deed == "kill both" else (deed.removeprefix("kill "),):
                    link.restart(victim, number << 33 | (victim == "bob") << 32 | 1)
            link.step()
    link.eve["alice"] = link.eve["bob"] = honest
    link.run(60)
    link.still_talks()
    assert not any(link.ends[name].ignored for name in link.ends)


def losing_every_third(first: int) -> Eve:
    numbers = itertools.count(first)
    return lambda raw: [raw] if next(numbers) % 3 else []


def secrets_of(rows: int) -> Iterator[int]:
    """Two directions' halves of so many rows, all different."""
    return (((n * n) >> 3 ^ n * 29) % 256 for n in range(2 * rows * ROW_BYTES))


class Forger:
    """Eve has learnt one r: from a tag she sees she gets its pad, and tags what she likes."""

    def __init__(self, hash_key: bytes) -> None:
        self._hash_key = hash_key

    def __call__(self, raw: bytes) -> list[bytes]:
        packet = Packet.decode(raw)
        frame = Frame.decode(packet.body) if packet.kind is Kind.DATA else None
        if frame is None or frame.seal is None or frame.message != b"pay 1":
            return [raw]
        segment, offset, tag = frame.seal

        def hashed(message: bytes) -> int:
            transcript = TranscriptHash(self._hash_key)
            context = (0, ALICE, BOB, packet.sequence, len(message), 1, frame.received)
            transcript.update(struct.pack("<BQQQIBQ", *context) + message)
            return int.from_bytes(transcript.finish(bytes(PAD_BYTES)), "little")

        forged = (int.from_bytes(tag, "little") - hashed(b"pay 1") + hashed(b"pay 9")) % (1 << 128)
        body = packet.body[: FRAME.size] + b"pay 9" + SEAL.pack(segment, offset, forged.to_bytes(16, "little"))
        return [replace(packet, body=body).encode()]


def test_a_hash_key_that_became_known_is_worth_nothing_after_its_row() -> None:
    link = joined()
    link.eve["alice"] = Forger(SECRET[:HASH_KEY_BYTES])
    link.ends["alice"].send(b"pay 1", seal=True)
    link.run()
    assert link.got["bob"][-1] == Received(b"pay 9", True), "with r she forges at will"
    for _ in range(PADS_PER_HASH_KEY + 1):
        link.ends["alice"].send(b"another", seal=True)
        link.step()
    link.ends["alice"].send(b"pay 1", seal=True)
    with pytest.raises(AuthenticationError, match="did not verify"):
        link.run()
    assert Received(b"pay 9", True) not in link.got["bob"][2:]
