"""What Bob's daemon does when post-processing is behind, and batches of any size."""

from __future__ import annotations

import asyncio
import itertools
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bob.daemon import (
    LEAST_LEAD_DETECTIONS,
    MOST_BATCHES,
    MOST_DETECTIONS,
    MOST_LATE_BITS,
    MOST_WAITING_BITS,
    Clicks,
)
from bob.phases import ReceiverEvent
from bob.receiver import Receiver
from bob.session import MAX_PIECE
from classical_channel.framing import MAX_BODY_BYTES
from common.config import Blocks
from common.config_file import parse_config
from common.datatypes import Detections, TimeTags
from common.node.load import Load
from common.node.runtime import Lanes, Shell
from common.postprocessing.sifting import MAX_CHUNK_DETECTIONS, encode_announcement
from common.preamble import PREAMBLE_SLOTS
from common.protocol.effects import Run
from tests.pair import DictStore


class Session:
    """Counts what it is given."""

    backlog_blocks = backlog_detections = backlog_bits = late_bits = filling_detections = 0

    def __init__(self) -> None:
        self.taken: list[Detections] = []
        self.voided: list[str] = []
        self.taken_when_voided: list[int] = []

    def on_detections(self, batch: Detections, now_ns: int) -> list[Any]:
        self.taken.append(batch)
        return []

    def void(self, from_slot: int, to_slot: int, reason: str, now_ns: int) -> list[Any]:
        return self.void_filling(reason, now_ns)

    def void_filling(self, reason: str, now_ns: int) -> list[Any]:
        self.voided.append(reason)
        self.taken_when_voided.append(len(self.taken))
        return []


def detections(slots: list[int], to_slot: int) -> Detections:
    found = np.array(slots, np.int64)
    return Detections(found, (found % 3 == 0).astype(np.uint8), (found % 2).astype(np.uint8), 0, to_slot)


def clicks(session: Session, *, can_wait: bool, tmp_path: Any, text: str = "") -> Clicks:
    board = SimpleNamespace(state="", slots=lambda n: None, start_counting=lambda: None)
    node = SimpleNamespace(board=board, shell=SimpleNamespace(act=lambda call: call()))
    tagger = SimpleNamespace(can_wait=can_wait, info=SimpleNamespace(simulated=can_wait))
    config = parse_config("role = 'bob'\n" + text, tmp_path)
    return Clicks(tagger, SimpleNamespace(state="locked"), node, session, config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backlog", "amount"),
    [
        ("backlog_blocks", 4),
        ("backlog_detections", 1 << 24),
        ("late_bits", 1 + MOST_LATE_BITS),
    ],
)
async def test_a_real_tagger_is_read_on_and_blocks_are_shed_whole_and_counted(
    backlog: str, amount: int, tmp_path: Any
) -> None:
    assert asyncio.get_running_loop().is_running()
    session = Session()
    thread = clicks(session, can_wait=False, tmp_path=tmp_path)
    batch = detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)
    thread._arrived([batch], [])
    assert session.taken == [batch]
    setattr(session, backlog, amount)
    thread._arrived([batch], [])
    assert session.taken == [batch]
    thread._arrived([batch], [])
    assert (thread.blocks_shed, thread.batches_dropped) == (1, 2)
    assert set(session.voided) == {"dropped: post-processing is behind"}
    setattr(session, backlog, 0)
    thread._arrived([detections([PREAMBLE_SLOTS + 20], PREAMBLE_SLOTS + 30)], [])
    assert len(session.taken) == 2
    assert thread.blocks_shed == 1


@pytest.mark.parametrize("backlog", ["backlog_blocks", "backlog_detections", "late_bits"])
async def test_a_block_that_fills_is_finished_by_a_slow_decoder_and_given_up_by_a_slow_channel(
    backlog: str, tmp_path: Any
) -> None:
    session = Session()
    thread = clicks(session, can_wait=False, tmp_path=tmp_path)
    session.filling_detections = 90_000_000
    setattr(session, backlog, MOST_DETECTIONS)
    batch = detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)
    thread._arrived([batch], [])
    assert (session.taken, session.voided, thread.blocks_shed) == ([batch], [], 0)
    session.backlog_detections = MOST_DETECTIONS + 1
    thread._arrived([batch], [])
    assert (len(session.taken), thread.blocks_shed) == (1, 1)
    session.backlog_detections, session.filling_detections = 0, 0
    setattr(session, backlog, MOST_DETECTIONS)
    thread._arrived([batch], [])
    assert len(session.taken) == 1
    assert len(session.voided) == 2


async def test_a_real_tagger_fills_a_block_while_the_one_before_is_corrected(tmp_path: Any) -> None:
    session = Session()
    thread = clicks(session, can_wait=False, tmp_path=tmp_path)
    session.backlog_bits, session.late_bits = 80_000_000, 0
    batch = detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)
    thread._arrived([batch], [])
    assert (session.taken, thread.blocks_shed) == ([batch], 0)


@pytest.mark.parametrize(("block_size", "lead"), [(100_000_000, 20_000_000), (10_000_000, LEAST_LEAD_DETECTIONS)])
async def test_a_tagger_that_can_wait_does_so_some_way_into_the_next_block(
    block_size: int, lead: int, tmp_path: Any
) -> None:
    session = Session()
    text = f"[blocks]\nblock_size_detections = {block_size}\n"
    thread = clicks(session, can_wait=True, tmp_path=tmp_path, text=text)
    session.backlog_bits, session.filling_detections = MOST_WAITING_BITS + 1, lead
    assert not thread._behind()
    session.filling_detections = lead + 1
    assert thread._behind()
    session.backlog_bits = MOST_WAITING_BITS
    assert not thread._behind()


