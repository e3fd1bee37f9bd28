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


def other_class(k: float, ratio: float, eps: float) -> float:
    s = 1 / (1 + ratio)

    def excess(total: float) -> float:
        return total * relative_entropy(min(k / total, 1.0), s) + math.log(eps)

    return brentq(excess, k / s, 10 * k / s + 1000 / s, xtol=1e-9, rtol=1e-14) - k


GRID = [32.0 * math.exp(-j * math.log(1.2)) for j in range(96)]


def anytime_root(line: Callable[[float, float], float], low: float, high: float, eps: float) -> float:
    """Where the largest of the lines (lambda, unknown) reaches ln(96 / eps)."""
    wanted = math.log(len(GRID)) - math.log(eps)
    return brentq(lambda unknown: max(line(x, unknown) for x in GRID) - wanted, low, high, xtol=1e-9, rtol=1e-14)


def anytime_number_of_coins(n: float, p: float, eps: float) -> float:
    return anytime_root(lambda x, k: x * k - n * math.log(1 - p + p * math.exp(x)), 0.0, n, eps)


def anytime_other_class(k: float, ratio: float, eps: float) -> float:
    s = 1 / (1 + ratio)
    return anytime_root(lambda x, n: -x * k - n * math.log1p(s * math.expm1(-x)), k, 10 * k / s + 1000 / s, eps) - k


def anytime_mean_of_coins(k: float, n: float, eps: float, upper: bool) -> float:
    sign = -1 if upper else 1

    def line(x: float, m: float) -> float:
        return sign * x * k - n * math.log1p(m / n * math.expm1(sign * x))

    if not upper and max(line(x, 0.0) for x in GRID) < math.log(len(GRID) / eps):
        return 0.0
    return anytime_root(line, *((k, n) if upper else (0.0, k)), eps)


def mean_one(mean: Callable[[float], float], x: float) -> float:
    """The coefficient at which the factor of an event, exp(lambda times what it adds), has the mean 1."""
    return brentq(lambda coefficient: mean(coefficient) - 1.0, 0.0, 40.0 / x, xtol=1e-14, rtol=1e-14)


def phase_errors(ledger: dict[str, Any], wrong: float, right: float, eps: float) -> float:
    """Largest N_ph that no exponent of the grid excludes; ``wrong``, ``right``: X outcomes of untagged X pulses.

    One photon arrives; the Z detectors' filter turns a right X outcome into a phase error with probability d^2 + d / 4
    at most and a wrong one with 1 + 4 d; an X outcome is seen with 1 - D at least.
    """
    settings, receiver = ledger["settings"], ledger["receiver"]
    pz, qz, seen = settings["p_z_alice"], receiver["p_z_upper"], 1 - receiver["mismatch"]
    px, qx, d = 1 - pz, 1 - qz, (1 - math.sqrt(seen)) / 2
    more, flip = 1 + 4 * d, d * d + d / 4
    (h, v, *_), three = ledger["tallies"]["x_counts"][0], settings["protocol"] == "three-state"
    w = pz / 2 / (pz / 2 + px) if three else pz * qz / (pz * qz + px * qx)
    if three:
        top = math.log(1 + qx * seen / (qz * more) * min(1, (1 - w) / w))
    else:
        top = math.log(1 + (1 - w) * seen / (w * more))

    def bound(x: float) -> float:
        up = math.exp(x) - 1
        if not three:
            a = mean_one(lambda c: 1 + w * more * up + (1 - w) * seen * (math.exp(-x * c) - 1), x)
            m = mean_one(lambda c: 1 + w * flip * up + (1 - w) * seen * (math.exp(-x * c) - 1), x) if flip else 0.0
            return a * wrong + m * right + math.log(64 / eps) / x
        a = mean_one(lambda c: 1 + qz * w * more * up + qx * (1 - w) * seen * (math.exp(-x * c) - 1), x)
        b = mean_one(lambda c: 1 + qz * more * up + qx * seen * (math.exp(-x * c) - 1), x)
        m = mean_one(lambda c: 1 + qz * flip * up + qx * seen * (math.exp(-x * c) - 1), x) if flip else 0.0
        g = mean_one(
            lambda c: (
                1
                + qz * w * flip * up
                + qx * seen * (w * (math.exp(-x * b) - 1) + (1 - w) * (math.exp(x * c) - 1))
            ),
            x,
        )
        return a * wrong + b * (h[0] + v[0]) + m * (h[1] + v[1]) - g * right + math.log(64 / eps) / x

    return max(0.0, min(bound(0.99 * top / 1.25**j) for j in range(64)))


def photons(ledger: dict[str, Any], eps: float, other: Callable[[float, float, float], float], in_z: bool) -> float:
    """Kept detections of several photons in one basis: of two photons, all there or a click in both bases."""
    receiver, crossed = ledger["receiver"], ledger["tallies"]["cross_clicks"]
    lost = receiver["mismatch"]

    def odds(p_z: float) -> float:
        q = p_z if in_z else 1 - p_z
        return (q + (1 - q) * lost) ** 2 / (2 * q * (1 - q) * (1 - lost) ** 2)

    more = crossed if receiver["cross_basis"] == "random" else 0
    return other(crossed, max(odds(receiver["p_z_lower"]), odds(receiver["p_z_upper"])), eps) + more


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
    pz, qz, slots = settings["p_z_alice"], ledger["receiver"]["p_z_upper"], tallies["slots_sent"]
    px, qx = 1 - pz, 1 - ledger["receiver"]["p_z_lower"]
    multi = source["g2_upper"] * source["mean_photon_number_upper"] ** 2 / 2
    (_, _, r, left), n_z = tallies["x_counts"][0], tallies["n_z_kept"]
    eps = (0.1 * budget["eps_total"]) ** 2 / {"three-state": 5, "bb84": 3, "decoy-bb84": 9}[settings["protocol"]]
    if paper:
        eps = 1e-10 / 12
    several = photons(ledger, eps, other, in_z=True)
    untagged = n_z - coins(slots, pz * qz * multi, eps) - several
    if settings["protocol"] == "three-state":
        right = r[0] - coins(slots, px * qx * multi, eps) - photons(ledger, eps, other, in_z=False)
        n_ph = phase_errors(ledger, r[1], max(0.0, right), eps)
    elif settings["protocol"] == "bb84":
        n_ph = phase_errors(ledger, r[1] + left[0], r[0] + left[1], eps)
    else:
        untagged, errors = single_photons(ledger, eps)
        untagged -= several
        n_ph = phase_errors(ledger, errors, sum(level[2][0] + level[3][1] for level in tallies["x_counts"][:3]), eps)
    cost = 2 * math.log2(1 / (2 * (1e-10 / 24 if paper else 0.25 * budget["eps_total"])))
    told = sum(ledger[f"leak_{name}_bits"] for name in ("ec", "verify", "monitor"))
    bits = untagged * (1 - entropy(n_ph / untagged)) - told - cost
    return max(0, math.floor(bits / 8) * 8)
