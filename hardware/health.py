"""Continuous health tests of random bytes: repetition count, adaptive proportion, exact repetition.

The first two are those of NIST SP 800-90B, 4.4.1 and 4.4.2, on bytes, for a stated min-entropy a byte. Their cutoffs
come from the rate at which bytes are drawn: over ``FALSE_ALARM_YEARS`` a sound source raises one false alarm in the
mean. SP 800-90B wants the raw noise tested, before any conditioning: a driver that can read it has ``raw_noise``
(see :class:`hardware.interfaces.RandomSource`); of the others the output is tested, which finds a source that is dead,
stuck or repeats itself, but none that a conditioner hides.

The third test is ours: a run of ``ANCHOR_BYTES`` bytes of the stream is remembered and must not come again. It is
taken anew after 2^12 bytes, then after twice as many, up to 2^30, then from the beginning (Brent's way to find a
cycle): a source that plays in a circle of up to 2^30 bytes is found one turn after the next anchor.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import bdtrc

from common.errors import DeviceError

FALSE_ALARM_YEARS = 100.0
SECONDS_PER_YEAR = 365.25 * 86400.0
WINDOW_BYTES = 512
"""SP 800-90B, 4.4.2: the window of a source whose samples are not binary."""
ANCHOR_BYTES = 16
"""A chance of 2^-128 a byte: no false alarm in the life of any device."""
FIRST_ANCHOR_LIFE_BYTES = 1 << 12
LAST_ANCHOR_LIFE_BYTES = 1 << 30
PIECE_BYTES = 1 << 18
"""Tested at once: it stays in the processor's cache."""


HINT_BYTES = 4
"""What the fast look over all bytes compares; a sound source gives a hint once in 2^24 bytes, then the test is made."""


@njit(cache=True, nogil=True)
def hints(data: NDArray[np.uint8], anchor: NDArray[np.uint8]) -> tuple[bool, bool]:  # pragma: no cover - compiled
    """Where a test could fail at all: whether ``HINT_BYTES`` equal bytes, whether the anchor's first are anywhere.

    Parameters
    ----------
    data : *(n,) uint8*; anchor : *(HINT_BYTES,) uint8*.

    Notes
    -----
    The smallest difference instead of a count: processors find it for 64 bytes at once.
    """
    first, second, third, fourth = data[:-3], data[1:-2], data[2:-1], data[3:]
    p, q, r, s = anchor[0], anchor[1], anchor[2], anchor[3]
    unlike = unknown = np.uint8(255)
    for i in range(first.size):
        a, b, c, d = first[i], second[i], third[i], fourth[i]
        unlike = min(unlike, np.uint8((a ^ b) | (b ^ c) | (c ^ d)))
        unknown = min(unknown, np.uint8((a ^ p) | (b ^ q) | (c ^ r) | (d ^ s)))
    return unlike == 0, unknown == 0


@njit(cache=True, nogil=True)
def most_like_first(windows: NDArray[np.uint8]) -> int:  # pragma: no cover - compiled
    """The largest number of bytes in a window that are as its first; ``windows`` : *(n, WINDOW_BYTES) uint8*."""
    most = 0
    for i in range(windows.shape[0]):
        first, count = windows[i, 0], 0
        for j in range(windows.shape[1]):
            count += windows[i, j] == first
        most = max(most, count)
    return most


class RandomAlarm(DeviceError):
    """A health test failed: the bytes that it saw are not to be used."""


def repetition_cutoff(alpha: float, entropy_bits: float) -> int:
    """Equal bytes in a row that are an alarm: P(a run begins at a given byte) <= ``alpha``."""
    return 1 + math.ceil(-math.log2(alpha) / entropy_bits)


def proportion_cutoff(alpha: float, entropy_bits: float) -> int:
    """How often a window may not show its first byte: P(so often in a given window) <= ``alpha``."""
    p = 2.0**-entropy_bits
    others = WINDOW_BYTES - 1
    return next((c for c in range(2, WINDOW_BYTES + 1) if bdtrc(c - 2, others, p) <= alpha), WINDOW_BYTES + 1)