async def test_tags_that_the_tagger_lost_are_counted_also_without_a_lock(tmp_path: Any) -> None:
    thread = clicks(Session(), can_wait=False, tmp_path=tmp_path)
    nothing = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    batches = iter([TimeTags(*nothing, 5, overflow=True), TimeTags(*nothing, 6), TimeTags(*nothing, 7, overflow=True)])
    thread._tagger.read = lambda timeout_s: next(batches, None)  # type: ignore[method-assign]
    thread._receiver = Receiver(76.13e6, lambda n: np.zeros(n, np.uint8))
    thread._node.load, thread._node.finish = Load(), lambda: None  # type: ignore[method-assign]
    await asyncio.to_thread(thread.run)
    assert thread.overflows == 2


async def test_an_event_loop_that_stands_still_does_not_gather_batches(tmp_path: Any) -> None:
    thread = clicks(Session(), can_wait=False, tmp_path=tmp_path)
    batch, reads = TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), 5), itertools.count(1)
    read, full = 0, threading.Event()

    def next_batch(timeout_s: float) -> TimeTags:
        nonlocal read
        read = next(reads)
        if read > MOST_BATCHES:
            full.set()
        return batch

    thread._tagger.read = next_batch  # type: ignore[method-assign]
    thread._receiver = Receiver(76.13e6, lambda n: np.zeros(n, np.uint8))
    thread._node.load = Load()
    thread._loop = SimpleNamespace(call_soon_threadsafe=lambda *_: None)  # type: ignore[assignment]
    thread.start()
    await asyncio.to_thread(full.wait, 30.0)
    await asyncio.sleep(0.05)
    thread.stop()
    await asyncio.to_thread(thread.join)
    assert read == MOST_BATCHES + 1


@pytest.mark.parametrize(("filled", "backlog"), [(0.19, "late_bits"), (0.21, "backlog_bits")])
async def test_a_tagger_that_can_wait_loses_nothing_and_is_kept_waiting(
    filled: float, backlog: str, tmp_path: Any
) -> None:
    """Some way into a block for the one that closed last, at once for any before it."""
    session = Session()
    thread = clicks(session, can_wait=True, tmp_path=tmp_path, text="[blocks]\nblock_size_detections = 100_000_000\n")
    session.filling_detections = round(filled * 100_000_000)
    setattr(session, backlog, MOST_WAITING_BITS)
    thread._arrived([detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)], [])
    assert thread._room.is_set()
    thread._room.clear()
    setattr(session, backlog, MOST_WAITING_BITS + 1)
    thread._arrived([detections([PREAMBLE_SLOTS + 10], PREAMBLE_SLOTS + 19)], [])
    assert len(session.taken) == 2
    assert not thread._room.is_set()
    setattr(session, backlog, 0)
    thread.look_for_room()
    assert thread._room.is_set()
    assert thread.blocks_shed == 0


async def test_a_tagger_that_can_wait_begins_a_block_while_the_one_before_is_corrected(tmp_path: Any) -> None:
    session = Session()
    thread = clicks(session, can_wait=True, tmp_path=tmp_path)
    session.backlog_bits = 80_000_000
    thread._arrived([detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)], [])
    assert thread._room.is_set()


async def test_detections_from_before_a_slip_do_not_outlive_it(tmp_path: Any) -> None:
    session = Session()
    thread = clicks(session, can_wait=True, tmp_path=tmp_path)
    thread._arrived([detections([PREAMBLE_SLOTS + 1], PREAMBLE_SLOTS + 9)], [ReceiverEvent("slip", 0, 9)])
    assert (len(session.taken), session.taken_when_voided) == (1, [1])


async def test_room_is_seen_at_the_step_that_makes_it(tmp_path: Any) -> None:
    session = Session()
    thread = clicks(session, can_wait=True, tmp_path=tmp_path)
    store = DictStore()
    shell = Shell(session, None, None, None, store, Lanes(), print, print)  # type: ignore[arg-type]
    shell.after_effects.append(thread.look_for_room)
    session.late_bits = 1 + MOST_WAITING_BITS
    shell.act(list)
    assert not thread._room.is_set()

    def decoded(_: None) -> list[Any]:
        session.late_bits = 0
        return []

    shell.act(lambda: [Run("frames", lambda: None, decoded)])
    await asyncio.to_thread(thread._room.wait, 30.0)
    assert thread._room.is_set()


def test_the_largest_chunk_fits_one_announcement_and_one_packet() -> None:
    most = next(item.le for item in Blocks.model_fields["chunk_detections"].metadata if hasattr(item, "le"))
    assert most + MAX_PIECE <= MAX_CHUNK_DETECTIONS
    n = MAX_CHUNK_DETECTIONS
    slots = (1 << 40) + PREAMBLE_SLOTS + 32 * np.arange(n, dtype=np.int64)
    none = np.zeros(n, np.uint8)
    for crossed in (slots, slots + 1):  # every slot clicked in both bases, kept; as many more, discarded
        full = Detections(slots, none, none, 0, int(slots[-1]) + 2, cross_slots=crossed)
        assert len(encode_announcement(full)) < MAX_BODY_BYTES - 100
