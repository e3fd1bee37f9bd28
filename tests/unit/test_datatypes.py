"""The algebra of detections: batches are cut, joined, and nothing is lost between them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.datatypes import Detections


def detections(slots: list[int], to_slot: int) -> Detections:
    found = np.array(slots, np.int64)
    return Detections(found, (found % 3 == 0).astype(np.uint8), (found % 2).astype(np.uint8), 0, to_slot)


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_a_large_batch_in_pieces_is_the_same_batch(gaps: list[int], most: int, every: int, discard: bool) -> None:
    clicked = np.cumsum(gaps, dtype=np.int64)
    crossed, singles = clicked[::every], np.delete(clicked, slice(None, None, every))
    held = singles if discard else clicked
    whole = detections(held.tolist(), int(clicked[-1] if gaps else 0) + 5)
    whole = replace(whole, double_slots=singles[::2], cross_slots=crossed)
    assert whole.announced == clicked.size
    cut = whole.pieces(most)
    assert all(piece.announced <= most for piece in cut)
    assert all(a.to_slot == b.from_slot for a, b in itertools.pairwise(cut))
    again = Detections.join(cut)
    assert (again.from_slot, again.to_slot) == (whole.from_slot, whole.to_slot)
    for name in ("slots", "bases", "bits", "double_slots", "cross_slots"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
        for p in cut if name.endswith("slots") else ():
            assert np.all((getattr(p, name) >= p.from_slot) & (getattr(p, name) < p.to_slot))
    start = int(clicked[clicked.size // 2]) if gaps else 3
    rest = whole.later(start)
    for name in ("slots", "double_slots", "cross_slots"):
        of_whole = getattr(whole, name)
        np.testing.assert_array_equal(getattr(rest, name), of_whole[of_whole >= start])


def test_an_empty_range_joins_its_neighbours() -> None:
    between = Detections.join([detections([3, 5], 9), Detections.none(9, 20), Detections.none(20, 21)])
    assert (between.slots.tolist(), between.from_slot, between.to_slot) == ([3, 5], 0, 21)
    assert between.bases.dtype == between.bits.dtype == np.uint8
