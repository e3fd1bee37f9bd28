"""The one counter of what error correction tells about the key: every bit that either end says of it."""

from __future__ import annotations

from collections import Counter

RESULT_BITS = 24
"""What the correcting end says of a frame after every round (status, error rate) depends on the key: disclosed."""


class DisclosedBits:
    """Counts the disclosed bits of one block, by frame; both ends count the same.

    Security
    --------
    ``total`` is what privacy amplification takes off (leak_ec_bits). Whoever makes or takes a payload that depends on
    the key counts it here, before anything else is done with it.
    """

    def __init__(self) -> None:
        self._bits: Counter[int] = Counter()

    def parities(self, frame: int, payload: bytes) -> None:
        """The reference end's word: every bit of the payload."""
        self._bits[frame] += 8 * len(payload)

    def result(self, frame: int) -> None:
        """The correcting end's word after a round."""
        self._bits[frame] += RESULT_BITS

    def dropped(self, frame: int, n_bits: int) -> None:
        """The frame never decoded: it counts in full, if not more was said of it."""
        self._bits[frame] = max(self._bits[frame], n_bits)

    def of(self, frame: int) -> int:
        """The disclosed bits of one frame."""
        return self._bits[frame]

    @property
    def total(self) -> int:
        """Of the block so far."""
        return self._bits.total()
