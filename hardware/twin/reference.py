"""The slow, obviously correct twins of the twin's own kernels. Plain Python integers and lists on purpose."""

from __future__ import annotations

import math
from collections.abc import Sequence

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def mix(counter: int) -> int:
    """SplitMix64's word of a counter."""
    z = counter & _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    return z ^ (z >> 31)


def _unit(word: int) -> float:
    return ((word >> 11) + 1) / 2.0**53


def normal(word: int, sure: Sequence[int], step: Sequence[float], height: Sequence[float], tail: float) -> float:
    """The standard normal number that belongs to a word."""
    counter, sign = word, -1.0 if word >> 8 & 1 else 1.0
    while True:
        layer, mantissa = word % 256, word >> 9
        x = mantissa * step[layer]
        if mantissa < sure[layer]:
            return sign * x
        while layer == 0:
            beyond = -math.log(_unit(mix(counter + _GOLDEN))) / tail
            counter += 2 * _GOLDEN
            if -2.0 * math.log(_unit(mix(counter))) > beyond * beyond:
                return sign * (tail + beyond)
        y = height[layer] + _unit(mix(counter + _GOLDEN)) * (height[layer + 1] - height[layer])
        if y < math.exp(-0.5 * x * x):
            return sign * x
        counter += 2 * _GOLDEN
        word = mix(counter)


def put_on_clock(
    clicks: Sequence[tuple[float, int]], held: Sequence[tuple[int, int]], part_ps: float, rate: float, start_ps: int
) -> list[tuple[int, int]]:
    """(time, detector) on Bob's clock, ascending; equal times keep their order."""
    read = [(start_ps + math.floor(part_ps + time * rate), channel) for time, channel in clicks]
    return sorted([*held, *read], key=lambda click: click[0])


def record(
    clicks: Sequence[tuple[int, int]], recovery_ps: int, last: list[int], grid_ps: int, resolution_ps: float
) -> list[tuple[int, int]]:
    """Clicks of detectors that have recovered, each at the lower edge of its time bin."""
    kept = []
    for time, channel in clicks:
        if time - last[channel] >= recovery_ps:
            last[channel] = time
            edge = math.floor((time - grid_ps) / resolution_ps) * resolution_ps
            kept.append((grid_ps + math.floor(edge), channel))
    return kept
