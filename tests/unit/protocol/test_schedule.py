"""Order of blocks before the decoder, the time each has, and what its frames are made for: in a clock made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import Reconciliation
from common.postprocessing.interleaving import window_bits
from common.postprocessing.reconciliation.fitted import WORK
from common.protocol.schedule import FRAMES_UNDER_WAY, SHARE, Schedule
from common.units import NS_PER_S

FRAME = 1 << 18
WINDOW = window_bits(FRAME)


class Link:
    """Blocks of equal frames, and a decoder that does ``speed`` units of work a second on ``cores`` cores."""

    def __init__(self, speed: float, cores: int = 2, **settings: Any) -> None:
        self.now_ns, self.cores, self.speed = 0, cores, speed
        self.schedule = Schedule(Reconciliation(**settings), lambda: self.now_ns)
        self.begun: list[tuple[Block, str]] = []
        self.queue: list[tuple[Block, float]] = []

    def close(self, n_frames: int, fill_s: float) -> Block:
        block = Block(self, n_frames, self.now_ns)
        self.now_ns += round(fill_s * NS_PER_S)
        self.schedule.close(block)
        return block

    def decode(self, frames: int = 1 << 30) -> None:
        """The next frames get their results, one after the other."""
        while self.queue and frames:
            frames -= 1
            block, work = self.queue.pop(0)
            busy = min(self.cores, 1 + len(self.queue))
            self.now_ns += round(work / (self.speed / self.cores * busy) * NS_PER_S)
            block.undecoded_bits -= FRAME
            block.frames_under_way -= 1
            block.work_under_way -= work
            self.schedule.ended(work)
            self.schedule.go_on()

    def settings_of(self, block: Block) -> list[str]:
        return [setting for other, setting in self.begun if other is block]


class Block:
    """Reference frames of one block, without bits."""

    def __init__(self, link: Link, n_frames: int, opened_ns: int) -> None:
        self.link, self.opened_ns = link, opened_ns
        self.undecoded_bits = self.waiting_bits = n_frames * FRAME
        self.frames_under_way = 0
        self.work_under_way = 0.0

    def begin(self, most: int) -> list[Any]:
        while self.waiting_bits and most > 0:
            most -= 1
            setting = self.link.schedule.efficiency(self)
            self.link.schedule.begins()
            self.link.begun.append((self, setting))
            work = WORK[setting] * FRAME
            self.link.queue.append((self, work))
            self.frames_under_way += 1
            self.work_under_way += work
            self.waiting_bits -= FRAME
        return []


def test_blocks_are_begun_one_behind_the_other_and_few_frames_are_under_way() -> None:
    link = Link(40e6)
    first, second = link.close(100, 10.0), link.close(3, 1.0)
    assert len(link.begun) == FRAMES_UNDER_WAY
    link.decode(30)
    assert len(link.queue) == FRAMES_UNDER_WAY
    assert not link.settings_of(second)
    link.decode()
    assert [block for block, _ in link.begun] == [first] * 100 + [second] * 3


def test_a_block_that_is_given_up_lets_the_next_one_begin() -> None:
    link = Link(40e6)
    first, second = link.close(100, 10.0), link.close(3, 1.0)
    first.undecoded_bits = first.waiting_bits = first.frames_under_way = 0
    link.schedule.go_on()
    assert len(link.settings_of(second)) == 3


@pytest.mark.parametrize(
    ("fill_s", "speed", "rarely"),
    [
        (300.0, 80e6, {"balanced", "fast"}),  # the field link: minutes of light
        (300.0, 8e6, {"balanced", "fast"}),
        (11.0, 80e6, {"balanced", "fast"}),
        (11.0, 20e6, {"efficient", "balanced"}),  # light in real time at 0.17 dB on slow cores
        (2.8, 80e6, {"efficient", "balanced"}),  # simulated light that is faster than real
    ],
)
def test_frames_are_made_for_few_bits_as_far_as_the_time_allows(fill_s: float, speed: float, rarely: set[str]) -> None:
    link = Link(speed)
    for block in [link.close(310, fill_s) for _ in range(3) if link.decode() is None]:
        link.decode()
        settings = link.settings_of(block)
    assert sum(setting in rarely for setting in settings) <= 0.15 * len(settings)


@pytest.mark.parametrize("speed", [30e6, 36e6, 44e6, 60e6, 90e6])
def test_a_block_is_corrected_in_its_share_of_the_time_where_the_decoder_can(speed: float) -> None:
    link = Link(speed)
    for _ in range(3):
        link.close(310, 11.0)
        closed_ns = link.now_ns
        link.decode()
    took_s = (link.now_ns - closed_ns) / NS_PER_S
    least_s = 310 * FRAME / speed
    assert took_s <= max(1.05 * SHARE * 11.0, 1.05 * least_s)
    costs = [WORK[setting] for _, setting in link.begun[-310:]]  # type: ignore[index]
    possible = min(SHARE * 11.0 / least_s, WORK["efficient"])
    assert sum(costs) / 310 >= 0.85 * max(possible, 1.0), "time was left and bits were spent"


def test_a_decoder_that_becomes_slower_inside_a_block_is_noticed() -> None:
    link = Link(80e6)
    for _ in range(2):
        link.close(310, 11.0)
        link.decode()
    link.close(310, 11.0)
    closed_ns = link.now_ns
    link.speed = 32e6
    link.decode()
    assert (link.now_ns - closed_ns) / NS_PER_S < 1.15 * SHARE * 11.0
    assert {setting for _, setting in link.begun[-310:]} > {"fast"}


def test_little_is_always_made_for_few_bits_and_a_wish_is_a_wish() -> None:
    link = Link(1e6)
    assert link.settings_of(link.close(WINDOW // FRAME, 0.0)) == ["efficient"] * (WINDOW // FRAME)
    link = Link(1e9, efficiency="fast")
    assert set(link.settings_of(link.close(9, 1000.0))) == {"fast"}
