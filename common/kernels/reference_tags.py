"""The slow, obviously correct twins of the kernels in tags, varint, sift and correlation. Plain Python on purpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from common.kernels.click_rule import COIN, DROP, RULES, CrossBasis


def correct_skew(times_ps: Sequence[int], channels: Sequence[int], skew_ps: Sequence[int]) -> list[tuple[int, int]]:
    """(time, channel) without skew, in the order of time; equal times keep their order."""
    return sorted(((t - skew_ps[c], c) for t, c in zip(times_ps, channels, strict=True)), key=lambda click: click[0])


def gate(
    times_ps: Sequence[int],
    channels: Sequence[int],
    origin_ps: int,
    origin_slot: int,
    origin_phase: float,
    slots_per_ps: float,
    half_gate: float,
    dead_time_ps: int,
) -> tuple[list[tuple[int, set[int]]], int, int]:
    """Entries (slot, detectors that clicked), clicks outside the gate, clicks blanked."""
    entries: list[tuple[int, set[int]]] = []
    outside = blanked = 0
    last_ps: int | None = None
    for time, channel in zip(times_ps, channels, strict=True):
        position = origin_phase + float(time - origin_ps) * slots_per_ps
        nearest = math.floor(position + 0.5)
        dead = last_ps is not None and time - last_ps < dead_time_ps
        last_ps = time
        if abs(position - nearest) > half_gate:
            outside += 1
        elif entries and entries[-1][0] == origin_slot + nearest:
            entries[-1][1].add(channel)
        elif dead:
            blanked += 1
        else:
            entries.append((origin_slot + nearest, {channel}))
    return entries, outside, blanked


def intervals(entries: Sequence[tuple[int, set[int]]], bins: int) -> list[tuple[int, Fraction, Fraction]]:
    """(pairs, same detector less its mean, variance) by the bit length of half the gap, capped."""
    single = [(slot, *detectors) if len(detectors) == 1 else None for slot, detectors in entries]
    out = [(0, Fraction(0), Fraction(0)) for _ in range(bins)]
    for basis in (0, 1):
        own = [click[1] % 2 for click in single if click is not None and click[1] // 2 == basis]
        n = len(own)
        if n < 2:
            continue
        chance = Fraction(sum(own.count(bit) * (own.count(bit) - 1) for bit in (0, 1)), n * (n - 1))
        shares = [Fraction(own.count(bit), n) for bit in (0, 1)]
        again = sum(p**2 for p in shares)
        spread = again * (1 - again) + 2 * (sum(p**3 for p in shares) - again**2)
        for one, two in pairwise(single):
            if one is not None and two is not None and one[1] // 2 == two[1] // 2 == basis:
                at = min(((two[0] - one[0]) // 2).bit_length(), bins - 1)
                n_pairs, excess, variance = out[at]
                out[at] = (n_pairs + 1, excess + (one[1] == two[1]) - chance, variance + spread)
    return out


def resolve(
    entries: Sequence[tuple[int, set[int]]], random_bits: Sequence[int], policy: CrossBasis
) -> tuple[list[tuple[int, int, int]], list[int], list[int]]:
    """(slot, basis, bit) of each detection by the double-click rule; slots of doubles; cross-basis slots."""
    coins = iter(random_bits)
    found = []
    for slot, detectors in entries:
        basis, bit = RULES[policy][sum(1 << detector for detector in detectors)].tolist()
        if (basis, bit) != DROP:
            basis = next(coins) if basis == COIN else basis
            found.append((slot, basis, next(coins) if bit == COIN else bit))
    sides = [(slot, len(detectors), len({detector // 2 for detector in detectors})) for slot, detectors in entries]
    doubles = [slot for slot, clicks, bases_clicked in sides if (clicks, bases_clicked) == (2, 1)]
    return found, doubles, [slot for slot, _, bases_clicked in sides if bases_clicked == 2]


def encode_deltas(slots: Sequence[int], start: int) -> bytes:
    """Varints of the differences."""
    out = bytearray()
    previous = start
    for slot in slots:
        delta, previous = slot - previous, slot
        while delta > 127:
            out.append(delta % 128 + 128)
            delta //= 128
        out.append(delta)
    return bytes(out)


def copy_bits(source: Sequence[int], start: int, n_bits: int) -> list[int]:
    """``n_bits`` bits of packed bytes, one per element, from bit ``start``."""
    return [source[at // 8] >> at % 8 & 1 for at in range(start, start + n_bits)]


def down_mix(times_ps: Sequence[int], start_ps: int, rate_hz: int, bin_ps: int, bins: int) -> list[complex]:
    """Sum of exp(2 pi i f (t - start)) in each time bin, with exact phases."""
    sums = [0j] * bins
    for time in times_ps:
        cycles = float(Fraction((time - start_ps) * rate_hz, 10**12) % 1)
        if (time - start_ps) // bin_ps < bins:
            angle = 2.0 * math.pi * cycles
            sums[(time - start_ps) // bin_ps] += complex(math.cos(angle), math.sin(angle))
    return sums


def score(
    positions: Sequence[int], bits: Sequence[int], pattern: Sequence[int], first: int, last: int
) -> tuple[int, int]:
    """Agreements minus disagreements with ``pattern[first:last]``, and the number of clicks inside."""
    inside = [(p, b) for p, b in zip(positions, bits, strict=True) if first <= p < last]
    return sum(1 if pattern[p] == b else -1 for p, b in inside), len(inside)
