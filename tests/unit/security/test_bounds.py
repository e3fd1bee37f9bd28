"""Bounds bracket the truth as often as they promise, and refuse nonsense."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.security.bounds import binary_entropy, binomial_upper, relative_entropy_nats, sample_lower, sample_upper

EPS = 0.05
TRIALS = 4000


def rate_of_failures(failed: np.ndarray) -> float:
    return float(np.mean(failed))


@pytest.mark.parametrize(("n", "p"), [(50, 0.1), (1000, 0.003), (10_000, 0.5)])
def test_binomial_upper_fails_at_most_as_often_as_eps(n: int, p: float, rng: np.random.Generator) -> None:
    bound = binomial_upper(n, p, EPS)
    draws = rng.binomial(n, p, TRIALS)
    assert rate_of_failures(draws > bound) <= EPS
    assert bound <= n * p + 4 * math.sqrt(n * p) + 4, "the bound is not of use"


@pytest.mark.parametrize(("total", "ratio"), [(200, 1.0), (5000, 9.0), (20_000, 0.2)])
def test_the_other_class_is_bracketed(total: int, ratio: float, rng: np.random.Generator) -> None:
    seen = rng.binomial(total, 1 / (1 + ratio), TRIALS)
    values, at = np.unique(seen, return_inverse=True)
    upper = np.array([sample_upper(float(k), ratio, EPS) for k in values])[at]
    lower = np.array([sample_lower(float(k), ratio, EPS) for k in values])[at]
    assert rate_of_failures(total - seen > upper) <= EPS
    assert rate_of_failures(total - seen < lower) <= EPS
    spread = 4 * (1 + ratio) * math.sqrt(total / (1 + ratio)) + 20 * (1 + ratio)
    assert np.all(upper - (total - seen) < 3 * spread)
    assert np.all((total - seen) - lower < 3 * spread)


@given(st.floats(0, 1e7), st.floats(1e-3, 1e3), st.sampled_from([1e-3, 1e-10, 1e-22]))
def test_tighter_eps_never_gives_a_tighter_bound(k: float, ratio: float, eps: float) -> None:
    assert sample_lower(k, ratio, eps / 10) <= sample_lower(k, ratio, eps) + 1e-6
    assert sample_upper(k, ratio, eps / 10) >= sample_upper(k, ratio, eps) - 1e-6
    assert sample_lower(k, ratio, eps) <= k * ratio * (1 + 1e-9) + 1e-6 <= sample_upper(k, ratio, eps) + 2e-6


def test_nothing_seen_is_not_nothing_there() -> None:
    assert sample_upper(0.0, 1.0, 1e-10) == pytest.approx(math.log(1e10) / math.log(2), rel=1e-6)
    assert sample_lower(0.0, 1.0, 1e-10) == 0.0


@pytest.mark.parametrize("eps", [0.0, 1.0, -1.0, math.nan])
@pytest.mark.parametrize("bound", [binomial_upper, sample_upper, sample_lower])
def test_an_epsilon_outside_zero_to_one_is_refused(bound: object, eps: float) -> None:
    assert callable(bound)
    with pytest.raises(ValueError, match="eps"):
        bound(10.0, 0.5, eps)


@pytest.mark.parametrize("count", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("bound", [binomial_upper, sample_upper, sample_lower])
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
