"""Whole estimations against simulated blocks whose truth is known: an eavesdropper who owns the channel and the tags.

Every block is drawn with its photon numbers and its virtual X outcomes, so the true number of untagged Z events and of
their phase errors is known. All bounds together may fail as often as their eps sum to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.security import bb84, decoy, three_state
from common.security.budget import TAILS
from common.security.finite_key import EpsilonBudget
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies

Truth = tuple[Tallies, int, int]
"""Tallies, true untagged Z events, their true phase errors."""

TRIALS = 500
EPS = 0.05
SLOTS, DECOY_SLOTS = 300_000, 20_000_000
SOURCE = SourceBounds(0.3, 0.02, phase_bits=4)
RECEIVER = ReceiverBounds(0.8, 0.8)
ERRORS = {"R": 0.02, "L": 0.05}
"""Error probability of the X states: the eavesdropper may treat them unequally."""
DETECTED = 0.06
INTENSITIES = ((0.4, 0.12, 0.002), (0.6, 0.2, 0.05))


def cells(rng: np.random.Generator, total: int, *choices: tuple[float, ...]) -> np.ndarray:
    """How many of ``total`` fall into each combination of independent choices."""
    grid = np.array(1.0)
    for choice in choices:
        grid = np.multiply.outer(grid, choice)
    return rng.multinomial(total, grid.ravel() / grid.sum()).reshape(grid.shape)


def single_photon_block(rng: np.random.Generator, settings: ProtocolSettings) -> Truth:
    """Tagged pulses always arrive, look faultless in X, and are hidden from the mismatched events."""
    three = settings.protocol == "three-state"
    pz, qz = settings.p_z_alice, settings.p_z_bob
    bases = ((pz, 1 - pz), (qz, 1 - qz))
    tagged_slots = int(rng.binomial(SLOTS, SOURCE.p_multi))
    tagged = cells(rng, tagged_slots, *bases)
    sent_l = 0.0 if three else 0.5
    n_u = n_ph = 0
    x = np.zeros((4, 2), int)
    free = cells(rng, SLOTS - tagged_slots, *bases)
    for in_z in (True, False):
        left_share = 0.5 if in_z else sent_l
        for bob_z in (True, False):
            arrived = int(rng.binomial(free[1 - in_z, 1 - bob_z], DETECTED))
            left = int(rng.binomial(arrived, left_share))
            wrong_r = int(rng.binomial(arrived - left, ERRORS["R"]))
            wrong_l = int(rng.binomial(left, ERRORS["L"]))
            if in_z and bob_z:
                n_u, n_ph = arrived, wrong_r + wrong_l
            elif in_z:
                seen_r = arrived - left - wrong_r + wrong_l
                x[0] += (seen_r // 2, (arrived - seen_r) // 2)
                x[1] += (seen_r - seen_r // 2, arrived - seen_r - (arrived - seen_r) // 2)
            elif not bob_z:
                x[2] += (arrived - left - wrong_r, wrong_r)
                x[3] += (wrong_l, left - wrong_l)
    x[2, 0] += tagged[1, 1] if three else tagged[1, 1] // 2
    x[3, 1] += 0 if three else tagged[1, 1] - tagged[1, 1] // 2
    x[0, 1] += tagged[0, 1]
    n_z = n_u + int(tagged[0, 0])
    counts = (tuple((int(a), int(b)) for a, b in x),)
    return Tallies(SLOTS, (n_z,), n_z, counts, n_z, int(x.sum()), 0, 0, 32_768), n_u, n_ph


SPLITTING = ((0.0005, DETECTED, *[0.3] * 10), (0.5, ERRORS["L"], *[0.0] * 10))
"""Photon-number splitting: clicks and errors by photon number; several photons arrive often and look faultless."""


def decoy_block(
    rng: np.random.Generator, settings: ProtocolSettings, channel: tuple[tuple[float, ...], ...] = SPLITTING
) -> Truth:
    """Whatever the channel does to each photon number, it does alike to every intensity."""
    pz, qz = settings.p_z_alice, settings.p_z_bob
    photons = range(12)
    poisson = np.array([[math.exp(-mu) * mu**n / math.factorial(n) for n in photons] for mu in settings.intensities])
    weights = np.asarray(settings.p_intensities)[:, None] * poisson
    sent = rng.multinomial(DECOY_SLOTS, np.append(weights.ravel(), max(0.0, 1.0 - weights.sum())))[:-1]
    arrive, errors = map(np.asarray, channel)
    arrived = rng.binomial(sent.reshape(weights.shape), arrive)
    n_z = rng.binomial(arrived, pz * qz)
    n_x = rng.binomial(arrived - n_z, (1 - pz) * (1 - qz) / (1 - pz * qz))
    wrong = rng.binomial(n_x, errors)
    n_u, n_ph = int(n_z[:, 1].sum()), int(rng.binomial(n_z[:, 1].sum(), errors[1]))
    levels = tuple(
        ((0, 0), (0, 0), (int(right // 2), int(bad // 2)), (int(bad - bad // 2), int(right - right // 2)))
        for right, bad in zip((n_x - wrong).sum(axis=1), wrong.sum(axis=1), strict=True)
    )
    seen = int(n_z.sum()), int(n_x.sum())
    return Tallies(DECOY_SLOTS, tuple(map(int, n_z.sum(axis=1))), seen[0], levels, *seen, 0, 0, 32_768), n_u, n_ph


def settings_of(protocol: str, *light: tuple[float, ...]) -> ProtocolSettings:
    return ProtocolSettings(protocol, 0.7, 0.8, *light)


CASES = [
    (three_state, settings_of("three-state"), single_photon_block),
    (bb84, settings_of("bb84"), single_photon_block),
    *((decoy, settings_of("decoy-bb84", light, (0.6, 0.3, 0.1)), decoy_block) for light in INTENSITIES),
]


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize(("proof", "settings", "block"), CASES)
def test_estimates_bracket_the_truth(
    proof: object, settings: ProtocolSettings, block: Callable[..., Truth], tails: str, rng: np.random.Generator
) -> None:
    budget = EpsilonBudget(eps_total=math.sqrt(EPS) / 0.1, tails=tails)
    failed, tightness = 0, []
    for _ in range(TRIALS):
        tallies, n_u, n_ph = block(rng, settings)
        assert proof.fault(tallies, settings, SOURCE) is None  # type: ignore[attr-defined]
        estimate = proof.estimate(tallies, settings, SOURCE, RECEIVER, budget)  # type: ignore[attr-defined]
        assert sum(term.eps for term in estimate.terms) == pytest.approx(EPS)
        n_ph_upper = estimate.phi_upper * estimate.n_u_lower
        failed += n_u < estimate.n_u_lower or n_ph > n_ph_upper
        tightness.append((estimate.n_u_lower / n_u, n_ph_upper / n_ph))
    assert failed / TRIALS <= EPS + 4 * math.sqrt(EPS * (1 - EPS) / TRIALS)
    kept, inflated = np.median(tightness, axis=0)
    assert kept > 0.5, "the bound on untagged events is not of use"
    # Five nats on top of three widen every deviation by sqrt(8 / 3).
    assert inflated < (6.0 if tails == "anytime" else 4.0), "the bound on phase errors is not of use"


by_photons = st.lists(st.floats(0.0, 1.0), min_size=12, max_size=12)


@given(
    st.floats(0.1, 1.0), st.floats(0.05, 0.9), st.floats(0.0, 0.9), by_photons, by_photons, st.integers(0, 2**32 - 1)
)
def test_decoy_bounds_hold_whatever_the_channel_does_to_each_photon_number(
    signal: float, decoy_part: float, vacuum_part: float, yields: list[float], errors: list[float], seed: int
) -> None:
    weak = signal * decoy_part / (1.0 + vacuum_part)
    light = settings_of("decoy-bb84", (signal, weak, weak * vacuum_part), (0.5, 0.3, 0.2))
    tallies, n_u, n_ph = decoy_block(np.random.default_rng(seed), light, (tuple(yields), tuple(errors)))
    if (tallies.fault() or decoy.fault(tallies, light, SOURCE)) is not None:
        return
    estimate = decoy.estimate(tallies, light, SOURCE, RECEIVER, EpsilonBudget(eps_total=1e-8))
    assert estimate.n_u_lower <= n_u
    assert estimate.n_u_lower <= 0 or n_ph <= estimate.phi_upper * estimate.n_u_lower * (1 + 1e-12)


@pytest.mark.parametrize(("proof", "settings", "block"), CASES)
def test_frames_that_were_dropped_are_dropped_from_the_bound(
    proof: object, settings: ProtocolSettings, block: Callable[..., Truth], rng: np.random.Generator
) -> None:
    tallies, _, _ = block(rng, settings)
    fewer = replace(tallies, n_z_kept=tallies.n_z_kept - 500)
    whole, part = (proof.estimate(one, settings, SOURCE, RECEIVER, EpsilonBudget()) for one in (tallies, fewer))  # type: ignore[attr-defined]
    assert part.n_u_lower == pytest.approx(whole.n_u_lower - 500)
