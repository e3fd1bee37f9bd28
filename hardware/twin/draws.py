"""The twin's own random numbers, fast enough for 10^7 clicks a second: integers first, no logarithm on the usual path.

Generator: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): word ``i`` of a stream is ``mix(seed + i * GOLDEN)``, the whole
state is one counter. Gaps between candidate slots: Walker's alias method (Vose, IEEE TSE 1991) on a geometric
distribution cut at ``LONGEST_GAP``, whose last outcome means "that many empty slots, draw again": exactly memoryless.
Normal numbers: Marsaglia and Tsang's ziggurat (J. Stat. Softw. 2000), 256 layers; layer, sign and abscissa from bits
of their own. Probabilities are rounded to 2^-56 (gaps) and 2^-64 (the rest). The slow twins are in ``reference.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)

LONGEST_GAP = 255
"""Outcomes 0 .. 254 are that many empty slots before a candidate; 255 is 255 empty slots and no candidate yet."""
GAP_BITS = 8
_ALIAS_SCALE = 1 << (64 - GAP_BITS)

LAYERS = 256
TAIL = 3.6541528853610088
"""Where the lowest layer's tail begins for 256 layers of equal area (ours, from the recursion; checked by a test)."""
_MANTISSA_BITS = 55
_UNIT = 2.0**-53


@njit(cache=True, nogil=True)
def mix(counter: np.uint64) -> np.uint64:
    """The generator's word that belongs to a counter."""
    z = (counter ^ (counter >> _S30)) * _MIX_A
    z = (z ^ (z >> _S27)) * _MIX_B
    return z ^ (z >> _S31)


@njit(cache=True, nogil=True)
def unit(word: np.uint64) -> float:
    """A word as a number in (0, 1]."""
    return (np.float64(word >> np.uint64(11)) + 1.0) * _UNIT


def threshold(probability: float) -> int:
    """``word < threshold`` has this probability, to 2^-64."""
    return min(max(round(math.ldexp(probability, 64)), 0), (1 << 64) - 1)


def gap_tables(probability: float) -> tuple[Words, NDArray[np.int64]]:
    """Alias tables for the number of empty slots before a candidate that comes with ``probability`` a slot.

    Returns
    -------
    (thresholds *(256,) uint64* for the upper 56 bits of a word, from each row to its alias *(256,) int64*); the lower
    8 bits choose the row.
    """
    empty = math.log1p(-probability) if probability < 1.0 else -math.inf
    chances = [probability * math.exp(gap * empty) if gap else probability for gap in range(LONGEST_GAP)]
    chances.append(math.exp(LONGEST_GAP * empty))
    scale = (LONGEST_GAP + 1) / math.fsum(chances)
    height = [chance * scale for chance in chances]
    low = [row for row, value in enumerate(height) if value < 1.0]
    high = [row for row, value in enumerate(height) if value >= 1.0]
    cut, alias = [1.0] * (LONGEST_GAP + 1), list(range(LONGEST_GAP + 1))
    while low and high:
        small, large = low.pop(), high[-1]
        cut[small], alias[small] = height[small], large
        height[large] -= 1.0 - height[small]
        if height[large] < 1.0:
            low.append(high.pop())
    rows = [min(round(value * _ALIAS_SCALE), _ALIAS_SCALE) for value in cut]
    return np.array(rows, np.uint64), np.array(alias, np.int64) - np.arange(LONGEST_GAP + 1)


def normal_tables() -> tuple[Words, Floats, Floats]:
    """The ziggurat: per layer the mantissas that need no second look, the width of a mantissa step, the heights.

    Returns
    -------
    (sure *(256,) uint64*, step *(256,) float64*, height *(257,) float64*)
    """
    density = math.exp(-0.5 * TAIL**2)
    area = TAIL * density + math.sqrt(math.pi / 2.0) * math.erfc(TAIL / math.sqrt(2.0))
    edges = [area / density, TAIL]
    while len(edges) < LAYERS:
        edges.append(math.sqrt(-2.0 * math.log(area / edges[-1] + math.exp(-0.5 * edges[-1] ** 2))))
    edges.append(0.0)
    scale = float(1 << _MANTISSA_BITS)
    sure = np.array([int(scale * edges[i + 1] / edges[i]) for i in range(LAYERS)], np.uint64)
    step = np.array([edge / scale for edge in edges[:LAYERS]])
    height = np.array([math.exp(-0.5 * edge**2) for edge in edges])
    return sure, step, height


@njit(cache=True, nogil=True)
def rare_normal(word: np.uint64, sure: Words, step: Floats, height: Floats) -> float:  # pragma: no cover - compiled
    """Size of a normal number whose word needs a second look (the wedge of a layer, or the tail); it is the counter.

    Notes
    -----
    The usual look is written out where it is needed: numba counts references of arrays that pass through inner
    functions, which costs more than the look. Bits 0..7: layer; 8: sign; 9..63: abscissa in steps of the layer.
    """
    counter = word
    while True:
        layer, mantissa = np.int64(word & np.uint64(LAYERS - 1)), word >> np.uint64(9)
        x: float = np.float64(np.int64(mantissa)) * step[layer]
        if mantissa < sure[layer]:
            return x
        if layer == 0:
            while True:
                beyond = -math.log(unit(mix(counter + GOLDEN))) / TAIL
                counter += GOLDEN + GOLDEN
                if -2.0 * math.log(unit(mix(counter))) > beyond * beyond:
                    return TAIL + beyond
        y = height[layer] + unit(mix(counter + GOLDEN)) * (height[layer + 1] - height[layer])
        if y < math.exp(-0.5 * x * x):
            return x
        counter += GOLDEN + GOLDEN
        word = mix(counter)
