"""Which slot is which: correlation of Bob's Z clicks with the public preambles, first found and then checked.

Before alignment slots are numbered from an arbitrary start. Part A is found by folding (a row of the grid is 2^15
slots, a column a slot modulo 1024, rows wrap after an epoch so that weak light adds up over epochs), part B tells the
exact start, part C confirms both on disjoint clicks and names the epoch. Source: ours, decision 64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.kernels import correlation
from common.preamble import (
    EPOCH_SLOTS,
    PART_A_REPEATS,
    PART_A_WORD_SLOTS,
    PART_B_START,
    PART_C_START,
    PREAMBLE_SLOTS,
    part_a_word,
    part_c,
    preamble,
)

ROW_SHIFT = 15
ROWS = EPOCH_SLOTS >> ROW_SHIFT
ACCEPT_SIGMA = 6.5
PROMISING_SIGMA = 7.0
START_SIGMA = 5.0
"""For part B: only about 130 starts compete, and part C must still confirm."""
FEWEST_CLICKS = 48
"""A score of n clicks is counted against at least this many: fewer agreeing clicks prove nothing."""
MAX_HISTORY = 1 << 22
RESTART_EPOCHS = 400
"""Weak light is added up over this many epochs, then the search begins anew (the phase may have slipped)."""
EPOCH_BATCH = 4096
MAX_EPOCH_CLICKS = 1024
LAST_EPOCH = 1 << 18
"""Without a hint, epochs up to here (64 h at 76 MHz) are tried."""
CHECK_LAG = 64
FAIL_CLICKS = 400
FAIL_FRACTION = 0.25

Verdict = Literal["undecided", "verified", "slipped", "failed"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Alice's slot number = ours + ``offset``; the epoch that confirmed it and the significance."""

    offset: int
    epoch: int
    sigma: float


class SlotSearch:
    """Finds the alignment from Z clicks numbered from an arbitrary slot."""

    def __init__(self, first_slot: int, epoch_hint: int | None = None) -> None:
        self._hint = epoch_hint
        self._first_slot = first_slot
        self._grid = np.zeros((ROWS, PART_A_WORD_SLOTS), dtype=np.int32)
        self._counts = np.zeros(ROWS, dtype=np.int64)
        self._next_row = (first_slot >> ROW_SHIFT) + 1
        self._history = _History()
        self._candidates: list[tuple[float, int, int]] = []
        self._last_correlation = np.zeros((1, PART_A_WORD_SLOTS))

    def add(self, slots: NDArray[np.int64], bits: NDArray[np.uint8], up_to_slot: int) -> Alignment | None:
        """More Z clicks, complete up to ``up_to_slot``; the alignment once it is certain."""
        correlation.fold(slots, bits, ROW_SHIFT, self._grid, self._counts)
        self._history.append(slots, bits)
        rows = (up_to_slot >> ROW_SHIFT) - self._next_row
        if rows >= 16:
            self._scan(self._next_row, self._next_row + rows)
            self._next_row += rows
        if up_to_slot - self._first_slot > RESTART_EPOCHS * EPOCH_SLOTS:
            self.__init__(up_to_slot, self._hint)  # type: ignore[misc]
            return None
        return self._conclude(up_to_slot)

    def _scan(self, first: int, last: int) -> None:
        """Correlate complete rows with the word of part A, each together with the row before it."""
        rows = np.arange(first, last) & (ROWS - 1)
        spectra = np.fft.rfft(self._grid[rows], axis=1) * _word_spectrum()
        single = np.fft.irfft(spectra, PART_A_WORD_SLOTS, axis=1)
        pairs = single + np.concatenate([self._last_correlation, single[:-1]])
        clicks = self._counts[rows] + self._counts[(rows - 1) & (ROWS - 1)]
        sigmas = pairs.max(axis=1) / np.sqrt(np.maximum(clicks, FEWEST_CLICKS))
        self._last_correlation = single[-1:]
        for row in np.flatnonzero(sigmas > ACCEPT_SIGMA):
            self._candidates.append((float(sigmas[row]), first + int(row), int(np.argmax(pairs[row]))))

    def _conclude(self, up_to_slot: int) -> Alignment | None:
        """Try the candidates whose preamble is complete, the strongest first."""
        complete = [c for c in self._candidates if ((c[1] + 2) << ROW_SHIFT) + PREAMBLE_SLOTS <= up_to_slot]
        if not complete:
            return None
        self._candidates = [c for c in self._candidates if c not in complete]
        for _, row, column in sorted(complete, reverse=True):
            start = self._exact_start(row, column)
            found = None if start is None else self._name_epoch(*start)
            if found is not None:
                return found
        return None

    def _exact_start(self, row: int, column: int) -> tuple[int, float] | None:
        """Part B decides which repeat of part A's word was the first; with the contrast (1 - 2 error) seen so far."""
        repeats = 2 * PART_A_REPEATS + 4
        earliest = ((row - 1) << ROW_SHIFT) - (PART_A_REPEATS + 1) * PART_A_WORD_SLOTS
        earliest += (column - earliest) % PART_A_WORD_SLOTS
        positions, bits, _ = self._history.folded(earliest, repeats * PART_A_WORD_SLOTS + PART_C_START)
        scores = np.zeros((4, repeats), dtype=np.int64)
        words = preamble(0)
        step = PART_A_WORD_SLOTS
        correlation.score_starts(positions, bits, words, 0, PART_B_START, step, scores[0], scores[1])
        correlation.score_starts(positions, bits, words, PART_B_START, PART_C_START, step, scores[2], scores[3])
        best = int(np.argmax(scores[0] + scores[2]))
        if scores[2, best] <= START_SIGMA * math.sqrt(max(int(scores[3, best]), FEWEST_CLICKS)):
            return None
        contrast = (scores[0, best] + scores[2, best]) / (scores[1, best] + scores[3, best])
        return earliest + best * step, float(contrast)

    def _name_epoch(self, start: int, contrast: float) -> Alignment | None:
        """Part C, clicks that had no say so far: the epoch whose pattern they follow.

        The (long) search is made only once the contrast seen in parts A and B promises enough significance.
        """
        positions, bits, ages = self._history.folded(start + PART_C_START, PREAMBLE_SLOTS - PART_C_START)
        if contrast * math.sqrt(positions.size) < PROMISING_SIGMA:
            return None
        newest = slice(-MAX_EPOCH_CLICKS, None)
        positions, bits, ages = positions[newest], bits[newest], ages[newest]
        oldest = int(ages.max())
        for first, last in _epoch_ranges(self._hint):
            words = np.stack([_part_c(max(epoch, 0)) for epoch in range(first - oldest, last)])
            sums = np.zeros(last - first, dtype=np.int64)
            correlation.score_epochs(positions, ages, bits, words, oldest, sums)
            best = int(np.argmax(sums))
            sigma = float(sums[best] / math.sqrt(positions.size))
            if sigma > ACCEPT_SIGMA:
                return Alignment((first + best) * EPOCH_SLOTS - start, first + best, sigma)
        return None


