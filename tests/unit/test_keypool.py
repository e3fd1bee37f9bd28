"""The authentication pool over thousands of blocks: neither direction runs dry, and nothing gathers."""

from __future__ import annotations

import pytest

from classical_channel.authentication import PAD_BYTES
from classical_channel.keypool import KeyPool

LINK_SECRET = bytes(range(256)) * 32
TARGET_BITS = 8 * 64 * PAD_BYTES
STEP_BYTES = 1 << 10


class Ends:
    """Two pools whose reservations are durable at once, and the segments that both still have."""

    def __init__(self) -> None:
        self.alice, self.bob = (KeyPool(LINK_SECRET, alice=alice, target_bits=TARGET_BITS) for alice in (True, False))
        self.used: set[tuple[str, int, int]] = set()

    def tag(self, sender: KeyPool, receiver: KeyPool) -> None:
        while (pointers := sender.reservation()) is not None:
            sender.confirm(pointers)
        assert sender.can_send()
        segment, offset, pad = sender.next_pad()
        name = ("alice" if sender is self.alice else "bob", segment, offset)
        assert name not in self.used
        self.used.add(name)
        assert receiver.pad_for(segment, offset) == pad

    def block(self, number: int, by_alice: int, by_bob: int, most_bytes: int) -> None:
        wanted = min(-(-self.alice.missing_bits // 8 // STEP_BYTES) * 2 * STEP_BYTES, most_bytes)
        for _ in range(by_bob):
            self.tag(self.bob, self.alice)
        for _ in range(by_alice):
            self.tag(self.alice, self.bob)
        for pool in (self.alice, self.bob):
            if wanted:
                pool.add_segment(number, (number.to_bytes(4, "little") * wanted)[:wanted])
            for used in pool.exhausted_segments:
                pool.forget(used)


@pytest.mark.parametrize(("by_alice", "by_bob"), [(1, 2), (2, 1), (5, 1), (1, 1)])
@pytest.mark.parametrize("most_bytes", [400, 1 << 20])
def test_neither_direction_runs_dry_and_neither_gathers_without_bound(
    by_alice: int, by_bob: int, most_bytes: int
) -> None:
    """Alice's tags count as much as Bob's when she asks for more, whoever sends more, however little a block gives."""
    ends, segments, most = Ends(), [], []
    for number in range(1, 4001):
        ends.block(number, by_alice, by_bob, most_bytes)
        segments.append(max(len(pool._segments) for pool in (ends.alice, ends.bob)))
        most.append(max(pool.bits_left for pool in (ends.alice, ends.bob)))
    assert max(most) < 3 * 8 * len(LINK_SECRET) // 2
    assert max(segments[2000:]) <= max(segments[:2000]) < 60
