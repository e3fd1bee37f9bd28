"""Concentration of coins that holds at every stopping point at once, also when each coin may depend on all before it.

For one lambda and any predictable biases p_i, exp(lambda S_t - sum ln(1 + p_i (e^lambda - 1))) is a martingale of mean
1; by Ville's inequality it ever reaches 1/delta with probability at most delta. The bounds are what holds for all
lambda of a fixed grid at once, each with delta = eps / len(GRID). Source: Ville 1939; ours, see
`README.md`, section Streaming.
"""

from __future__ import annotations

import math

from common.security.bounds import require

LARGEST_LAMBDA = 32.0
GRID_RATIO = 1.2
GRID_POINTS = 96
GRID = tuple(LARGEST_LAMBDA / GRID_RATIO**j for j in range(GRID_POINTS))
"""From 32 down to 1e-6, the best lambda of some 1e13 events; any fixed grid is sound, this one costs about 5 nats."""


def cost_nats(eps: float) -> float:
    """ln(1/delta) for each lambda of the grid."""
    return math.log(GRID_POINTS / eps)


def anytime_binomial_upper(n: float, p: float, eps: float) -> float:
    """What the coins of bias p, at whichever n one stops, exceed with probability at most eps."""
    require(eps, n)
    if n == 0 or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return n
    needed = cost_nats(eps)
    return min(n, *((needed + n * math.log1p(p * math.expm1(x))) / x for x in GRID))


def anytime_sample_upper(k: float, ratio: float, eps: float) -> float:
    """Upper bound on the other class when k events fell into the sampled class, as `bounds.sample_upper`."""
    require(eps, k)
    if ratio <= 0.0:
        return 0.0
    s, needed = 1.0 / (1.0 + ratio), cost_nats(eps)
    return max(0.0, min((needed + x * k) / -math.log1p(s * math.expm1(-x)) for x in GRID) - k)


def anytime_mean_upper(k: float, n: float, eps: float) -> float:
    """Upper bound on the sum of the biases of n coins, each chosen in the light of those before, of which k fell.

    Notes
    -----
    ln(1 + p (e^lambda - 1)) is concave in p: unlike coins are bounded by as many with their mean bias.
    """
    require(eps, k, n)
    if k >= n:
        return n
    needed = cost_nats(eps)
    return min(n, *(n * math.expm1(-(needed + x * k) / n) / math.expm1(-x) for x in GRID))


def anytime_mean_lower(k: float, n: float, eps: float) -> float:
    """Lower bound on the sum of the biases (the other tail)."""
    require(eps, k, n)
    if k <= 0.0:
        return 0.0
    k, needed = min(k, n), cost_nats(eps)
    return max(0.0, *(n * math.expm1((x * k - needed) / n) / math.expm1(x) for x in GRID))