class HealthTests:
    """The three tests over one stream; what straddles two calls is tested too.

    Parameters
    ----------
    bytes_per_s : rate at which bytes are drawn; half of the false alarms are allowed to each of the first two tests.
    entropy_bits : min-entropy of a byte, 0 < H <= 8.
    """

    def __init__(self, bytes_per_s: float, entropy_bits: float = 8.0) -> None:
        alpha = 0.5 / (max(bytes_per_s, 1.0) * FALSE_ALARM_YEARS * SECONDS_PER_YEAR)
        self.repetition_cutoff = repetition_cutoff(alpha, entropy_bits)
        self.proportion_cutoff = proportion_cutoff(min(alpha * WINDOW_BYTES, 0.5), entropy_bits)
        self.restart()

    def restart(self) -> None:
        """Forget the stream so far."""
        self._tail = np.zeros(0, np.uint8)
        self._window = np.zeros(0, np.uint8)
        self._anchor = b""
        self._anchor_age, self._anchor_life = 0, FIRST_ANCHOR_LIFE_BYTES

    def check(self, fresh: NDArray[np.uint8]) -> None:
        """Test the next bytes of the stream.

        Raises
        ------
        RandomAlarm
            Names the test that failed.
        """
        for at in range(0, fresh.size, PIECE_BYTES):
            piece = fresh[at : at + PIECE_BYTES]
            tail = max(self.repetition_cutoff, ANCHOR_BYTES) - 1
            joined = np.concatenate([self._tail, piece])
            anchor = np.frombuffer(self._anchor or bytes(HINT_BYTES), np.uint8)
            alike, known = hints(joined, anchor[:HINT_BYTES])
            if alike or self.repetition_cutoff < HINT_BYTES:
                self._repetition(joined)
            self._exact_repetition(joined, piece.size, known=known)
            self._proportion(piece)
            self._tail = joined[-tail:].copy()

    def _repetition(self, joined: NDArray[np.uint8]) -> None:
        runs = joined[1:] == joined[:-1]
        length = 1  # runs[i]: the `length` + 1 bytes from i on are equal
        while runs.size and runs.any():
            if length == self.repetition_cutoff - 1:
                raise RandomAlarm(f"random source: {self.repetition_cutoff} equal bytes in a row")
            step = min(length, self.repetition_cutoff - 1 - length)
            runs = runs[step:] & runs[:-step] if runs.size > step else runs[:0]
            length += step

    def _proportion(self, piece: NDArray[np.uint8]) -> None:
        stream = np.concatenate([self._window, piece]) if self._window.size else piece
        windows = stream[: stream.size // WINDOW_BYTES * WINDOW_BYTES].reshape(-1, WINDOW_BYTES)
        most = int(most_like_first(windows))
        if most >= self.proportion_cutoff:
            raise RandomAlarm(f"random source: one byte value {most} times in {WINDOW_BYTES} bytes")
        self._window = stream[windows.size :].copy()

    def _exact_repetition(self, joined: NDArray[np.uint8], n_fresh: int, *, known: bool) -> None:
        text = joined[-min(n_fresh + ANCHOR_BYTES - 1, joined.size) :]
        if self._anchor and known and self._anchor in text.tobytes():
            raise RandomAlarm(f"random source: it repeats itself after at most {self._anchor_age + n_fresh} bytes")
        self._anchor_age += n_fresh
        if text.size < ANCHOR_BYTES:
            return
        if self._anchor and self._anchor_age >= self._anchor_life:
            again = self._anchor_life >= LAST_ANCHOR_LIFE_BYTES
            self._anchor, self._anchor_life = b"", FIRST_ANCHOR_LIFE_BYTES if again else 2 * self._anchor_life
        if not self._anchor:
            self._anchor, self._anchor_age = text[-ANCHOR_BYTES:].tobytes(), 0
