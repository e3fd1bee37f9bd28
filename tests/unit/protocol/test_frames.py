"""Both ends joined by a list: equal keys and accounting, either end decoding, a wandering rate."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from common.config import Reconciliation
from common.keybits import KeyBits
from common.postprocessing.interleaving import window_bits
from common.postprocessing.reconciliation.exchange import FrameExchange
from common.postprocessing.reconciliation.fitted import WINDOWS_AHEAD
from common.postprocessing.reconciliation.tracker import QberTracker
from common.protocol.effects import Run, Send
from common.protocol.frames import MessageOutlet, parities_of, result_of
from common.protocol.messages import FrameResult, Syndrome, decode
from common.protocol.schedule import Schedule
from common.protocol.transitions import Role


def exchange(role: Role, settings: Reconciliation, tracker: QberTracker) -> FrameExchange[Any]:
    """One end, alone on its link: whatever it says is a Send."""
    outlet = MessageOutlet(1, Send, lambda run: run)
    return FrameExchange(role.value, settings, tracker, outlet, Schedule(settings))


def run_block(
    alice: np.ndarray, bob: np.ndarray, trackers: dict[Role, QberTracker], **settings: Any
) -> tuple[dict[Role, FrameExchange[Any]], list[bytes]]:
    """Feed both ends in parts of different sizes and carry out every effect; the wire as it was."""
    sections = Reconciliation(**settings)
    ends = {
        role: exchange(role, sections, trackers[role]) for role in (Role.ALICE, Role.BOB)
    }
    wire: list[bytes] = []
    open_effects: deque[tuple[Role, Any]] = deque()

    def settle() -> None:
        while open_effects:
            role, effect = open_effects.popleft()
            if isinstance(effect, Run):
                open_effects.extend((role, more) for more in effect.then(effect.work()))
                continue
            raw = effect.message.encode()
            wire.append(raw)
            other = ends[Role.BOB if role is Role.ALICE else Role.ALICE]
            message = decode(raw)
            heard = isinstance(message, Syndrome)
            made = other.on_parities(parities_of(message)) if heard else other.on_result(result_of(message))
            open_effects.extend((Role.BOB if role is Role.ALICE else Role.ALICE, more) for more in made)

    for role, bits, part in ((Role.ALICE, alice, 1000), (Role.BOB, bob, 1777)):
        for start in range(0, bits.size, 8 * part):
            piece = bits[start : start + 8 * part]
            packed = np.packbits(piece, bitorder="little")
            open_effects.extend((role, effect) for effect in ends[role].add(KeyBits(packed, piece.size)))
        open_effects.extend((role, effect) for effect in ends[role].close())
    settle()
    return ends, wire


def pair(rng: np.random.Generator, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alice = rng.integers(0, 2, chance.size, dtype=np.uint8)
    return alice, alice ^ (rng.random(chance.size) < chance)


@pytest.mark.parametrize("side", ["bob", "alice", "both"])
def test_either_end_decodes_and_every_bit_on_the_wire_is_counted(rng: np.random.Generator, side: str) -> None:
    alice, bob = pair(rng, np.full(200_003, 0.02))
    trackers = {role: QberTracker(0.03) for role in (Role.ALICE, Role.BOB)}
    ends, wire = run_block(alice, bob, trackers, decoding_side=side, frame_length_bits=1 << 15)
    assert all(end.complete and end.frames_failed == 0 for end in ends.values())
    messages = [decode(raw) for raw in wire]
    disclosed = sum(8 * len(m.payload) if isinstance(m, Syndrome) else 24 for m in messages)
    assert ends[Role.ALICE].leak_ec_bits == ends[Role.BOB].leak_ec_bits == disclosed
    lengths = {m.frame: m.n_bits for m in messages if isinstance(m, Syndrome)}
    told = [round(m.qber_steps / 65536 * lengths[m.frame]) for m in messages if isinstance(m, FrameResult)]
    assert ends[Role.ALICE].errors == ends[Role.BOB].errors == sum(told)
    assert trackers[Role.ALICE].qber == pytest.approx(trackers[Role.BOB].qber, rel=0.01)
    if side != "both":
        assert trackers[Role.ALICE].qber == trackers[Role.BOB].qber
    frames = {m.frame for m in messages if isinstance(m, FrameResult)}
    assert len(frames) == 7
    left, right = (np.concatenate(ends[role].parts()) for role in (Role.ALICE, Role.BOB))
    assert [ends[role].kept_bits for role in Role] == [200_003, 200_003]
    np.testing.assert_array_equal(left, right)
    if side != "both":
        # The whole reference key is there, in the order of the frames.
        assert int(np.bitwise_count(left).sum()) == int((alice if side == "bob" else bob).sum())


def test_the_exact_number_of_errors_is_nowhere(rng: np.random.Generator) -> None:
    """In a frame of 2^18 bits a step of the error rate is four errors: the correcting end forgets the rest, too."""
    n = 1 << 18
    chance = np.zeros(n)
    chance[: 4 * 1001 + 1] = 1.0
    ends, wire = run_block(*pair(rng, chance), {role: QberTracker(0.015) for role in Role}, frame_length_bits=n)
    assert [m.qber_steps for m in map(decode, wire) if isinstance(m, FrameResult) and m.status == 1] == [1001]
    assert ends[Role.ALICE].errors == ends[Role.BOB].errors == 4 * 1001


def test_a_rate_that_wanders_inside_a_block_costs_what_it_must(rng: np.random.Generator) -> None:
    n_bits = 1 << 20
    costs = {}
    for swing in (0.0, 0.3):
        chance = 0.026 * (1 + swing * np.sin(np.arange(n_bits) / n_bits * 2 * np.pi))
        alice, bob = pair(rng, chance)
        trackers = {role: QberTracker(0.026, 1 << 18) for role in (Role.ALICE, Role.BOB)}
        ends, _ = run_block(alice, bob, trackers, efficiency="efficient")
        assert ends[Role.BOB].frames_failed == 0
        chance *= np.mean(alice != bob) / chance.mean()
        limit = np.sum(-chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance))
        costs[swing] = ends[Role.BOB].leak_ec_bits / limit
    assert costs[0.3] < 1.03 * costs[0.0] < 1.15


def test_a_rate_that_jumps_from_block_to_block_is_caught_by_one_frame(rng: np.random.Generator) -> None:
    trackers = {role: QberTracker(0.02, 1 << 18) for role in (Role.ALICE, Role.BOB)}
    for qber in (0.02, 0.03, 0.015):
        alice, bob = pair(rng, np.full(1 << 18, qber))
        ends, _ = run_block(alice, bob, trackers, frame_length_bits=1 << 14)
        assert ends[Role.BOB].complete
        assert ends[Role.BOB].frames_failed <= 1
        assert trackers[Role.ALICE].qber == pytest.approx(qber, rel=0.2)


def test_nothing_is_sent_before_the_block_is_closed(rng: np.random.Generator) -> None:
    settings = Reconciliation(frame_length_bits=1 << 14)
    end = exchange(Role.ALICE, settings, QberTracker(0.02))
    n_bits = 8 * window_bits(1 << 14)
    assert end.add(KeyBits(rng.integers(0, 256, n_bits // 8, dtype=np.uint8), n_bits)) == []
    assert end.open_bits == end.waiting_bits == n_bits
    assert len(end.close()) == WINDOWS_AHEAD, "of two windows the first frame each, not of all"
    end.wipe()
    assert end.begin(64) == []


def test_a_silent_decoder_is_seen_in_the_undecoded_bits(rng: np.random.Generator) -> None:
    alice, bob = pair(rng, np.full(1 << 17, 0.02))
    trackers = {role: QberTracker(0.02) for role in (Role.ALICE, Role.BOB)}
    ends, _ = run_block(alice, bob, trackers, frame_length_bits=1 << 15)
    assert [end.undecoded_bits for end in ends.values()] == [0, 0]
    end = exchange(Role.ALICE, Reconciliation(), trackers[Role.ALICE])
    end.add(KeyBits(np.packbits(alice, bitorder="little"), alice.size))
    end.close()
    assert end.undecoded_bits == alice.size
    end.wipe()
    assert end.undecoded_bits == 0
