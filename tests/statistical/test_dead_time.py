"""What announced slots tell about the bits where a detector is blind after its own click, and with a dead time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bob.gating import Gate
from common.planning.presets import PRESETS
from common.units import PS_PER_S
from hardware.twin.physics import Receiver, TaggerClock

N_WORDS = 1 << 16
LINK = replace(PRESETS["lab-0.17dB"], dead_time_ps=40_000)
"""Each detector is blind for 40 ns, three slots, after its own click."""


class Slots:
    """Alice's clock without a search for it."""

    origin_ps, origin_slot, phase = 0, 0, 0.0
    slots_per_ps = LINK.clock_rate_hz / PS_PER_S


def told(dead_time_ps: int) -> tuple[float, float]:
    """Bits about each Z bit that the gap to its neighbour tells, and what chance would make of so many pairs."""
    rng = np.random.default_rng(1)
    light = Receiver(LINK, (), TaggerClock(0, 0.0, 0.0, 0.0, rng), np.random.SeedSequence(1))
    basis, bit = np.zeros(N_WORDS, np.uint64), rng.integers(0, 1 << 64, N_WORDS, dtype=np.uint64)
    times, channels, _ = light.light(basis, bit, np.zeros((0, N_WORDS), np.uint64))
    half = 0.5 * LINK.gate_ps * LINK.clock_rate_hz / PS_PER_S
    gate = Gate(half, dead_time_ps, lambda n: rng.integers(0, 2, n, dtype=np.uint8), "discard")
    found = gate.resolve(gate.sort(times, channels, Slots()), 0, 64 * N_WORDS)  # type: ignore[arg-type]
    slots, bits = found.slots[found.bases == 0], found.bits[found.bases == 0]
    gaps, differ = np.diff(slots), bits[1:] ^ bits[:-1]
    share = bits.mean()
    expected = 2.0 * share * (1.0 - share)
    bits_told = chance = 0.0
    for gap in range(1, 9):
        of_gap = differ[gaps == gap]
        if of_gap.size:
            p = float(of_gap.mean())
            entropy = 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)
            at_most = -expected * math.log2(expected) - (1 - expected) * math.log2(1 - expected)
            bits_told += of_gap.size * (at_most - entropy)
            chance += 12.5 / math.log(2)  # five standard deviations: n times the relative entropy is 5^2 / 2 nats
    return float(bits_told) / slots.size, chance / slots.size


@pytest.mark.parametrize(("dead_time_ps", "public"), [(0, True), (13_000, True), (40_000, False)])
def test_a_dead_time_as_long_as_the_recovery_hides_which_detector_was_blind(dead_time_ps: int, public: bool) -> None:
    bits, chance = told(dead_time_ps)
    if dead_time_ps == 0:
        assert bits > 0.12, "an eighth of every sifted bit"
    assert (bits > 10.0 * chance) is public
    assert public or bits < chance
