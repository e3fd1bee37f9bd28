"""The public preamble that opens every epoch: what Bob correlates his clicks with to find the slot number.

An epoch is ``EPOCH_SLOTS`` slots; its first ``PREAMBLE_SLOTS`` carry public Z-basis symbols in three parts:
A, one 1024-slot word repeated 64 times (coarse alignment by folding); B, 2^15 slots of a fixed aperiodic word (exact
start); C, 2^15 slots that depend on the epoch number (which epoch). Preamble slots never enter the key, the tallies or
the number of slots sent. Source: ours, decision 3.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

EPOCH_SLOTS = 1 << 26
PREAMBLE_SLOTS = 1 << 17
PART_A_WORD_SLOTS = 1 << 10
PART_A_REPEATS = 64
PART_B_SLOTS = 1 << 15
PART_C_SLOTS = 1 << 15
PART_B_START = PART_A_WORD_SLOTS * PART_A_REPEATS
PART_C_START = PART_B_START + PART_B_SLOTS


def _pseudo_random(label: str, n_bits: int) -> NDArray[np.uint64]:
    stream = hashlib.shake_128(b"qkd-node preamble 1 " + label.encode()).digest(n_bits // 8)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def part_a_word() -> NDArray[np.uint64]:
    """*(16,) uint64*: the word that part A repeats, packed, bit = Z bit of the slot (0 = H, 1 = V)."""
    return _pseudo_random("A", PART_A_WORD_SLOTS)


def part_b() -> NDArray[np.uint64]:
    """*(512,) uint64*: part B, packed."""
    return _pseudo_random("B", PART_B_SLOTS)


def part_c(epoch: int) -> NDArray[np.uint64]:
    """*(512,) uint64*: part C of an epoch (>= 0), packed."""
    return _pseudo_random(f"C{epoch}", PART_C_SLOTS)


def preamble(epoch: int) -> NDArray[np.uint64]:
    """*(2048,) uint64*: the Z bits of the first ``PREAMBLE_SLOTS`` slots of an epoch, packed."""
    return np.concatenate([np.tile(part_a_word(), PART_A_REPEATS), part_b(), part_c(epoch)])


def key_slots(from_slot: int, to_slot: int) -> int:
    """Number of slots in the half-open range that are not preamble (what ``n_s`` counts)."""

    def before(slot: int) -> int:
        epochs, rest = divmod(slot, EPOCH_SLOTS)
        return epochs * (EPOCH_SLOTS - PREAMBLE_SLOTS) + max(0, rest - PREAMBLE_SLOTS)

    return before(to_slot) - before(from_slot)
