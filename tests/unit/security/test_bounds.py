"""Bounds bracket the truth as often as they promise, and refuse nonsense."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.security.bounds import (
    binary_entropy,
    binomial_upper,
    exact_binomial_upper,
    exact_sample_upper,
    mean_lower,
    mean_upper,
    relative_entropy_nats,
    sample_upper,
)
from common.security.budget import TAILS

EPS = 0.05
TRIALS = 4000


BOUNDS = [*(bound for tails in TAILS.values() for bound in tails), mean_upper, mean_lower]
LUCK = 4 * math.sqrt(EPS * (1 - EPS) / TRIALS)
"""An exact bound fails just as often as it may; so much more is chance."""


def rate_of_failures(failed: np.ndarray) -> float:
    return float(np.mean(failed))


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize(("n", "p"), [(50, 0.1), (1000, 0.003), (10_000, 0.5)])
def test_binomial_upper_fails_at_most_as_often_as_eps(n: int, p: float, tails: str, rng: np.random.Generator) -> None:
    bound = TAILS[tails].binomial_upper(n, p, EPS)
    draws = rng.binomial(n, p, TRIALS)
    assert rate_of_failures(draws > bound) <= EPS + LUCK
    assert bound <= n * p + 4 * math.sqrt(n * p) + 4, "the bound is not of use"


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize(("total", "ratio"), [(200, 1.0), (5000, 9.0), (20_000, 0.2)])
def test_the_other_class_is_below_its_bound(total: int, ratio: float, tails: str, rng: np.random.Generator) -> None:
    seen = rng.binomial(total, 1 / (1 + ratio), TRIALS)
    values, at = np.unique(seen, return_inverse=True)
    upper = np.array([TAILS[tails].sample_upper(float(k), ratio, EPS) for k in values])[at]
    assert rate_of_failures(total - seen > upper) <= EPS + LUCK
    spread = 4 * (1 + ratio) * math.sqrt(total / (1 + ratio)) + 20 * (1 + ratio)
    assert np.all(upper - (total - seen) < 3 * spread)


@pytest.mark.parametrize("biases", [(0.02, 0.1), (0.3, 0.9), (0.0005, 0.002)])
def test_the_mean_of_unlike_coins_is_bracketed(biases: tuple[float, float], rng: np.random.Generator) -> None:
    n, (a, b) = 2000, biases
    mean = n / 2 * (a + b)
    seen = rng.binomial(n // 2, a, TRIALS) + rng.binomial(n // 2, b, TRIALS)
    values, at = np.unique(seen, return_inverse=True)
    upper = np.array([mean_upper(float(k), n, EPS) for k in values])[at]
    lower = np.array([mean_lower(float(k), n, EPS) for k in values])[at]
    assert rate_of_failures(mean > upper) <= EPS
    assert rate_of_failures(mean < lower) <= EPS
    assert np.all(upper - lower < 6 * np.sqrt(seen + 1) + 12), "the bounds are not of use"


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.sampled_from([1e-3, 1e-10, 1e-22]))
def test_a_mean_lies_around_what_was_seen(k: int, more: int, eps: float) -> None:
    n = k + more
    assert 0.0 <= mean_lower(k, n, eps) <= k <= mean_upper(k, n, eps) <= n


@given(st.integers(0, 10**7), st.floats(1e-3, 1e3), st.sampled_from([1e-3, 1e-10, 2e-23]))
def test_exact_tails_are_tighter_and_on_the_right_side(k: int, ratio: float, eps: float) -> None:
    assert k * ratio * (1 - 1e-9) - 1e-6 <= exact_sample_upper(k, ratio, eps) <= sample_upper(k, ratio, eps)


@given(st.integers(1, 10**12), st.floats(1e-9, 1.0), st.sampled_from([1e-3, 1e-10, 2e-23]))
def test_an_exact_number_of_coins_is_no_larger(n: int, p: float, eps: float) -> None:
    assert n * p * (1 - 1e-9) - 1 <= exact_binomial_upper(n, p, eps) <= binomial_upper(n, p, eps)


@pytest.mark.parametrize(("n", "p"), [(40, 0.2), (300, 0.01)])
@pytest.mark.parametrize("eps", [1e-3, 2e-23])
def test_exact_tails_against_sums_of_exact_probabilities(n: int, p: float, eps: float) -> None:
    weights = [mpmath.binomial(n, i) * mpmath.mpf(p) ** i * (1 - mpmath.mpf(p)) ** (n - i) for i in range(n + 1)]
    tail = [mpmath.fsum(weights[k + 1 :]) for k in range(n + 1)]
    assert exact_binomial_upper(n, p, eps) == next(k for k in range(n + 1) if tail[k] <= eps)
    upper = exact_sample_upper(n, 1 / p - 1, eps)
    with mpmath.workdps(40):
        assert mpmath.betainc(upper, n + 1, 0, 1 - p, regularized=True) == pytest.approx(eps, rel=1e-6)


@given(st.floats(0, 1e7), st.floats(1e-3, 1e3), st.sampled_from([1e-3, 1e-10, 1e-22]))
def test_tighter_eps_never_gives_a_tighter_bound(k: float, ratio: float, eps: float) -> None:
    assert sample_upper(k, ratio, eps / 10) >= sample_upper(k, ratio, eps) - 1e-6
    assert k * ratio * (1 + 1e-9) + 1e-6 <= sample_upper(k, ratio, eps) + 2e-6


def test_nothing_seen_is_not_nothing_there() -> None:
    assert sample_upper(0.0, 1.0, 1e-10) == pytest.approx(math.log(1e10) / math.log(2), rel=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1.0, -1.0, math.nan])
@pytest.mark.parametrize("bound", BOUNDS)
def test_an_epsilon_outside_zero_to_one_is_refused(bound: object, eps: float) -> None:
    assert callable(bound)
    with pytest.raises(ValueError, match="eps"):
        bound(10.0, 0.5, eps)


@pytest.mark.parametrize("count", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("bound", BOUNDS)
def test_impossible_counts_are_refused(bound: object, count: float) -> None:
    assert callable(bound)
    with pytest.raises(ValueError, match="count"):
        bound(count, 0.5, 1e-10)


def test_entropies_at_known_points() -> None:
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.11) == pytest.approx(0.499916, abs=1e-6)
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0.0
    assert relative_entropy_nats(0.3, 0.3) == pytest.approx(0.0, abs=1e-15)
    assert relative_entropy_nats(1.0, 0.25) == pytest.approx(math.log(4))
