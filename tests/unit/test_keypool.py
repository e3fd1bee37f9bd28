"""The authentication pool over thousands of blocks and any crash: nothing runs dry, nothing gathers, no pad twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classical_channel.authentication import PAD_BYTES
from classical_channel.framing import Position
from classical_channel.keypool import RESERVE_BYTES, KeyPool
from classical_channel.link import read_pointers
from common.errors import AuthenticationError

LINK_SECRET = bytes(range(256)) * 32
TARGET_BITS = 8 * 64 * PAD_BYTES
STEP_BYTES = 1 << 10
N_BLOCKS = 4000


class End:
    """A pool, what is on its disk, and what is on the way there."""

    def __init__(self, *, alice: bool) -> None:
        self.alice = alice
        self.pointers: bytes | None = None
        self.pads: dict[int, tuple[bytes, bool]] = {}
        self.named: list[Position] = []
        self.start()

    def start(self) -> None:
        self.writing: Any = None
        self.pool = KeyPool(
            LINK_SECRET, alice=self.alice, target_bits=TARGET_BITS, pointers=read_pointers(self.pointers)
        )
        for number, (secret, sendable) in self.pads.items():
            self.pool.add_segment(number, secret, sendable=sendable)

    def crash(self, *, written: bool) -> None:
        """Kill and restart; what was on its way to the disk has come there, or has not."""
        if written and self.writing is not None:
            self.pointers = json.dumps(self.writing).encode()
        self.start()

    def add(self, number: int, secret: bytes, *, sendable: bool = True) -> None:
        self.pads[number] = secret, sendable
        self.pool.add_segment(number, secret, sendable=sendable)

    def land(self) -> None:
        """The write under way is done; used pads go."""
        if self.writing is not None:
            self.pointers = json.dumps(self.writing).encode()
            self.pool.confirm(self.writing)
            self.writing = None
            for used in self.pool.exhausted_segments:
                del self.pads[used]
                self.pool.forget(used)

    def pump(self) -> None:
        """As the node's shell does it: one write at a time, and no waiting for it."""
        self.land()
        self.writing = self.pool.reservation()

    def tag(self, receiver: End) -> None:
        self.pump()
        while not self.pool.can_send():
            self.pump()
        pad = self.pool.next_pad()
        segment, offset = pad.segment, pad.offset
        assert not self.named or self.named[-1] < (segment, offset), "a pad was used twice, or an earlier one later"
        self.named.append((segment, offset))
        assert receiver.pool.pad_for(segment, offset) == pad
        receiver.pool.burn(pad)
        receiver.pump()
        on_disk = read_pointers(receiver.pointers)["receive"]
        assert on_disk <= (segment, offset + PAD_BYTES), "pads that the peer has not used yet are burnt on the disk"


