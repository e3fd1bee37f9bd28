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
from numpy.typing import NDArray
from scipy.special import bdtrc

from common.errors import DeviceError
from common.kernels.health import ANCHOR_BYTES, LONG_RUN, STATE_SIZE, WINDOW_BYTES, scan

FALSE_ALARM_YEARS = 100.0
SECONDS_PER_YEAR = 365.25 * 86400.0
FIRST_ANCHOR_LIFE_BYTES = 1 << 12
LAST_ANCHOR_LIFE_BYTES = 1 << 30
PIECE_BYTES = 1 << 18
"""Tested at once: it stays in the processor's cache."""


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


def compile_tests() -> None:
    """Have the kernel ready: a first start compiles it, which takes longer than a source may be silent."""
    HealthTests(1.0).check(np.arange(256, dtype=np.uint8))


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
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._tail = b""
        self._anchor = np.frombuffer(b"", np.uint8)
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
            piece.flags.writeable = False  # as some drivers' bytes are anyway: the kernel is compiled once
            run, alike, known = scan(piece, self._anchor, self._state, self.repetition_cutoff < LONG_RUN)
            if run >= self.repetition_cutoff:
                raise RandomAlarm(f"random source: {self.repetition_cutoff} equal bytes in a row")
            if alike >= self.proportion_cutoff:
                raise RandomAlarm(f"random source: one byte value {alike} times in {WINDOW_BYTES} bytes")
            self._exact_repetition(piece, known=known)

    def _exact_repetition(self, piece: NDArray[np.uint8], *, known: bool) -> None:
        across = self._tail + piece[: ANCHOR_BYTES - 1].tobytes()
        self._anchor_age += piece.size
        if known or (self._anchor.size and self._anchor.tobytes() in across):
            raise RandomAlarm(f"random source: it repeats itself after at most {self._anchor_age} bytes")
        last = (self._tail + piece[-ANCHOR_BYTES:].tobytes())[-ANCHOR_BYTES:]
        self._tail = last[1:] if len(last) == ANCHOR_BYTES else last
        if self._anchor.size and self._anchor_age >= self._anchor_life:
            again = self._anchor_life >= LAST_ANCHOR_LIFE_BYTES
            self._anchor_life = FIRST_ANCHOR_LIFE_BYTES if again else 2 * self._anchor_life
            self._anchor = self._anchor[:0]
        if not self._anchor.size and len(last) == ANCHOR_BYTES:
            self._anchor, self._anchor_age = np.frombuffer(last, np.uint8), 0
