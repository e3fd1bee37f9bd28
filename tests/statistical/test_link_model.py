"""What the planner expects is what the twin and Bob's gate give: counts within five standard deviations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bob.gating import Gate
from common.planning.link_model import ReceiverRules, click_patterns, expected_block
from common.planning.presets import PRESETS, LinkParameters
from common.security.tallies import ProtocolSettings
from common.units import PS_PER_S
from hardware.twin.physics import Receiver, TaggerClock

N_WORDS = 1 << 15
N_SLOTS = 64 * N_WORDS
SIGMAS = 5.0
BRIGHT = replace(PRESETS["lab-0.17dB"], loss_db=0.0, receiver_efficiency=1.0, detector_efficiency=1.0)


class PerfectClock:
    """The twin's slots without a search for them."""

    origin_ps, origin_slot, phase = 0, 0, 0.0

    def __init__(self, link: LinkParameters) -> None:
        self.slots_per_ps = link.clock_rate_hz / PS_PER_S


def random_planes(rng: np.random.Generator, p_one: float) -> np.ndarray:
    bits = (rng.random(N_SLOTS) < p_one).astype(np.uint8)
    return np.packbits(bits, bitorder="little").view(np.uint64)


def simulate(
    link: LinkParameters, settings: ProtocolSettings, rules: ReceiverRules, rng: np.random.Generator
) -> tuple[np.ndarray, int, int]:
    """*(levels, 4, 4)* counts of (intensity, symbol, outcome), doubles, cross-basis slots."""
    x, bit = random_planes(rng, 1.0 - settings.p_z_alice), random_planes(rng, 0.5)
    if settings.protocol == "three-state":
        bit &= ~x
    levels = rng.choice(max(len(settings.p_intensities), 1), N_SLOTS, p=settings.p_intensities or None)
    planes = [np.packbits((levels >> i & 1).astype(np.uint8), bitorder="little").view(np.uint64) for i in (0, 1)]
    intensity = np.array(planes) if settings.intensities else np.zeros((0, N_WORDS), np.uint64)
    clock = TaggerClock(0, 0.0, 0.0, 0.0, np.random.default_rng(1))
    made = Receiver(link, settings.intensities, clock, np.random.SeedSequence(int(rng.integers(1 << 30))))
    times, channels, _ = made.light(x, bit, intensity)
    half = 0.5 * link.gate_ps * link.clock_rate_hz / PS_PER_S
    gate = Gate(half, rules.dead_time_ps, lambda n: rng.integers(0, 2, n).astype(np.uint8), rules.cross_basis)
    perfect = PerfectClock(link)
    gated = gate.sort(times, channels, perfect)  # type: ignore[arg-type]
    found = gate.resolve(gated, 0, N_SLOTS)
    doubles, crossed = found.double_slots.size, found.cross_slots.size
    inside = (found.slots >= 0) & (found.slots < N_SLOTS)
    slots, outcomes = found.slots[inside], 2 * found.bases[inside] + found.bits[inside]
    sent = 2 * unpacked(x)[slots] + unpacked(bit)[slots]
    table = np.zeros((max(len(settings.intensities), 1), 4, 4), int)
    np.add.at(table, (levels[slots], sent, outcomes), 1)
    return table, doubles, crossed


def unpacked(plane: np.ndarray) -> np.ndarray:
    return np.unpackbits(plane.view(np.uint8), bitorder="little").astype(int)


def close(found: float, mean: float, what: str) -> None:
    assert abs(found - mean) <= SIGMAS * math.sqrt(mean) + 1.0, f"{what}: {found} instead of {mean:.1f}"


THREE = ProtocolSettings("three-state", 0.8, 0.9)
FOUR = ProtocolSettings("bb84", 0.7, 0.6)
DECOY = ProtocolSettings("decoy-bb84", 0.75, 0.8, (0.8, 0.3, 0.0), (0.5, 0.3, 0.2))
# Without recovery: that a dark count blinds its detector for a photon of the next slot is left out (0.4 % here).
NOISY = replace(BRIGHT, dark_rate_cps=3e6, g2=0.3, mean_photon_number=0.8, dead_time_ps=0)


@pytest.mark.parametrize(
    ("link", "settings", "rules"),
    [
        (PRESETS["lab-0.17dB"], THREE, ReceiverRules()),
        (PRESETS["lab-5.11dB"], FOUR, ReceiverRules()),
        (PRESETS["lab-0.17dB"], DECOY, ReceiverRules()),
        (PRESETS["lab-0.17dB"], DECOY, ReceiverRules(0, "random")),
        (NOISY, FOUR, ReceiverRules(0, "random")),
        (BRIGHT, THREE, ReceiverRules(30_000)),
        (replace(BRIGHT, jitter_ps=1000.0, gate_ps=2000.0, dead_time_ps=5_000), FOUR, ReceiverRules()),
    ],
    ids=["0.17dB", "5.11dB", "decoy", "decoy, random", "doubles and darks", "dead time", "narrow gate"],
)
def test_the_twin_gives_the_expected_tallies(
    link: LinkParameters, settings: ProtocolSettings, rules: ReceiverRules, rng: np.random.Generator
) -> None:
    table, doubles, crossed = simulate(link, settings, rules, rng)
    expected = expected_block(link, settings, 1e9, rules)
    scale = N_SLOTS / expected.tallies.slots_sent
    close(table.sum(), 1e9 * scale, "detections")
    for level in range(table.shape[0]):
        n_z = table[level, :2, :2].sum()
        close(n_z, expected.tallies.n_z[level] * scale, f"n_z of level {level}")
        for symbol in range(4):
            for outcome in (0, 1):
                mean = expected.tallies.x_counts[level][symbol][outcome] * scale
                close(table[level, symbol, 2 + outcome], mean, f"x_counts[{level}][{symbol}][{outcome}]")
    n_z, wrong = table[:, :2, :2].sum(), table[:, 0, 1].sum() + table[:, 1, 0].sum()
    close(wrong, expected.qber * n_z, "errors")
    close(doubles, expected.double_probability * N_SLOTS, "doubles")
    close(crossed, expected.cross_probability * N_SLOTS, "cross-basis")


def test_recovery_over_several_slots_is_a_good_approximation(rng: np.random.Generator) -> None:
    link = replace(PRESETS["lab-0.17dB"], dead_time_ps=40_000)
    for rules in (ReceiverRules(), ReceiverRules(40_000)):
        table, _, _ = simulate(link, THREE, rules, rng)
        probability = expected_block(link, THREE, 1e6, rules).detection_probability
        assert table.sum() / N_SLOTS == pytest.approx(probability, rel=0.01)


def test_patterns_are_a_distribution() -> None:
    p_sent = np.array([[0.4, 0.4, 0.2, 0.0]])
    patterns = click_patterns(NOISY, THREE, p_sent, ReceiverRules())
    assert np.all(patterns >= 0.0)
    assert np.all(patterns.sum(axis=2) < 1.0)