class Link:
    """Both ends, and the blocks that one of them has not committed yet."""

    def __init__(self) -> None:
        self.alice, self.bob = self.ends = End(alice=True), End(alice=False)
        self.open: list[tuple[int, int, bytes]] = []
        self.left: list[int] = []
        self.segments: list[int] = []
        self.most: list[int] = []

    def crash(self, end: End, *, written: bool) -> None:
        """The end restarts; both say HELLO."""
        end.crash(written=written)
        self.alice.tag(self.bob)
        self.bob.tag(self.alice)

    def block(self, number: int, by_alice: int = 1, by_bob: int = 2, most_bytes: int = 1 << 20, late: int = 0) -> None:
        """Tags and perhaps a segment; Bob commits it ``late`` blocks later."""
        wanted = min(-(-self.alice.pool.missing_bits // 8 // STEP_BYTES) * 2 * STEP_BYTES, most_bytes)
        for _ in range(by_bob):
            self.bob.tag(self.alice)
        for _ in range(by_alice):
            self.alice.tag(self.bob)
        if wanted:
            secret = (number.to_bytes(4, "little") * wanted)[:wanted]
            self.alice.add(number, secret, sendable=False)
            self.open.append((number + late, number, secret))
        for one in [one for one in self.open if one[0] <= number]:
            self.open.remove(one)
            self.bob.add(*one[1:])
            self.alice.add(*one[1:])
        self.left.append(min(end.named[-1][0] for end in self.ends))
        self.segments.append(max(len(end.pads) for end in self.ends))
        self.most.append(max(end.pool.bits_left for end in self.ends))

    def check_nothing_gathers(self) -> None:
        half = len(self.segments) // 2
        assert max(self.most) < 3 * 8 * len(LINK_SECRET) // 2
        assert max(self.segments[half:]) <= max(self.segments[:half]) < 60
        for end in self.ends:
            assert set(end.pool._segments) - {0} == set(end.pads)
            assert min(end.pads) >= self.left[-50], "pads that nobody will name any more are held"


@pytest.mark.parametrize(("by_alice", "by_bob"), [(1, 2), (2, 1), (5, 1), (1, 1)])
@pytest.mark.parametrize("most_bytes", [400, 1 << 20])
def test_neither_direction_runs_dry_and_neither_gathers_without_bound(
    by_alice: int, by_bob: int, most_bytes: int
) -> None:
    """Alice's tags count as much as Bob's when she asks for more, whoever sends more, however little a block gives."""
    link = Link()
    for number in range(1, N_BLOCKS + 1):
        link.block(number, by_alice, by_bob, most_bytes)
    link.check_nothing_gathers()


def run(crashes: Iterable[tuple[int, str, bool, bool]], late: int = 0, most_bytes: int = 1 << 20) -> Link:
    """Blocks with crashes before some of them: number, whose, and whether each end's write came to the disk."""
    link, at = Link(), {}
    for number, who, *written in crashes:
        at.setdefault(number, []).append((who, written))
    for number in range(1, N_BLOCKS + 1):
        for who, written in at.get(number, ()):
            if who == "both":
                link.alice.crash(written=written[0])
                link.crash(link.bob, written=written[1])
            else:
                end = link.alice if who == "alice" else link.bob
                link.crash(end, written=written[0])
        link.block(number, most_bytes=most_bytes, late=number * late % 4)
    link.check_nothing_gathers()
    return link


@pytest.mark.parametrize("who", ["alice", "bob", "both"])
@pytest.mark.parametrize("every", [137, 1100])
@pytest.mark.parametrize("most_bytes", [400, 1 << 20])
def test_restarts_do_not_change_what_is_left(who: str, every: int, most_bytes: int) -> None:
    """Whoever restarts knows what the other has used: pads are refilled, and used ones leave memory and disk."""
    run(((number, who, True, True) for number in range(every, N_BLOCKS, every)), most_bytes=most_bytes)


CRASH = st.tuples(st.integers(1, N_BLOCKS), st.sampled_from(["alice", "bob", "both"]), st.booleans(), st.booleans())


@settings(max_examples=10)
@given(st.lists(CRASH, min_size=1, max_size=12), st.integers(0, 3))
def test_any_crashes_with_any_writes_lost(crashes: list[tuple[int, str, bool, bool]], late: int) -> None:
    """Segments may be committed late and out of order, too."""
    run(crashes, late)


def test_what_only_receives_is_durable_too() -> None:
    """Its own sending would not write for long; the receiving position lags by less than one reservation."""
    link = Link()
    while link.alice.pool.bits_left > 8 * RESERVE_BYTES:
        link.alice.tag(link.bob)
        link.bob.land()
        (segment, offset), written = link.alice.named[-1], read_pointers(link.bob.pointers)["receive"]
        assert segment == written[0] == 0
        assert offset + PAD_BYTES - written[1] <= RESERVE_BYTES
    link.bob.crash(written=False)
    assert link.bob.pool._next_receive == written


def test_after_a_restart_the_missing_bits_are_known_before_the_peer_says_a_word() -> None:
    link = Link()
    while link.alice.pool.missing_bits < TARGET_BITS // 2:
        link.bob.tag(link.alice)
    link.alice.land()
    missing = link.alice.pool.missing_bits
    link.alice.crash(written=False)
    assert missing - 8 * RESERVE_BYTES <= link.alice.pool.missing_bits <= missing


def test_a_peer_that_has_gone_back_is_refused_after_a_restart_as_well() -> None:
    """A key store from a backup would use pads twice: who has seen them does not take them."""
    link = Link()
    for _ in range(100):
        link.bob.tag(link.alice)
    link.alice.land()
    link.alice.crash(written=False)
    link.bob.pointers = None
    link.bob.crash(written=False)
    link.bob.named.clear()
    with pytest.raises(AuthenticationError, match="not usable"):
        link.bob.tag(link.alice)


def test_a_tag_burns_every_segment_before_its_own() -> None:
    """Also one that is added later: its pads will not be named, so they do not count as left."""
    pool = KeyPool(LINK_SECRET, alice=True, target_bits=1 << 20)
    pool.add_segment(5, bytes(640))
    pool.burn(pool.pad_for(5, 32))
    pool.add_segment(4, bytes(640))
    assert (1 << 20) - pool.missing_bits == 8 * (320 - 48)
    for segment, offset in ((0, 16), (4, 16), (4, 304), (5, 32)):
        with pytest.raises(AuthenticationError, match="not usable"):
            pool.pad_for(segment, offset)


def test_segments_that_come_out_of_order_are_all_used() -> None:
    link = Link()
    for number in (9, 7, 8):
        for end in link.ends:
            end.add(number, bytes(640))
    while link.alice.pool.bits_left:
        link.alice.tag(link.bob)
    assert [number for number, _ in link.alice.named][-57:] == [7] * 19 + [8] * 19 + [9] * 19
