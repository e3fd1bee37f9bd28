"""An eavesdropper who ends the block at its worst moment, and treats each event in the light of those before.

Simulated with known truth: the plain bounds fail more often than their eps, the ones for every stopping point do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from common.security.budget import TAILS, Tails

EPS = 0.02
TRIALS = 3000
LUCK = 4 * math.sqrt(EPS * (1 - EPS) / TRIALS)
CHUNKS = np.unique(np.geomspace(20, 1e9, 1500).astype(np.int64))
"""Where chunks of the block end: she may stop at any of them."""

Counts = np.ndarray
Fails = Callable[[Tails, float, float, float], bool]
"""(bounds, coins that fell, coins, sum of their biases): does the bound miss the truth?"""


def deviation(fell: Counts, coins: Counts, expected: Counts) -> Counts:
    """n D(fell / n || expected / n), with the sign of the deviation."""
    fell, rest = np.maximum(fell, 1e-9), np.maximum(coins - fell, 1e-9)
    nats = fell * np.log(fell / expected) + rest * np.log(rest / (coins - expected))
    return np.sign(fell - expected) * nats


def worst_moments(rng: np.random.Generator, biases: tuple[float, float], side: int) -> np.ndarray:
    """*(trials, 3)* counts at the moment of the largest deviation to one side; she swaps the bias after each chunk."""
    steps = np.diff(CHUNKS, prepend=0)
    fell, expected, chosen = np.zeros(TRIALS), np.zeros(TRIALS), np.full(TRIALS, biases[0])
    worst, at = np.full(TRIALS, -np.inf), np.zeros((TRIALS, 3))
    for coins, step in zip(CHUNKS, steps, strict=True):
        fell += rng.binomial(step, chosen)
        expected += step * chosen
        now = side * deviation(fell, coins, expected)
        better = now > worst
        at[better] = np.column_stack([fell, np.full(TRIALS, coins), expected])[better]
        worst = np.maximum(worst, now)
        chosen = np.where(fell * side > expected * side, biases[0], biases[1])
    return at


def _coins(bounds: Tails, fell: float, coins: float, expected: float) -> bool:
    return fell > bounds.binomial_upper(coins, expected / coins, EPS)


def _other_upper(bounds: Tails, fell: float, coins: float, expected: float) -> bool:
    return coins - fell > bounds.sample_upper(fell, coins / expected - 1.0, EPS) * (1 + 1e-12)


def _mean_upper(bounds: Tails, fell: float, coins: float, expected: float) -> bool:
    return expected > bounds.mean_upper(fell, coins, EPS)


def _mean_lower(bounds: Tails, fell: float, coins: float, expected: float) -> bool:
    return expected < bounds.mean_lower(fell, coins, EPS)


CASES = [
    ("tagged pulses", _coins, (0.02, 0.02), 1),
    ("the other class, upper", _other_upper, (0.1, 0.1), -1),
    ("the mean, upper", _mean_upper, (0.1, 0.12), -1),
    ("the mean, lower", _mean_lower, (0.1, 0.12), 1),
]


@pytest.mark.parametrize(("what", "fails", "biases", "side"), CASES, ids=[case[0] for case in CASES])
def test_only_the_bound_for_every_stopping_point_holds_wherever_she_stops(
    what: str, fails: Fails, biases: tuple[float, float], side: int, rng: np.random.Generator
) -> None:
    moments = worst_moments(rng, biases, side)
    failed = {
        name: np.mean([fails(TAILS[name], *map(float, moment)) for moment in moments])
        for name in ("chernoff", "anytime")
    }
    assert failed["anytime"] <= EPS + LUCK
    assert failed["chernoff"] > EPS + LUCK, "she stops badly: the test could not fail"


def test_it_costs_no_more_than_its_page_says() -> None:
    plain, anytime = TAILS["chernoff"], TAILS["anytime"]
    for k in (0.0, 1e2, 1e4, 1e6, 1e8):
        for ratio in (0.05, 1.0, 30.0):
            eps = 2e-23
            dearer = eps * math.exp(-5.1)
            assert plain.sample_upper(k, ratio, eps) < anytime.sample_upper(k, ratio, eps)
            assert anytime.sample_upper(k, ratio, eps) <= plain.sample_upper(k, ratio, dearer) * (1 + 1e-12)
