"""Alignment on exact slots: the search finds the offset and the epoch, the check tells right from wrong."""

from __future__ import annotations

import numpy as np
import pytest

from bob import alignment
from bob.alignment import PreambleCheck, SlotSearch
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from tests.clicks import Link, symbols_of

LINK = Link(0.0)


def z_clicks(
    rng: np.random.Generator, n: int, first: int, last: int, error: float = 0.03
) -> tuple[np.ndarray, np.ndarray]:
    """Clicks of Z-prepared slots in the range, with errors; a tenth of the others give random bits."""
    slots = np.unique(rng.integers(first, last, n))
    basis, bit = symbols_of(slots, LINK)
    bits = np.where(basis == 0, bit ^ (rng.random(slots.size) < error), rng.integers(0, 2, slots.size))
    return slots, bits.astype(np.uint8)


@pytest.mark.parametrize(("epoch", "hint"), [(0, None), (5000, None), (300_000, 300_100)])
def test_the_offset_and_the_epoch_are_found(rng: np.random.Generator, epoch: int, hint: int | None) -> None:
    start = epoch * EPOCH_SLOTS
    ours = 777 + 12_345 * 64
    slots, bits = z_clicks(rng, 30_000, start, start + (1 << 22))
    search = SlotSearch(ours, hint)
    found = None
    for part in np.array_split(np.arange(slots.size), 40):
        up_to = int(slots[part[-1]]) + 1 - start + ours
        found = found or search.add(slots[part] - start + ours, bits[part], up_to)
    assert found is not None
    assert (found.offset, found.epoch) == (start - ours, epoch)
    assert found.sigma > 6.5


def test_a_wrong_hint_costs_time_but_not_truth(rng: np.random.Generator) -> None:
    slots, bits = z_clicks(rng, 30_000, 0, 1 << 22)  # Alice restarted: epoch 0
    search = SlotSearch(0, 90_000)
    found = search.add(slots[:1], bits[:1], 1) or search.add(slots[1:], bits[1:], 1 << 22)
    assert found is not None
    assert (found.offset, found.epoch) == (0, 0)


def test_weak_light_adds_up_over_epochs(rng: np.random.Generator) -> None:
    search = SlotSearch(0)
    for epoch in range(12):
        start = epoch * EPOCH_SLOTS
        slots, bits = z_clicks(rng, 24, start, start + PREAMBLE_SLOTS)
        noise, noise_bits = z_clicks(rng, 3_000, start + PREAMBLE_SLOTS, start + EPOCH_SLOTS)
        found = search.add(slots, bits, start + PREAMBLE_SLOTS) or search.add(noise, noise_bits, start + EPOCH_SLOTS)
        if found is not None:
            assert (found.offset, found.epoch) == (0, epoch)
            assert epoch >= 3
            return
    raise AssertionError("never found")


def test_random_bits_are_never_aligned(rng: np.random.Generator) -> None:
    search = SlotSearch(0)
    for epoch in range(3):
        slots = np.unique(rng.integers(epoch * EPOCH_SLOTS, (epoch + 1) * EPOCH_SLOTS, 300_000))
        bits = rng.integers(0, 2, slots.size, dtype=np.uint8)
        assert search.add(slots, bits, (epoch + 1) * EPOCH_SLOTS) is None


def test_a_swapped_detector_pair_is_never_aligned(rng: np.random.Generator) -> None:
    slots, bits = z_clicks(rng, 60_000, 0, 1 << 22)
    assert SlotSearch(0).add(slots, bits ^ 1, 1 << 22) is None


def test_the_search_begins_anew_after_too_long(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "RESTART_EPOCHS", 1)
    search = SlotSearch(0)
    slots, bits = z_clicks(rng, 1000, 0, EPOCH_SLOTS)
    search.add(slots, bits, EPOCH_SLOTS + 1)
    assert not search._grid.any()


@pytest.mark.parametrize("lag", [0, 1, -1, 64, -64])
def test_the_check_measures_the_slip(rng: np.random.Generator, lag: int) -> None:
    slots, bits = z_clicks(rng, 800, 9 * EPOCH_SLOTS, 9 * EPOCH_SLOTS + PREAMBLE_SLOTS)
    check = PreambleCheck()
    verdict = check.add(9, slots - lag, bits)
    assert verdict == ("slipped" if lag else "verified")
    assert check.slip == lag


def test_the_check_waits_for_evidence_and_fails_on_contradiction(rng: np.random.Generator) -> None:
    check = PreambleCheck()
    verdicts = []
    for epoch in range(20):
        slots = np.unique(rng.integers(epoch * EPOCH_SLOTS, epoch * EPOCH_SLOTS + PREAMBLE_SLOTS, 50))
        verdicts.append(check.add(epoch, slots, rng.integers(0, 2, slots.size, dtype=np.uint8)))
        if verdicts[-1] == "failed":
            break
    assert verdicts[:6] == ["undecided"] * 6
    assert verdicts[-1] == "failed"
    assert len(verdicts) <= 10


def test_weak_but_right_light_is_verified_in_time(rng: np.random.Generator) -> None:
    check = PreambleCheck()
    for epoch in range(10):
        slots, bits = z_clicks(rng, 20, epoch * EPOCH_SLOTS, epoch * EPOCH_SLOTS + PREAMBLE_SLOTS)
        if check.add(epoch, slots, bits) == "verified":
            assert epoch >= 1
            return
    raise AssertionError("never verified")