class PreambleCheck:
    """Confirms the alignment at every preamble; weak light adds up until it can tell."""

    def __init__(self) -> None:
        self._scores = np.zeros((2, 2 * CHECK_LAG + 1), dtype=np.int64)
        self.sigma = 0.0
        self.slip = 0
        self.right = self.wrong = 0
        """Clicks of the last preamble with the right and the wrong outcome, if the slot numbers are right."""

    def add(self, epoch: int, slots: NDArray[np.int64], bits: NDArray[np.uint8]) -> Verdict:
        """The Z clicks of one whole preamble. After ``"slipped"``: Alice's numbers are ours + ``slip``."""
        positions = slots - (epoch * EPOCH_SLOTS - CHECK_LAG)
        before = self._scores[:, CHECK_LAG].copy()
        correlation.score_starts(
            positions, bits, preamble(epoch), 0, PREAMBLE_SLOTS, 1, self._scores[0], self._scores[1]
        )
        agreement, clicks = (int(x) for x in self._scores[:, CHECK_LAG] - before)
        self.right, self.wrong = (clicks + agreement) // 2, (clicks - agreement) // 2
        sigmas = self._scores[0] / np.sqrt(np.maximum(self._scores[1], FEWEST_CLICKS))
        best = int(np.argmax(sigmas))
        self.sigma = float(sigmas[CHECK_LAG])
        verdict: Verdict = "undecided"
        if sigmas[best] > ACCEPT_SIGMA:
            self.slip = CHECK_LAG - best
            verdict = "slipped" if self.slip else "verified"
        elif self._scores[1, CHECK_LAG] >= FAIL_CLICKS:
            expected = FAIL_FRACTION * self._scores[1, CHECK_LAG]
            verdict = "failed" if self._scores[0, CHECK_LAG] < expected else "undecided"
        if verdict != "undecided":
            self._scores[:] = 0
        return verdict


class _History:
    """The clicks that the search has seen, oldest dropped when there are too many."""

    def __init__(self) -> None:
        self._slots = np.zeros(1 << 12, dtype=np.int64)
        self._bits = np.zeros(1 << 12, dtype=np.uint8)
        self._used = 0

    def append(self, slots: NDArray[np.int64], bits: NDArray[np.uint8]) -> None:
        if self._used + slots.size > self._slots.size:
            kept = min(self._used, MAX_HISTORY // 2)
            size = max(self._slots.size, 1 << (kept + slots.size - 1).bit_length())
            old_slots, old_bits = (
                self._slots[self._used - kept : self._used],
                self._bits[self._used - kept : self._used],
            )
            self._slots, self._bits = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.uint8)
            self._slots[:kept], self._bits[:kept] = old_slots, old_bits
            self._used = kept
        self._slots[self._used : self._used + slots.size] = slots
        self._bits[self._used : self._used + slots.size] = bits
        self._used += slots.size

    def folded(self, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
        """Positions after ``start`` modulo the epoch, bits, and ages in epochs, of clicks within ``length`` of it."""
        since = self._slots[: self._used] - start
        positions = since & (EPOCH_SLOTS - 1)
        inside = np.flatnonzero(positions < length)
        ages = -(since[inside] >> (EPOCH_SLOTS - 1).bit_length())
        kept = inside[ages >= 0]
        return positions[kept], self._bits[kept], ages[ages >= 0]


def _epoch_ranges(hint: int | None) -> Iterator[tuple[int, int]]:
    """Where to look for the epoch's number: near the hint, then from the start (a restarted Alice), then on."""
    if hint is not None:
        yield max(hint - 8, 0), hint + 9
    yield 0, EPOCH_BATCH
    if hint is not None:
        yield max(hint - EPOCH_BATCH, 0), hint + EPOCH_BATCH
    yield from ((first, first + EPOCH_BATCH) for first in range(EPOCH_BATCH, LAST_EPOCH, EPOCH_BATCH))


@lru_cache(maxsize=1 << 10)
def _part_c(epoch: int) -> NDArray[np.uint64]:
    return part_c(epoch)


@lru_cache(maxsize=1)
def _word_spectrum() -> NDArray[np.complex128]:
    bits = np.unpackbits(part_a_word().view(np.uint8), bitorder="little")
    return np.conj(np.fft.rfft(1.0 - 2.0 * bits))
