"""What a block keeps in memory until it is corrected: sifted bits, packed, nothing else that grows with detections."""

from __future__ import annotations

import gc
from collections import deque
from dataclasses import replace
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

from classical_channel import stream
from common.config import Reconciliation
from common.keybits import KeyBits
from common.postprocessing import estimation, interleaving
from common.postprocessing.reconciliation.exchange import QBER_STEP, STATUS, FrameExchange
from common.postprocessing.reconciliation.tracker import QberTracker
from common.protocol.block import Block
from common.protocol.effects import Run
from common.protocol.frames import result_of
from common.protocol.messages import FrameResult, Syndrome
from common.protocol.schedule import FRAMES_UNDER_WAY
from common.protocol.transitions import Role
from tests.property import test_protocol
from tests.unit.protocol.test_frames import exchange, pair, run_block

PACKED = 1 / 8
"""Bytes that a sifted bit needs."""
ROOM = 1 << 18
"""What the accumulators and queues of an end may hold whatever the size of its block."""


def held_bytes(*roots: Any) -> int:
    """Bytes of all arrays and byte strings that can be reached, a view counting as the whole of what it looks into."""
    seen: set[int] = set()
    waiting: deque[Any] = deque(roots)
    total = 0
    while waiting:
        one = waiting.popleft()
        if isinstance(one, memoryview):
            one = one.obj
        while isinstance(one, np.ndarray) and one.base is not None:
            one = one.base
        if id(one) in seen or isinstance(one, type | ModuleType):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            total += one.nbytes
        elif isinstance(one, bytes | bytearray):
            total += len(one)
        elif isinstance(one, FunctionType):
            waiting.extend([*(one.__closure__ or ()), one.__defaults__])
        else:
            waiting.extend(gc.get_referents(one))
    return total


def test_the_measure_sees_views_closures_and_slots() -> None:
    def keeper(what: Any) -> Any:
        return lambda: what

    whole = np.zeros(1000, np.uint8)
    assert held_bytes({"a": [keeper(whole[:1])]}, whole) == 1000
    assert held_bytes(KeyBits(np.zeros(50, np.uint8), 400), deque([bytes(7)])) == 57


def test_decoded_frames_keep_their_packed_bits_and_nothing_else(rng: np.random.Generator) -> None:
    n_bits = 1 << 21
    alice, bob = pair(rng, np.full(n_bits, 0.02))
    trackers = {role: QberTracker(0.02, 1 << 18) for role in (Role.ALICE, Role.BOB)}
    ends, _ = run_block(alice, bob, trackers, frame_length_bits=1 << 16)
    assert all(end.complete for end in ends.values())
    for end in ends.values():
        assert PACKED * n_bits <= held_bytes(end) <= PACKED * n_bits + ROOM


def test_frames_that_wait_for_the_decoder_keep_their_bits_and_a_bounded_number_of_syndromes(
    rng: np.random.Generator,
) -> None:
    n_bits, length = 1 << 22, 1 << 14
    tracker = QberTracker(0.02, 1 << 20)
    end = exchange(Role.ALICE, Reconciliation(frame_length_bits=length), tracker)
    sent: list[Syndrome] = []

    def carry(effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Run):
                carry(effect.then(effect.work()))
            else:
                sent.append(effect.message)

    for _ in range(16):
        carry(end.add(KeyBits(rng.integers(0, 256, n_bits // 128, dtype=np.uint8), n_bits // 16)))
    carry(end.close())
    told = sent[0]  # Bob tells the error rate once, and then is silent
    carry(end.on_result(result_of(FrameResult(1, told.frame, 1, STATUS["decoded"], round(0.02 / QBER_STEP)))))
    assert len(sent) == FRAMES_UNDER_WAY + 1
    assert end.open_bits == n_bits - length
    # The checks of a frame are at most half its length, and are kept until its result comes.
    assert held_bytes(end) <= PACKED * (n_bits + FRAMES_UNDER_WAY * length // 2) + ROOM


def test_both_ends_hold_little_more_than_the_sifted_bits_of_an_open_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "WINDOW_BITS", 1 << 14)
    monkeypatch.setattr(stream, "HISTORY_BYTES", 1 << 12)  # of acknowledged packets: bounded, and not the block's
    monkeypatch.setattr(test_protocol, "SETTINGS", test_protocol.SETTINGS.replace("20000", "1000000"))
    joined, sky = test_protocol.make_pair()
    feeder = test_protocol.Feeder(joined, sky)
    ends = (joined.alice, joined.bob)
    held = []
    for detections in (100_000, 300_000):
        joined.on_step = feeder
        joined.run(partial(reached, feeder, detections))
        joined.on_step = lambda now_ns: None
        joined.settle()
        held.append([held_bytes(end.session, end.channel, end.jobs) for end in ends])
    for end, before, after in zip(ends, *held, strict=True):
        (block,) = end.session.open_blocks()
        assert block.detections > 290_000
        assert block.frames.open_bits > 0.3 * block.detections
        # A third of the detections is sifted; one that waits for its reply has 10 bytes.
        assert after - before <= 0.4 * PACKED * 200_000 + (1 << 15)


def reached(feeder: test_protocol.Feeder, detections: int) -> bool:
    return feeder.position >= detections


@pytest.fixture
def every_block_gives_key(monkeypatch: pytest.MonkeyPatch) -> None:
    real = estimation.key_length
    monkeypatch.setattr(estimation, "key_length", lambda *a, **k: replace(real(*a, **k), ell_bits=1024, refusal=None))


@pytest.mark.usefixtures("every_block_gives_key")
def test_an_ended_block_leaves_nothing() -> None:
    joined, sky = test_protocol.make_pair()
    held = []
    for blocks in (2, 6):
        feeder = test_protocol.Feeder(joined, sky)
        feeder.position = 1_000_000 * blocks
        test_protocol.finish(joined, blocks)
        held.append([held_bytes(end.session, end.channel, end.jobs) for end in (joined.alice, joined.bob)])
    # The accumulator of a block that happens to be open has 64 KiB; an ended block that stayed would keep its own.
    assert np.all(np.subtract(held[1], held[0]) < 1 << 17)


@pytest.mark.usefixtures("every_block_gives_key")
def test_an_ended_block_is_freed_at_once() -> None:
    """Not when the garbage collector next looks for cycles among old objects: that is many blocks later."""
    joined, sky = test_protocol.make_pair()
    feeder = test_protocol.Feeder(joined, sky)
    bob: Any = joined.bob.session
    gc.collect()
    gc.disable()
    try:
        joined.run(lambda: len(joined.bob.store.committed()) >= 3 and bob.filling_detections > 0)
        joined.bob.carry(bob.void_filling("slip", joined.now_ns), joined.now_ns)
        joined.run(lambda: len(joined.bob.store.committed()) >= 6)
        assert any(facts.reason == "slip" for facts in joined.bob.done)
        open_blocks = [block for end in (joined.alice, joined.bob) for block in end.session.open_blocks()]
        alive = [one for one in gc.get_objects() if issubclass(type(one), Block | FrameExchange)]  # no proxy is asked
    finally:
        gc.enable()
    assert feeder.position > 0
    assert len(alive) <= 2 * len(open_blocks) + 2
