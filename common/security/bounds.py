"""Concentration of independent coins: binomial tails, in Chernoff-Hoeffding (relative entropy) form and exact.

With D(a||b) the binary relative entropy in nats and L = ln(1/eps), a sum of n coins of mean bias p exceeds k >= np with
probability at most exp(-n D(k/n || p)); the other tail likewise. Source: Hoeffding 1963, Theorem 1 (the coins need not
be alike); used as in `README.md`, section Concentration. The exact forms solve for the tail itself (incomplete beta).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import betainc

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
    require(eps, n)
    if n == 0 or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return n
    needed = math.log(1.0 / eps)
    _, high = _bisect(lambda k: n * relative_entropy_nats(k / n, p) < needed, n * p, n)
    return min(float(math.ceil(high)), n)


def sample_upper(k: float, ratio: float, eps: float) -> float:
    """Upper bound on the other class when k events fell into the sampled class.

    Each of K events belongs to the sampled class with probability s = 1 / (1 + ratio). Returns K - k for the largest K
    with K D(k/K || s) <= ln(1/eps) and k/K <= s.
    """
    require(eps, k)
    if ratio <= 0.0:
        return 0.0
    s, needed = 1.0 / (1.0 + ratio), math.log(1.0 / eps)

    def possible(total: float) -> bool:
        return total <= 0.0 or total * relative_entropy_nats(k / total, s) <= needed

    # D(a||s) >= (s - a)^2 / 2s puts the root below (k + x) / s where x^2 = 2 L (k + x).
    beyond = k + 1.01 * (needed + math.sqrt(needed * (needed + 2.0 * k)))
    return _bisect(possible, k / s, beyond / s)[1] - k


def mean_upper(k: float, n: float, eps: float) -> float:
    """Largest mean m >= k with n D(k/n || m/n) <= ln(1/eps): the expected sum of n unlike coins of which k fell.

    Where the mean is larger, a sum as small as k has probability below eps.
    """
    require(eps, k, n)
    if k >= n:
        return n
    needed = math.log(1.0 / eps)
    return _bisect(lambda m: m < n and n * relative_entropy_nats(k / n, m / n) <= needed, k, n)[1]


def mean_lower(k: float, n: float, eps: float) -> float:
    """Smallest mean m <= k with n D(k/n || m/n) <= ln(1/eps) (the other tail of :func:`mean_upper`)."""
    require(eps, k, n)
    if k <= 0.0:
        return 0.0
    k = min(k, n)
    needed = math.log(1.0 / eps)
    return _bisect(lambda m: m <= 0.0 or n * relative_entropy_nats(k / n, m / n) > needed, 0.0, k)[0]


def exact_binomial_upper(n: float, p: float, eps: float) -> float:
    """Smallest k with P(Binomial(n, p) > k) <= eps, by the incomplete beta function I_p(k + 1, n - k)."""
    require(eps, n)
    n = math.ceil(n)
    if n == 0 or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return float(n)
    low, high = -1, int(binomial_upper(n, p, eps))
    for _ in range(ITERATIONS):
        if high - low <= 1:
            break
        k = (low + high) // 2
        low, high = (k, high) if betainc(k + 1.0, n - k, p) > eps else (low, k)
    return float(high)


def exact_sample_upper(k: float, ratio: float, eps: float) -> float:
    """As :func:`sample_upper`, for the largest K with P(Binomial(K, s) <= k) = I_{1-s}(K - k, k + 1) > eps."""
    other = sample_upper(k, ratio, eps)
    if other == 0.0:
        return 0.0
    s = 1.0 / (1.0 + ratio)
    return _bisect(lambda rest: rest <= 0.0 or float(betainc(rest, k + 1.0, 1.0 - s)) > eps, 0.0, other)[1]


def binary_entropy(x: float) -> float:
    """h(x) in bits, 0 outside (0, 1)."""
    if not 0.0 < x < 1.0:
        return 0.0
    return -x * math.log2(x) - (1.0 - x) * math.log2(1.0 - x)


def _bisect(inside: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Narrow (low, high) around the point up to which ``inside`` holds, to the last bit."""
    for _ in range(ITERATIONS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low, high


def require(eps: float, *counts: float) -> None:
    """Refuse an eps outside (0, 1) and a count that is negative or not finite."""
    if not 0.0 < eps < 1.0 or not all(math.isfinite(count) and count >= 0.0 for count in counts):
        raise ValueError(f"a bound needs 0 < eps < 1 and a count >= 0, not eps {eps} and {', '.join(map(str, counts))}")
