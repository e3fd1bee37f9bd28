"""Bounds of g2 and <n> bracket the truth as often as they promise, take background off, and refuse nonsense."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.security.source import (
    HbtCounts,
    g2_bounds,
    mean_photon_number_bounds,
    probability_lower,
    probability_upper,
)

EPS = 0.05
TRIALS = 600
MEAN, G2 = 0.3, 0.05
SLOTS = 2_000_000
ETA = 0.2
"""Of each detector, splitter not counted."""
DARK = 2e-3


def hbt(rng: np.random.Generator, dark: float = DARK, valley: float = 0.5) -> HbtCounts:
    """Counts of ``SLOTS`` slots of a source with 0, 1 or 2 photons, each to one of two detectors, plus darks."""
    p2 = G2 * MEAN**2 / 2
    p1 = MEAN - 2 * p2
    half = ETA / 2
    none = 1 - p1 - p2 + p1 * (1 - 2 * half) + p2 * (1 - 2 * half) ** 2
    not_first = 1 - p1 - p2 + p1 * (1 - half) + p2 * (1 - half) ** 2
    quiet = 1 - dark
    p00, p0x = none * quiet**2, not_first * quiet
    cells = [p00, p0x - p00, p0x - p00, 1 - 2 * p0x + p00]
    _, second, first, both = rng.multinomial(SLOTS, cells)
    in_valley = rng.binomial(SLOTS, 1 - quiet**valley, 2)
    return HbtCounts(
        SLOTS, (int(first + both), int(second + both)), int(both), (int(in_valley[0]), int(in_valley[1])), 1 / valley
    )


def test_g2_is_bracketed_and_its_bound_is_of_use(rng: np.random.Generator) -> None:
    found = [g2_bounds(hbt(rng), EPS) for _ in range(TRIALS)]
    assert np.mean([one.upper < G2 for one in found]) <= EPS
    assert np.mean([one.estimate for one in found]) == pytest.approx(G2, rel=0.03)
    assert np.median([one.upper for one in found]) < 2.2 * G2


def test_background_that_stays_makes_g2_larger(rng: np.random.Generator) -> None:
    counts = hbt(rng, dark=0.01)
    kept = g2_bounds(replace(counts, background=(0, 0), background_ratio=0.0), EPS)
    assert kept.estimate > 3 * G2
    assert kept.upper > g2_bounds(counts, EPS).upper


@given(st.integers(0, 500), st.integers(0, 2000), st.integers(0, 2000))
def test_every_count_moves_the_bound_the_safe_way(coincidences: int, first: int, second: int) -> None:
    base = HbtCounts(10**7, (10**5, 2 * 10**5), coincidences, (first, second), 1.0)
    bound = g2_bounds(base, 1e-10).upper
    assert bound >= g2_bounds(base, 1e-10).estimate
    assert g2_bounds(replace(base, coincidences=coincidences + 1), 1e-10).upper >= bound > 0.0
    assert g2_bounds(replace(base, clicks=(99_000, 2 * 10**5)), 1e-10).upper >= bound * (1 - 1e-12)
    assert g2_bounds(base, 1e-12).upper > bound
    assert bound >= g2_bounds(replace(base, coincidences=0, background_ratio=0.0), 1e-10).upper * (1 - 1e-12)


def test_no_coincidence_is_not_a_perfect_source() -> None:
    found = g2_bounds(HbtCounts(10**9, (10**7, 10**7), 0), 1e-11)
    assert found.estimate == 0.0
    assert found.upper == pytest.approx(math.log(7e11) / 10**9 / 1e-4, rel=0.01)


def test_mean_photon_number_is_bracketed(rng: np.random.Generator) -> None:
    n, eta, dark = 0.3, 0.4, 1e-3
    p2 = G2 * n**2 / 2
    click = 1 - (1 - n * eta + p2 * eta**2) * (1 - dark)
    clicks, darks = rng.binomial(SLOTS, click, TRIALS), rng.binomial(SLOTS, dark, TRIALS)
    found = [
        mean_photon_number_bounds(int(k), SLOTS, (eta, eta), G2, EPS, int(d), SLOTS)
        for k, d in zip(clicks, darks, strict=True)
    ]
    assert np.mean([not one.lower <= n <= one.upper for one in found]) <= EPS
    assert np.mean([one.estimate for one in found]) == pytest.approx(n, rel=2e-3)
    assert np.median([one.upper - one.lower for one in found]) < 0.02 * n


def test_an_uncertain_efficiency_widens_both_bounds() -> None:
    sharp = mean_photon_number_bounds(10**5, 10**6, (0.4, 0.4), 0.01, 1e-10)
    wide = mean_photon_number_bounds(10**5, 10**6, (0.38, 0.42), 0.01, 1e-10)
    assert wide.lower < sharp.lower * 0.96
    assert wide.upper > sharp.upper * 1.05


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e-10, 1e-22]))
def test_tails_solve_their_equation(k: int, eps: float) -> None:
    upper, lower = probability_upper(k, 1000, eps), probability_lower(k, 1000, eps)
    assert lower <= k / 1000 <= upper
    for p in (upper, lower):
        if 1e-9 < p < 1.0 - 1e-9:
            a = k / 1000
            d = sum(x * math.log(x / y) for x, y in ((a, p), (1 - a, 1 - p)) if x > 0)
            assert 1000 * d == pytest.approx(math.log(1 / eps), rel=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1.0, math.nan])
def test_impossible_epsilons(eps: float) -> None:
    with pytest.raises(ValueError, match="eps"):
        g2_bounds(HbtCounts(1000, (10, 10), 0), eps)
    with pytest.raises(ValueError, match="eps"):
        mean_photon_number_bounds(10, 100, (0.5, 0.5), 0.0, eps)


@pytest.mark.parametrize(
    "counts",
    [
        {"slots": 0},
        {"clicks": (-1, 5)},
        {"clicks": (2000, 5)},
        {"coincidences": 11},
        {"background_ratio": math.nan},
        {"background": (0, -1)},
    ],
)
def test_impossible_counts(counts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"counts|coincidences|ratio"):
        replace(HbtCounts(1000, (10, 20), 3), **counts)  # type: ignore[arg-type]


def test_darkness_gives_no_bound() -> None:
    with pytest.raises(ValueError, match="no light"):
        g2_bounds(HbtCounts(10**6, (100, 100), 0, (100, 100), 1.0), 1e-10)


@pytest.mark.parametrize("efficiency", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (math.nan, 0.5)])
def test_impossible_efficiencies(efficiency: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="efficiency"):
        mean_photon_number_bounds(10, 100, efficiency, 0.0, 1e-10)


def test_a_saturated_detector_gives_no_bound() -> None:
    with pytest.raises(ValueError, match="saturates"):
        mean_photon_number_bounds(900, 1000, (1.0, 1.0), 1.0, 1e-10)
    with pytest.raises(ValueError, match="g2"):
        mean_photon_number_bounds(900, 1000, (1.0, 1.0), math.nan, 1e-10)
