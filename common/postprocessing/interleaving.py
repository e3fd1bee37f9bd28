"""Cutting a window of sifted bits into frames that all see the same errors: bytes of each frame come from everywhere.

A frame is then as good as any other of its window, whatever the error rate does inside it, and one decoded frame tells
the rate of the others. Ours, decision 23.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

#: A window is about this many bits, and at least this many frames.
WINDOW_BITS = 1 << 20
_FEWEST_FRAMES = 4


def window_bits(frame_length_bits: int) -> int:
    """Length of a window on a link; a multiple of 8."""
    return frame_length_bits * max(_FEWEST_FRAMES, WINDOW_BITS // frame_length_bits) // 8 * 8


def frame_lengths(n_bits: int, frame_length_bits: int) -> list[int]:
    """Lengths of a window's frames, as equal as can be, each but the last a multiple of 8.

    None is longer than asked for: the next larger code would need ten times the work for it.
    """
    frames = -(-n_bits // frame_length_bits)
    ends = [8 * -(-n_bits * (i + 1) // (8 * frames)) for i in range(frames - 1)] + [n_bits]
    return np.diff([0, *ends]).tolist() if n_bits else []


@functools.lru_cache(maxsize=4)
def spread(n_bits: int) -> NDArray[np.int64]:
    """*(ceil(n_bits / 8),) int64*: places of the bytes in the order of the frames; a last broken byte stays last.

    Steps of the golden ratio: every stretch of the order is spread evenly over the window.
    """
    whole = n_bits // 8
    step = max(1, round(whole * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, whole) > 1:
        step += 1
    places = np.arange(whole + (n_bits % 8 > 0), dtype=np.int64)
    places[:whole] = places[:whole] * step % max(whole, 1)
    places.setflags(write=False)  # kept: nearly all windows are equally long, and this took milliseconds
    return places
