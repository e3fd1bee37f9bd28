"""The key length of a block computed a second time from its tallies, with other tools, from the written specification.

Nothing of `common.security` is imported. Bounds are roots of the same equations found by Brent's method.
"""

from __future__ import annotations

import math
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


def entropy(x: float) -> float:
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x)


def key_length_of(ledger: dict[str, Any]) -> int:
    """Secret bits of a ledger's tallies under composable accounting, whole bytes."""
    tallies, settings, source, budget = (ledger[name] for name in ("tallies", "settings", "source", "budget"))
    assert budget["accounting"] == "composable"
    pz, qz, slots = settings["p_z_alice"], settings["p_z_bob"], tallies["slots_sent"]
    px, qx = 1 - pz, 1 - qz
    multi = source["g2_upper"] * source["mean_photon_number_upper"] ** 2 / 2
    (h, v, r, left), n_z = tallies["x_counts"][0], tallies["n_z_kept"]
    terms = 6 if settings["protocol"] == "three-state" else 2
    eps = (0.1 * budget["eps_total"]) ** 2 / terms
    untagged = n_z - number_of_coins(slots * pz * qz, multi, eps)
    if settings["protocol"] == "three-state":
        half = pz / 2 / px
        right = max(0.0, r[0] - number_of_coins(slots * px * qx, multi, eps))
        wrong = other_class(r[1], half, eps, True) + h[0] + v[0] - other_class(right, half, eps, False)
        phase_errors = other_class(max(wrong, 0.0), qz / qx, eps, True)
    else:
        phase_errors = other_class(r[1] + left[0], pz * qz / (px * qx), eps, True)
    cost = 2 * math.log2(1 / (2 * 0.25 * budget["eps_total"]))
    bits = (
        untagged * (1 - entropy(phase_errors / untagged)) - ledger["leak_ec_bits"] - ledger["leak_verify_bits"] - cost
    )
    return max(0, math.floor(bits / 8) * 8)
