"""The slow, obviously correct twins of `decoders.py`. Plain Python on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hardware.formats import decoders


def first_descent(times_ps: Sequence[int], floor_ps: int) -> int:
    """Index of the first time below its predecessor, or -1."""
    before = [floor_ps, *times_ps]
    return next((i for i, time in enumerate(times_ps) if time < before[i]), -1)


def keep_ascending(times_ps: Sequence[int], channels: Sequence[int], floor_ps: int) -> list[tuple[int, int]]:
    """The tags that are not below any earlier one."""
    pairs = zip(times_ps, channels, strict=True)
    return [(t, c) for i, (t, c) in enumerate(pairs) if t >= max([floor_ps, *times_ps[:i]])]


def decode_hydraharp_t2(
    records: Sequence[int], wrap: int, counted: bool, scale_ps: int
) -> tuple[list[tuple[int, int]], int, int, list[int]]:
    """(time, channel) of every tag; overflows; markers; indices of illegal records."""
    tags, overflows, markers, illegal = [], 0, 0, []
    for index, record in enumerate(records):
        special, channel, time = record >> 31, record >> 25 & 0b111111, record & 0x1FFFFFF
        if not special:
            tags.append(((overflows * wrap + time) * scale_ps, channel + 1))
        elif channel == 0:
            tags.append(((overflows * wrap + time) * scale_ps, 0))
        elif channel == 63:
            overflows += time if counted and time > 0 else 1
        elif channel <= 15:
            markers += 1
        else:
            illegal.append(index)
    return tags, overflows, markers, illegal


def decode_picoharp_t2(records: Sequence[int], scale_ps: int) -> tuple[list[tuple[int, int]], int, int, list[int]]:
    """As :func:`decode_hydraharp_t2`, for the PicoHarp 300."""
    tags, overflows, markers, illegal = [], 0, 0, []
    for index, record in enumerate(records):
        channel, time = record >> 28, record & 0xFFFFFFF
        if channel == 15 and time & 0b1111 == 0:
            overflows += 1
        elif channel == 15:
            markers += 1
        elif channel <= 4:
            tags.append(((overflows * decoders.PICOHARP_WRAP + time) * scale_ps, channel))
        else:
            illegal.append(index)
    return tags, overflows, markers, illegal


def decode_a1(events: Sequence[int]) -> list[tuple[int, int]]:
    """(time, detector) of every click of 64-bit events; times rounded to ps."""
    tags, turns, last = [], 0, 0
    for event in events:
        if event & 16:
            continue
        units = event >> 10
        turns += last - units > 1 << 53
        last = units
        time_ps = Fraction((turns * 2**54 + units) * 1000, 256)
        tags += [(int(time_ps + Fraction(1, 2)), detector) for detector in range(4) if event >> detector & 1]
    return tags
