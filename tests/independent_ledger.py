"""The key length of a block computed a second time from its tallies, with other tools, from the written specification.

Nothing of `common.security` is imported. Bounds are roots of the same equations found by Brent's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scipy.optimize import brentq


def relative_entropy(a: float, b: float) -> float:
    return sum(x * math.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)


def number_of_coins(n: float, p: float, eps: float) -> int:
    """Smallest k >= np with n D(k/n || p) >= ln 1/eps."""
    root = brentq(lambda k: n * relative_entropy(k / n, p) + math.log(eps), n * p, n, xtol=1e-9, rtol=1e-14)
    return math.ceil(root - 1e-7)


def other_class(k: float, ratio: float, eps: float, upper: bool) -> float:
    s = 1 / (1 + ratio)

    def excess(total: float) -> float:
        return total * relative_entropy(min(k / total, 1.0), s) + math.log(eps)

    if upper:
        return brentq(excess, k / s, 10 * k / s + 1000 / s, xtol=1e-9, rtol=1e-14) - k
    return brentq(excess, k, k / s, xtol=1e-9, rtol=1e-14) - k if excess(k) > 0 else 0.0


GRID = [32.0 * math.exp(-j * math.log(1.2)) for j in range(96)]


def anytime_root(line: Callable[[float, float], float], low: float, high: float, eps: float) -> float:
    """Where the largest of the lines (lambda, unknown) reaches ln(96 / eps)."""
    wanted = math.log(len(GRID)) - math.log(eps)
    return brentq(lambda unknown: max(line(x, unknown) for x in GRID) - wanted, low, high, xtol=1e-9, rtol=1e-14)


def anytime_number_of_coins(n: float, p: float, eps: float) -> float:
    return anytime_root(lambda x, k: x * k - n * math.log(1 - p + p * math.exp(x)), 0.0, n, eps)


def anytime_other_class(k: float, ratio: float, eps: float, upper: bool) -> float:
    s, sign = 1 / (1 + ratio), -1 if upper else 1
    if not upper and max(x * k - k * math.log(1 - s + s * math.exp(x)) for x in GRID) < math.log(len(GRID) / eps):
        return 0.0

    def line(x: float, total: float) -> float:
        return sign * x * k - total * math.log1p(s * math.expm1(sign * x))

    return anytime_root(line, k, 10 * k / s + 1000 / s if upper else k / s, eps) - k


def anytime_mean_of_coins(k: float, n: float, eps: float, upper: bool) -> float:
    sign = -1 if upper else 1

    def line(x: float, m: float) -> float:
        return sign * x * k - n * math.log1p(m / n * math.expm1(sign * x))

    if not upper and max(line(x, 0.0) for x in GRID) < math.log(len(GRID) / eps):
        return 0.0
    return anytime_root(line, *((k, n) if upper else (0.0, k)), eps)


def entropy(x: float) -> float:
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)


def mean_of_coins(k: float, n: float, eps: float, upper: bool) -> float:
    """The means m at which k of n unlike coins would be a deviation of probability eps."""

    def excess(m: float) -> float:
        return n * relative_entropy(k / n, m / n) + math.log(eps)

    if upper:
        return brentq(excess, max(k, 1e-12), n * (1 - 1e-15), xtol=1e-12, rtol=1e-14) if k < n else n
    return brentq(excess, 1e-300, k, xtol=1e-12, rtol=1e-14) if k > 0 else 0.0


def single_photons(ledger: dict[str, Any], eps: float) -> tuple[float, float]:
    """(Z events of one photon, X errors of one photon) by Lim et al. 2014, Eqs. (2)-(4), in their notation."""
    tallies, settings = ledger["tallies"], ledger["settings"]
    mu, p = settings["intensities"], settings["p_intensities"]

    mean = anytime_mean_of_coins if ledger["budget"]["tails"] == "anytime" else mean_of_coins

    def n_plus_minus(counts: list[int], k: int, upper: bool) -> float:
        return math.exp(mu[k]) / p[k] * mean(counts[k], sum(counts), eps, upper)

    tau = [sum(p[k] * math.exp(-mu[k]) * mu[k] ** n for k in range(3)) for n in (0, 1)]
    n_z = tallies["n_z"][:3]
    s_0 = tau[0] * (mu[1] * n_plus_minus(n_z, 2, False) - mu[2] * n_plus_minus(n_z, 1, True)) / (mu[1] - mu[2])
    above = (mu[1] ** 2 - mu[2] ** 2) / mu[0] ** 2 * (n_plus_minus(n_z, 0, True) - max(s_0, 0.0) / tau[0])
    numerator = tau[1] * mu[0] * (n_plus_minus(n_z, 1, False) - n_plus_minus(n_z, 2, True) - above)
    s_1 = numerator / (mu[0] * (mu[1] - mu[2]) - mu[1] ** 2 + mu[2] ** 2)
    errors = [level[2][1] + level[3][0] for level in tallies["x_counts"][:3]]
    v_1 = tau[1] * (n_plus_minus(errors, 1, True) - n_plus_minus(errors, 2, False)) / (mu[1] - mu[2])
    return s_1 - (sum(n_z) - tallies["n_z_kept"]), min(v_1, sum(errors))


def key_length_of(ledger: dict[str, Any]) -> int:
    """Secret bits of a ledger's tallies, whole bytes."""
    tallies, settings, source, budget = (ledger[name] for name in ("tallies", "settings", "source", "budget"))
    paper, anytime = budget["accounting"] == "paper", budget["tails"] == "anytime"
    coins = anytime_number_of_coins if anytime else number_of_coins
    other = anytime_other_class if anytime else other_class
    pz, qz, slots = settings["p_z_alice"], settings["p_z_bob"], tallies["slots_sent"]
    px, qx = 1 - pz, 1 - qz
    multi = source["g2_upper"] * source["mean_photon_number_upper"] ** 2 / 2
    (h, v, r, left), n_z = tallies["x_counts"][0], tallies["n_z_kept"]
    eps = (0.1 * budget["eps_total"]) ** 2 / {"three-state": 5, "bb84": 2, "decoy-bb84": 8}[settings["protocol"]]
    if paper:
        eps = 1e-10 / 12
    untagged = n_z - coins(slots, pz * qz * multi, eps)
    if settings["protocol"] == "three-state":
        half = pz / 2 / px
        right = max(0.0, r[0] - coins(slots, px * qx * multi, eps))
        wrong = other(r[1], half, eps, True) + h[0] + v[0] - other(right, half, eps, False)
        phase_errors = other(max(wrong, 0.0), qz / qx, eps, True)
    elif settings["protocol"] == "bb84":
        phase_errors = other(r[1] + left[0], pz * qz / (px * qx), eps, True)
    else:
        untagged, errors = single_photons(ledger, eps)
        phase_errors = other(errors, pz * qz / (px * qx), eps, True)
    cost = 2 * math.log2(1 / (2 * (1e-10 / 24 if paper else 0.25 * budget["eps_total"])))
    told = sum(ledger[f"leak_{name}_bits"] for name in ("ec", "verify", "monitor"))
    bits = untagged * (1 - entropy(phase_errors / untagged)) - told - cost
    return max(0, math.floor(bits / 8) * 8)
