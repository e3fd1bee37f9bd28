"""Constants that were fitted to the codes and the decoder, in one table, each with the measurement behind it.

Whoever changes codes or decoder measures again: ``python -m tests.statistical.frame_error_curves`` tells from which f
on frames decode, ``qkd bench reconcile`` what is disclosed and how fast. f is what is disclosed over n h(QBER).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from common.security.bounds import binary_entropy

Efficiency = Literal["efficient", "balanced", "fast"]
"""What a frame is made for: fewest bits, a compromise, or least work."""

# -- what is disclosed ------------------------------------------------------------------------------------------------

QBER_RANGE = (0.003, 0.11)
"""Error rates that the code table serves: its lightest and its heaviest code."""


def median_efficiency(qber: float) -> float:
    """f from which on half of the frames of 2^18 bits decode, and 0.012 more, so that fewer take a second round.

    Measured at 1 to 8 %, one power law through the points.
    """
    return 1.060 + 0.037 * math.pow(0.01 / qber, 1.2)


LONG_BITS, LONG = 1 << 19, 0.993
"""Frames longer than this decode from 0.7 % less on. Measured with 2^20 bits at 2.5 %: f 1.076 with a start 1 % lower,
at half of the speed, 1.083 with the same start."""


@dataclass(frozen=True)
class Start:
    """Bits that are disclosed, in units of n h.

    Parameters
    ----------
    margin, first : the first message has :func:`median_efficiency` times ``margin``, and ``first`` deviations more of
        the number of errors from frame to frame.
    step : the second message adds this many deviations, of the frame and of the expected rate together.
    """

    margin: float
    first: float
    step: float


STARTS: dict[Efficiency, Start] = {
    "efficient": Start(1.0, 0.1, 1.15),
    "balanced": Start(1.006, 1.3, 1.3),
    "fast": Start(1.026, 2.0, 2.0),
}
"""Measured with everything counted, frames of 2^18 bits at 2.5 %: f 1.079 (efficient, 306 frames, 4.5 Mbit/s) and 1.123
(fast, 9.3 Mbit/s). Efficient at 1, 5 and 8 %: 1.115, 1.067, 1.064."""
THIRD_STEP = 2
"""The third message splits this many times as many checks as the second; the fourth, all, is for one frame in a
thousand."""
LAST, LAST_UNSURE = 4.5, 0.12
"""Deviations (of the frame and of the expected rate, root of squares) that all messages together serve: an undecoded
frame costs as much as six decoded ones disclose. Where the rate is hardly known, that would double what is disclosed at
once: beyond this share of n h its deviation counts twice only. In exchanges of seven frames of 2^16 bits that start
from nothing, both together cost f 0.007 to 0.009."""
MORE, SHORT = 0.035, 8.0
"""All messages together serve as much more, at least, and short frames this over the root of their length. Of 3486
frames of 2^18 bits (2.5 %, rate estimated) none was lost."""

# -- work -------------------------------------------------------------------------------------------------------------

ITERATIONS = (120, 120, 150, 200)
"""Of the decoder, by round: frames of 2^18 bits take 25 (fast) or 63 (efficient) on average in the first."""
WORK: dict[Efficiency, float] = {"efficient": 2.1, "balanced": 1.5, "fast": 1.0}
"""What a bit costs the decoder, in units of a fast one (measured at 2 and 3 %, frames of 2^18 bits)."""

# -- what is believed of the error rate -------------------------------------------------------------------------------

EXPECTED_EFFICIENCY, FAILED_EFFICIENCY, MOST_CHECKS = 1.09, 1.05, 0.97
"""What the first message has was meant for the error rate at which it is this many times n h; what did not decode with
all its checks has probably more errors than checks of this many times n h serve. h is taken as at most the third."""
INITIAL_BITS, LONG_MEMORY_BITS, SHORT_MEMORY_BITS = 1 << 11, 1 << 22, 1 << 17
"""Bits that a first guess is worth, and bits over which the two averages of the tracker look back. At 2.5 % the long
one rests on 1e5 errors and knows the rate to 0.3 %, the short one on 3300 and to 1.7 %."""
SURPRISE = 3.5
"""Standard deviations, of a frame or of the short average, at which the long average starts again: by chance once in
two thousand frames."""
SETTLED = 0.012
"""Relative uncertainty of the error rate below which all frames of a window may begin. At 2.5 % it is 0.0094 in f: as
much as frames of 2^18 bits differ by themselves (0.0096)."""
WINDOWS_AHEAD = 2
"""Windows that wait for their first frames at the same time where bits are spent to save time. One alone leaves cores
without work, and each more is a frame that may be lost when the rate jumps: simulated with 40 windows of four frames
and round trips of 2 ms, 1, 2 and 4 of them take 4.3, 3.75 and 3.8 s on two cores, and a jump from 2 to 3.5 % costs 2, 3
and 5 frames."""


def inverse_entropy(h: float) -> float:
    """The error rate below 1/2 whose binary entropy is ``h``."""
    low, high = 1e-6, 0.5
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if binary_entropy(middle) < h else (low, middle)
    return low
