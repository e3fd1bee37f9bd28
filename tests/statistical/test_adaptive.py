"""An eavesdropper who looks at every coin so far, and the moment at which the bounds would serve her best.

The truth is known. Phase errors of three states: whether she turns |R> or |L> follows her luck, and the light is turned
the way in which Bob's weak detectors help her most. Light of several photons: how many she sends follows her luck.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from common.security import arrivals, phase_errors, three_state
from common.security.anytime import GRID, GRID_POINTS
from common.security.budget import EpsilonBudget
from common.security.tallies import ReceiverBounds, Tallies

EPS = 0.05
TRIALS = 3000
LUCK = 4 * math.sqrt(EPS * (1 - EPS) / TRIALS)
STRETCHES, LENGTH = 250, 300
P_Z, Q_Z = 0.79, 0.9
EQUAL = ReceiverBounds(Q_Z, Q_Z)
UNEQUAL = ReceiverBounds(Q_Z, Q_Z, mismatch=0.3)
Counts = np.ndarray


class Run:
    """Many blocks side by side: *(trials,)* phase errors and X counts, her luck, one stretch after the other."""

    def __init__(self, rng: np.random.Generator, receiver: ReceiverBounds) -> None:
        self.rng, seen = rng, 1.0 - receiver.mismatch
        self.sure, self.seen = (1.0 + math.sqrt(seen)) / 2.0, seen
        self.turn = (1.0 - math.sqrt(seen)) / 2.0
        self.n_ph, self.wrong, self.z_r, self.z_l, self.right = np.zeros((5, TRIALS))

    def stretch(self, lucky: Counts) -> None:
        """Errors of the kind that was not punished so far; what arrives is |R> or |L> as Alice's coins have it."""
        rng, w = self.rng, three_state.virtual(P_Z)
        left = rng.binomial(LENGTH, P_Z / 2.0, TRIALS)
        virtual = rng.binomial(LENGTH - left, w)
        for sent, error, meant_z in (
            ("R", np.where(lucky, 0.05, 0.02), virtual),
            ("R", np.where(lucky, 0.05, 0.02), None),
            ("L", np.where(lucky, 0.02, 0.06), left),
        ):
            n = LENGTH - left - virtual if meant_z is None else meant_z
            in_z = rng.binomial(n, Q_Z)
            if meant_z is not None:
                self.n_ph += rng.binomial(in_z, (self.sure * np.sqrt(error) + self.turn * np.sqrt(1.0 - error)) ** 2)
            in_x = rng.binomial(n - in_z, self.seen)
            false = rng.binomial(in_x, error)
            at_r, at_l = (in_x - false, false) if sent == "R" else (false, in_x - false)
            if meant_z is None:
                self.wrong, self.right = self.wrong + at_l, self.right + at_r
            else:
                self.z_r, self.z_l = self.z_r + at_r, self.z_l + at_l

    def beyond(self, exponent: float, weights: tuple[float, float, float, float]) -> Counts:
        """lambda times what the phase errors exceed the counted ones by."""
        a, b, m, g = weights
        return exponent * (self.n_ph - a * self.wrong - b * self.z_r - m * self.z_l + g * self.right)


def ever_beyond(
    rng: np.random.Generator,
    receiver: ReceiverBounds,
    stated: ReceiverBounds,
    exponents: list[float],
    sign: float = 1.0,
) -> Counts:
    """*(exponents, trials)* the largest value at any moment, for the stated receiver; she plays on the first."""
    run, worst = Run(rng, receiver), np.full((len(exponents), TRIALS), -np.inf)
    weights = [three_state.coefficients(x, P_Z, stated) for x in exponents]
    weights = [(a, b, m, sign * g) for a, b, m, g in weights]
    lucky = np.zeros(TRIALS, bool)
    for _ in range(STRETCHES):
        run.stretch(lucky)
        now = np.array([run.beyond(x, one) for x, one in zip(exponents, weights, strict=True)])
        worst = np.maximum(worst, now)
        lucky = now[0] > np.median(now[0])
    return worst


