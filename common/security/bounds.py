"""Concentration of independent coins: binomial tails in Chernoff-Hoeffding (relative entropy) form.

With D(a||b) the binary relative entropy in nats and L = ln(1/eps), a sum of n coins of bias p exceeds k >= np with
probability at most exp(-n D(k/n || p)); the other tail likewise. Source: Hoeffding 1963, Theorem 1; used as in
`README.md`, section Concentration.
"""

from __future__ import annotations

import math

ITERATIONS = 200


def relative_entropy_nats(a: float, b: float) -> float:
    """D(a||b) of two coins, 0 <= a <= 1, 0 < b < 1."""
    if a <= 0.0:
        return -math.log1p(-b)
    if a >= 1.0:
        return -math.log(b)
    return a * math.log(a / b) + (1.0 - a) * math.log((1.0 - a) / (1.0 - b))


def binomial_upper(n: float, p: float, eps: float) -> float:
    """Smallest k >= np with n D(k/n || p) >= ln(1/eps): n coins of bias p exceed it with probability at most eps."""
    _require(eps, n)
    if n == 0 or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return n
    needed = math.log(1.0 / eps)
    low, high = n * p, n
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if n * relative_entropy_nats(middle / n, p) >= needed else (middle, high)
    return min(float(math.ceil(high)), n)


def sample_upper(k: float, ratio: float, eps: float) -> float:
    """Upper bound on the other class when k events fell into the sampled class.

    Each of K events belongs to the sampled class with probability s = 1 / (1 + ratio). Returns K - k for the largest K
    with K D(k/K || s) <= ln(1/eps) and k/K <= s.
    """
    _require(eps, k)
    if ratio <= 0.0:
        return 0.0
    s, needed = 1.0 / (1.0 + ratio), math.log(1.0 / eps)
    low = k / s
    high = 2.0 * low + 2.0 * needed / s
    while high * relative_entropy_nats(k / high, s) <= needed:
        high *= 2.0
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        inside = middle * relative_entropy_nats(k / middle, s) <= needed if middle > 0.0 else True
        low, high = (middle, high) if inside else (low, middle)
    return high - k


def sample_lower(k: float, ratio: float, eps: float) -> float:
    """Lower bound on the other class when k events fell into the sampled class (the other tail)."""
    _require(eps, k)
    if ratio <= 0.0 or k <= 0.0:
        return 0.0
    s, needed = 1.0 / (1.0 + ratio), math.log(1.0 / eps)
    low, high = k, k / s
    if low * relative_entropy_nats(1.0, s) <= needed:
        return 0.0
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        inside = middle * relative_entropy_nats(k / middle, s) <= needed
        low, high = (low, middle) if inside else (middle, high)
    return low - k


def binary_entropy(x: float) -> float:
    """h(x) in bits, 0 outside (0, 1)."""
    if not 0.0 < x < 1.0:
        return 0.0
    return -x * math.log2(x) - (1.0 - x) * math.log2(1.0 - x)


def _require(eps: float, count: float) -> None:
    if not 0.0 < eps < 1.0 or not math.isfinite(count) or count < 0.0:
        raise ValueError(f"a bound needs 0 < eps < 1 and a count >= 0, not eps {eps} and {count}")
