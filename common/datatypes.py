"""The frozen values that flow along the path of the data, in its order.

Arrays inside are not to be written to by whoever receives them. Bit arrays are *packed*: bit ``i`` is bit ``i % 64``
of word ``i // 64`` (uint64), equally bit ``i % 8`` of byte ``i // 8`` in the little-endian byte view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.keybits import KeyBits

Words = NDArray[np.uint64]
Bytes8 = NDArray[np.uint8]


class Basis(IntEnum):
    """Measurement or preparation basis. Z carries the key, X the check."""

    Z = 0
    X = 1


@dataclass(frozen=True, slots=True)
class Symbols:
    """What Alice prepares in consecutive slots, as bit planes of 64 slots a word.

    Parameters
    ----------
    first_slot : slot number of bit 0 of word 0; a multiple of 64.
    basis : *(n_words,) uint64*, 0 = Z, 1 = X.
    bit : *(n_words,) uint64*. Z: 0 = H, 1 = V. X: 0 = R, 1 = L (three-state protocols send only R).
    intensity : *(planes, n_words) uint64*, the index into the protocol's intensities, plane 0 = least bit;
        zero planes for single-photon protocols.
    phase : *(planes, n_words) uint64*, the random phase word of each slot, plane 0 = least bit.

    Security
    --------
    Secret until the block ends: the planes hold Alice's raw key.
    """

    first_slot: int
    basis: Words
    bit: Words
    intensity: NDArray[np.uint64]
    phase: NDArray[np.uint64]

    @property
    def n_slots(self) -> int:
        """Number of slots: 64 a word."""
        return 64 * int(self.basis.size)

    def __repr__(self) -> str:
        return f"Symbols(first_slot={self.first_slot}, n_slots={self.n_slots})"


@dataclass(frozen=True, slots=True)
class TimeTags:
    """A batch of raw detector clicks in the tagger's own clock.

    Parameters
    ----------
    times_ps : *(n,) int64*, ascending, ps since the tagger started.
    channels : *(n,) uint8*, logical channel: 0 = Z outcome 0 (H), 1 = Z outcome 1 (V), 2 = X outcome 0 (R),
        3 = X outcome 1 (L).
    until_ps : every click before this time is in this batch or an earlier one (an empty batch still tells time).
    overflow : True where the tagger lost tags inside the batch: the block is void.
    """

    times_ps: NDArray[np.int64]
    channels: Bytes8
    until_ps: int
    overflow: bool = False

    def __len__(self) -> int:
        return int(self.times_ps.size)


@dataclass(frozen=True, slots=True)
class Detections:
    """Clicks assigned to slots, at most one a slot, ascending: a batch that can be cut and joined with its neighbours.

    Parameters
    ----------
    slots : *(n,) int64*, Alice's slot numbers.
    bases : *(n,) uint8*, :class:`Basis` measured.
    bits : *(n,) uint8*, outcome 0 or 1 (Z: H, V; X: R, L).
    from_slot, to_slot : the half-open range of slots that this batch accounts for (also where nothing clicked).
    double_slots : *(d,) int64*, ascending, some of ``slots``: both detectors of one basis clicked.
    cross_slots : *(c,) int64*, ascending: detectors of both bases clicked. By the receiver's policy all of them are
        among ``slots`` (``random``) or none of them is (``discard``).

    Security
    --------
    ``bits`` of Z detections are Bob's raw key.
    """

    slots: NDArray[np.int64]
    bases: Bytes8
    bits: Bytes8
    from_slot: int
    to_slot: int
    double_slots: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    cross_slots: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return int(self.slots.size)

    @property
    def discarded_slots(self) -> NDArray[np.int64]:
        """Cross-basis slots that hold no detection."""
        if not (len(self) and self.cross_slots.size):
            return self.cross_slots
        at = np.minimum(np.searchsorted(self.slots, self.cross_slots), len(self) - 1)
        discarded: NDArray[np.int64] = self.cross_slots[self.slots[at] != self.cross_slots]
        return discarded

    @property
    def announced(self) -> int:
        """Slots that are announced: detections, and cross-basis slots without one."""
        return len(self) + int(self.discarded_slots.size)

    def between(self, from_slot: int, to_slot: int) -> Detections:
        """The part that lies in a range of slots."""

        def inside(slots: NDArray[np.int64]) -> slice:
            return slice(*np.searchsorted(slots, (from_slot, to_slot)).tolist())

        part = inside(self.slots)
        return Detections(
            self.slots[part],
            self.bases[part],
            self.bits[part],
            from_slot,
            to_slot,
            self.double_slots[inside(self.double_slots)],
            self.cross_slots[inside(self.cross_slots)],
        )

    def later(self, slot: int) -> Detections:
        """The part from a slot on; an empty batch at the end of this one if nothing of it is later."""
        return self.between(min(max(slot, self.from_slot), self.to_slot), self.to_slot)

    def pieces(self, most: int) -> list[Detections]:
        """The same as contiguous batches that announce at most ``most`` slots each."""
        if self.announced <= most:
            return [self]
        slots = np.sort(np.concatenate([self.slots, self.discarded_slots]))
        edges = [self.from_slot, *slots[most::most].tolist(), self.to_slot]
        return [self.between(*ends) for ends in pairwise(edges)]

    @classmethod
    def join(cls, parts: Sequence[Detections]) -> Detections:
        """Contiguous batches as one; at least one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([d.slots for d in parts]),
            np.concatenate([d.bases for d in parts]),
            np.concatenate([d.bits for d in parts]),
            parts[0].from_slot,
            parts[-1].to_slot,
            np.concatenate([d.double_slots for d in parts]),
            np.concatenate([d.cross_slots for d in parts]),
        )

    @classmethod
    def none(cls, from_slot: int, to_slot: int) -> Detections:
        """A range of slots without a detection."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.uint8), from_slot, to_slot)

    def __repr__(self) -> str:
        return f"Detections({len(self)} in slots {self.from_slot}..{self.to_slot})"


@dataclass(frozen=True, slots=True)
class ReconciledKey:
    """The sifted key after error correction, failed frames removed: probably, not yet provably, equal."""

    block_id: int
    bits: KeyBits
    leak_ec_bits: int
    frames: int
    frames_failed: int


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A reconciled key whose universal hash agreed at both ends: equal but for ``eps_cor``.

    Only :mod:`common.postprocessing.verification` makes one; amplification accepts nothing else.
    """

    block_id: int
    bits: KeyBits
    leak_ec_bits: int
    leak_verify_bits: int


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Amplified key of one block: uniform but for ``eps_sec``; whole bytes."""

    block_id: int
    bits: KeyBits
    simulated: bool