@pytest.mark.parametrize("receiver", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_phase_errors_of_three_states_stay_below_their_bound_at_every_moment(
    receiver: ReceiverBounds, rng: np.random.Generator
) -> None:
    exponents = list(phase_errors.grid(three_state.limit(P_Z, receiver)))
    worst = ever_beyond(rng, receiver, receiver, exponents)
    assert np.mean(np.any(worst > math.log(len(exponents) / EPS), axis=0)) <= EPS
    assert np.mean(np.any(worst > 0.0, axis=0)) > EPS + LUCK, "without its price the bound would not fail: no test"


@pytest.mark.parametrize("exponent", [0.004, 0.01, 0.02])
def test_one_exponent_fails_nearly_as_often_as_it_may_and_a_wrong_one_more_often(
    exponent: float, rng: np.random.Generator
) -> None:
    limit = math.log(1.0 / EPS)
    failed = {
        "right": np.mean(ever_beyond(rng, EQUAL, EQUAL, [exponent]) > limit),
        "splitter": np.mean(ever_beyond(rng, EQUAL, ReceiverBounds(0.84, 0.84), [exponent]) > limit),
        "detectors": np.mean(ever_beyond(rng, UNEQUAL, EQUAL, [exponent]) > limit),
        "sign": np.mean(ever_beyond(rng, EQUAL, EQUAL, [exponent], -1.0) > limit),
    }
    assert 0.005 < failed["right"] <= EPS + LUCK
    assert failed["splitter"] > EPS + LUCK
    assert failed["detectors"] > EPS + LUCK
    assert failed["sign"] < failed["right"], "a sign that makes the bound useless makes it safe"


def alone_and_crossed(rng: np.random.Generator, q: float, mismatch: float, k: Counts, n: int) -> tuple[Counts, Counts]:
    """Slots of k photons with clicks in one basis alone and in both: a photon takes it with q, is seen with 1 - D."""
    u, v, none = q + (1.0 - q) * mismatch, 1.0 - q + q * mismatch, mismatch**k
    alone, crossed = u**k - none, 1.0 - u**k - v**k + none
    first = rng.binomial(n, alone)
    return first, rng.binomial(n - first, np.clip(crossed / (1.0 - alone), 0.0, 1.0))


@pytest.mark.parametrize(("basis", "mismatch"), [("Z", 0.0), ("X", 0.0), ("Z", 0.2)])
def test_light_of_several_photons_is_found_by_the_clicks_in_both_bases(
    basis: str, mismatch: float, rng: np.random.Generator
) -> None:
    receiver, q = replace(EQUAL, mismatch=mismatch), Q_Z if basis == "Z" else 1.0 - Q_Z
    ratio = arrivals.odds(q, mismatch)
    seen, crossed = np.zeros((2, TRIALS))
    k = np.full(TRIALS, 2)
    failed = {wrong: np.zeros(TRIALS, bool) for wrong in (1.0, 0.8)}
    for _ in range(200):
        alone, both = alone_and_crossed(rng, q, mismatch, k, 200 if basis == "Z" else 400)
        seen, crossed = seen + alone, crossed + both
        k = np.where(seen > ratio * crossed, 2, rng.integers(2, 5, TRIALS))
        for wrong, missed in failed.items():
            missed |= seen > sample_upper(crossed, wrong * ratio)
    assert failed[1.0].mean() <= EPS + LUCK
    assert failed[0.8].mean() > EPS + LUCK, "odds that are too small were not seen: no test"
    tallies = Tallies(10**9, (10**6,), 10**6, (((1, 1),) * 4,), 10**6, 8, int(crossed[0]), 0, 32_768)
    term = arrivals.several_upper(basis, tallies, receiver, EpsilonBudget(), EPS)
    assert term.value == pytest.approx(sample_upper(crossed[:1], ratio)[0])


def sample_upper(k: Counts, ratio: float) -> Counts:
    """`anytime_sample_upper` of many counts."""
    x = np.array(GRID)[:, None]
    return np.min((math.log(GRID_POINTS / EPS) + x * k) / -np.log1p(np.expm1(-x) / (1.0 + ratio)), axis=0) - k


@pytest.mark.parametrize("q", [0.02, 0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("mismatch", [0.0, 0.1, 0.5])
def test_two_photons_are_the_best_that_she_can_send(q: float, mismatch: float) -> None:
    for k in range(2, 30):
        u, v = q + (1.0 - q) * mismatch, 1.0 - q + q * mismatch
        odds = u**k / (1.0 - u**k - v**k + mismatch**k)
        assert odds <= arrivals.odds(q, mismatch) * (1.0 + 1e-12)
        assert k > 2 or odds == pytest.approx(arrivals.odds(q, mismatch))
