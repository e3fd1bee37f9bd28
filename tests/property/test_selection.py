"""The selection is its slow definition however the light is cut, sees counts alone, and never makes a key shorter."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bob.selection import SIGMAS, Selection, gives_key
from bob.session import CHUNK_SLOTS
from common.auditor.verify_certificate import parse
from common.datatypes import Detections
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from tests.property.test_protocol import Feeder, finish, make_pair, short_blocks_give_key  # noqa: F401

P_Z = 0.8
WINDOW = st.one_of(st.integers(1, 40_000), st.sampled_from([3000, 6000, 9000]))
SEGMENT = 3000
FROM = EPOCH_SLOTS - 20_000
TO = EPOCH_SLOTS + PREAMBLE_SLOTS + 20_000
"""Light on both sides of a preamble."""


def entropy(x: float) -> float:
    return 0.0 if x in (0.0, 1.0) else -x * math.log2(x) - (1.0 - x) * math.log2(1.0 - x)


def light(seed: int) -> tuple[Detections, tuple[np.ndarray, np.ndarray]]:
    """Detections whose density changes from segment to segment, and far clicks."""
    rng = np.random.default_rng(seed)
    slots = np.arange(FROM, TO)
    slots = slots[slots % EPOCH_SLOTS >= PREAMBLE_SLOTS]
    density = rng.choice([0.0, 0.003, 0.02, 0.1], 1 + TO // SEGMENT - FROM // SEGMENT)
    chosen = slots[rng.random(slots.size) < density[slots // SEGMENT - FROM // SEGMENT] + 0.002]
    far = slots[rng.random(slots.size) < rng.choice([0.0, 0.005, 0.02])]
    bases, far_bases = ((rng.random(n) > P_Z).astype(np.uint8) for n in (chosen.size, far.size))
    bits = rng.integers(0, 2, chosen.size, dtype=np.uint8)
    return Detections(chosen, bases, bits, FROM, TO), (far, far_bases)


def cut(whole: Detections, far: tuple[np.ndarray, np.ndarray], edges: list[int]) -> list[tuple[Detections, tuple]]:
    made = []
    for a, b in pairwise([FROM, *sorted(set(edges)), TO]):
        inside = (whole.slots >= a) & (whole.slots < b)
        columns = (column[inside] for column in (whole.slots, whole.bases, whole.bits))
        near = (far[0] >= a) & (far[0] < b)
        made.append((Detections(*columns, a, b), (far[0][near], far[1][near])))
    return made


def selection(window: int, light_qber: float = 0.02) -> Selection:
    return Selection(SEGMENT, window, 0.7, P_Z, light_qber)


def chosen(made: list[Detections]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert all(a.to_slot == b.from_slot for a, b in pairwise(made))
    assert (made[0].from_slot, made[-1].to_slot) == (FROM, TO)
    assert all(np.all((d.slots >= d.from_slot) & (d.slots < d.to_slot)) for d in made)
    slots, bases, bits = (np.concatenate([getattr(d, name) for d in made]) for name in ("slots", "bases", "bits"))
    return slots, bases, bits


def run(pieces: list[tuple[Detections, tuple]], window: int, light_qber: float = 0.02) -> list[Detections]:
    bob = selection(window, light_qber)
    made = [d for piece in pieces for d in bob.take(*piece)] + bob.flush()
    assert bob.counts.detections_dropped == sum(len(d) for d, _ in pieces) - sum(map(len, made))
    return made


def slowly(whole: Detections, far: tuple[np.ndarray, np.ndarray], window: int, light_qber: float) -> list[int]:
    """The definition: segment by segment, the background from as many segments before as fill the window."""
    kept: list[int] = []
    before: list[tuple[int, int, int]] = []
    start = FROM
    while start < TO:
        end = min((start // SEGMENT + 1) * SEGMENT, TO)
        key_slots = sum(1 for slot in range(start, end) if slot % EPOCH_SLOTS >= PREAMBLE_SLOTS)
        inside = [int(slot) for slot in whole.slots if start <= slot < end]
        total, z, x = 0, 0, 0
        for slots, in_z, in_x in reversed(before):
            total, z, x = total + slots, z + in_z, x + in_x
            if total >= window:
                break
        b_z, b_x = (0.7 * key_slots * max(n - SIGMAS * math.sqrt(n), 0.0) / total if total else 0.0 for n in (z, x))
        light = len(inside) + SIGMAS * math.sqrt(len(inside)) - b_z - b_x
        if b_z + b_x == 0.0:
            kept += inside
        elif light > 0.0:
            n = P_Z * light + b_z
            bit_errors = light_qber * P_Z * light + b_z / 2
            phase_errors = light_qber * P_Z * light + P_Z / (1 - P_Z) * b_x / 2
            if 1 - entropy(bit_errors / n) - entropy(min(phase_errors / n, 0.5)) > 0:
                kept += inside
        clicks = [int(basis) for slot, basis in zip(*far, strict=True) if start <= slot < end]
        before.append((key_slots, clicks.count(0), clicks.count(1)))
        start = end
    return kept


@given(st.integers(0, 10**6), st.lists(st.integers(FROM + 1, TO - 1), max_size=12), WINDOW)
def test_it_is_its_slow_definition_however_the_light_is_cut(seed: int, edges: list[int], window: int) -> None:
    whole, far = light(seed)
    slots, bases, bits = chosen(run(cut(whole, far, edges), window))
    assert slots.tolist() == slowly(whole, far, window, 0.02)
    where = np.searchsorted(whole.slots, slots)
    np.testing.assert_array_equal(bases, whole.bases[where])
    np.testing.assert_array_equal(bits, whole.bits[where])


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_it_sees_which_slots_were_detected_and_nothing_else(seed: int, other: int) -> None:
    whole, far = light(seed)
    rng = np.random.default_rng(other)
    bases, bits = rng.integers(0, 2, (2, len(whole)), dtype=np.uint8)
    changed = Detections(whole.slots, bases, bits, FROM, TO)
    found = [chosen(run([(light_, far)], 9000))[0].tolist() for light_ in (whole, changed)]
    assert found[0] == found[1]
    crossed = rng.random(len(whole)) < 0.5  # had these slots clicked in both bases, the same segments would be kept
    left = [column[~crossed] for column in (whole.slots, bases, bits)]
    discarded = Detections(*left, FROM, TO, cross_slots=whole.slots[crossed])
    made = run([(discarded, far)], 9000)
    assert sorted([*chosen(made)[0], *np.concatenate([d.cross_slots for d in made])]) == found[0]


COUNT, BACKGROUND = st.floats(0, 1e5), st.floats(0, 1e4)


@given(COUNT, COUNT, BACKGROUND, BACKGROUND, st.floats(0.1, 0.95), st.floats(0, 0.1))
def test_more_detections_never_lose_a_segment(
    n: float, more: float, b_z: float, b_x: float, p_z: float, light_qber: float
) -> None:
    if gives_key(n, (b_z, b_x), p_z, light_qber):
        assert gives_key(n + more, (b_z, b_x), p_z, light_qber)


def key(z: float, bit_errors: float, phase_errors: float, tagged: float, f: float) -> float:
    """README, Length, without the constants; phase errors are of what is untagged."""
    untagged = z - tagged
    if untagged <= 0.0:
        return -f * z * entropy(bit_errors / z)
    return untagged * (1.0 - entropy(min(phase_errors / untagged, 0.5))) - f * z * entropy(bit_errors / z)


@given(
    st.floats(0.1, 0.95),
    st.floats(0.0, 0.1),
    st.floats(1.0, 1.3),
    st.floats(0.0, 0.9),
    st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 1e5), st.floats(0, 1e5)), min_size=2, max_size=2),
)
def test_a_segment_without_key_of_its_own_never_lengthens_the_key_of_a_block(
    p_z: float, light_qber: float, f: float, tagged_share: float, parts: list[tuple[float, float, float]]
) -> None:
    """n (1 - h(x / n)) is convex and homogeneous, hence subadditive: key(both) <= key(block) + key(segment)."""
    block, segment = (
        np.array(
            [
                p_z * light + b_z,
                light_qber * p_z * light + b_z / 2,
                light_qber * p_z * light + p_z / (1 - p_z) * b_x / 2,
            ]
        )
        for light, b_z, b_x in parts
    )
    tagged = tagged_share * block[0]
    light, b_z, b_x = parts[1]
    if not gives_key(light + b_z + b_x, (b_z, b_x), p_z, light_qber):
        assert key(*(block + segment), tagged, f) <= key(*block, tagged, f) + 1e-6 * (block + segment)[0]


class Clouded(Feeder):
    """After 12288 detections, 0.66 s of light of which the selection left nothing."""

    STRETCH = 3 * CHUNK_SLOTS // 2
    skipped = 0

    def __call__(self, now_ns: int) -> None:
        session: Any = self.pair.bob.session
        if self.position == 12_288 and self.skipped < self.STRETCH and session.ready:
            at = PREAMBLE_SLOTS + self.position + self.skipped
            self.skipped += self.STRETCH // 4
            none = np.zeros(0, np.uint8)
            nothing = Detections(np.zeros(0, np.int64), none, none, at, PREAMBLE_SLOTS + self.position + self.skipped)
            self.pair.bob.carry(session.on_detections(nothing, now_ns), now_ns)
        elif self.skipped == self.STRETCH and self.position == 12_288:
            self.position += self.STRETCH
        else:
            super().__call__(now_ns)


def test_a_block_goes_on_behind_a_dropped_stretch_whose_slots_count_as_sent() -> None:
    pair, sky = make_pair()
    Clouded(pair, sky)
    finish(pair, 2)
    first, second = (parse(pair.bob.store.certificates[number]) for number in sorted(pair.bob.store.certificates)[:2])
    sent = [body["ledger"]["tallies"]["slots_sent"] for body in (first, second)]
    assert sent[0] == sent[1] + Clouded.STRETCH
