"""Bounds of the source from counts: g2(0) by Hanbury Brown-Twiss, <n> by calibrated counting, each with its epsilon.

Assumption A1 needs <n(n-1)> = g2 <n>^2 over all slots. So a coincidence rate is divided by the rates of the two
detectors over the whole measurement, never by its neighbouring peaks: a blinking source raises those and would look
purer than it is.
Source: ours, decision 47; tails as in `bounds.py` (Hoeffding 1963, good for independent slots of unequal brightness).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.security.bounds import relative_entropy_nats

G2_TERMS = 7
MEAN_PHOTON_NUMBER_TERMS = 4
ITERATIONS = 200
NO_BACKGROUND = [0.0, 0.0]


@dataclass(frozen=True, slots=True)
class HbtCounts:
    """Counts of a Hanbury Brown-Twiss measurement, in slots.

    Parameters
    ----------
    slots : of the measurement. clicks : slots with a click in the gate, for each of the two detectors.
    coincidences : slots in which both clicked.
    background : slots with a click between the pulses, for each detector; (0, 0) if none is to be subtracted.
    background_ratio : width of the gate over the width of the window in which the background was counted.
    """

    slots: int
    clicks: tuple[int, int]
    coincidences: int
    background: tuple[int, int] = (0, 0)
    background_ratio: float = 0.0

    def __post_init__(self) -> None:
        counts = (*self.clicks, self.coincidences, *self.background)
        if self.slots <= 0 or not all(0 <= count <= self.slots for count in counts):
            raise ValueError(f"counts lie between 0 and the {self.slots} slots, not {counts}")
        if self.coincidences > min(self.clicks):
            raise ValueError("more coincidences than clicks of one detector")
        if not (math.isfinite(self.background_ratio) and self.background_ratio >= 0.0):
            raise ValueError(f"the background's width ratio is >= 0, not {self.background_ratio}")


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number with its one-sided bounds, which hold together except with probability ``eps``."""

    estimate: float
    lower: float
    upper: float
    eps: float


def probability_upper(k: int, n: int, eps: float) -> float:
    """Largest p with n D(k/n || p) <= ln(1/eps): k of n independent slots are less likely than eps above it."""
    return _tail(k, n, eps, 1.0)


def probability_lower(k: int, n: int, eps: float) -> float:
    """Smallest p with n D(k/n || p) <= ln(1/eps)."""
    return _tail(k, n, eps, 0.0)


def g2_bounds(counts: HbtCounts, eps: float) -> Bounded:
    """g2(0) = <n(n-1)> / <n>^2, background taken off, with an upper bound (the lower one is 0: nobody needs it).

    Parameters
    ----------
    counts : of the measurement. eps : probability that the upper bound is wrong, shared by seven tails.

    Raises
    ------
    ValueError
        The detectors saw nothing above their background, or eps is not in (0, 1).

    Notes
    -----
    Background clicks are independent of light, so P(no click) factorises. With P1, P2, P12 the measured probabilities
    and d1, d2 the background's in the gate: s_i = (P_i - d_i) / (1 - d_i) and
    s12 = (P12 - d2 P1 - d1 P2 + d1 d2) / ((1 - d1)(1 - d2)); g2 = s12 / (s1 s2). For n <= 2 photons detectors that
    cannot count make this larger than the true g2, never smaller. However much background is taken off, the bound never
    falls below that of a measurement without any coincidence.
    """
    _require_eps(eps)
    n, ratio = counts.slots, counts.background_ratio
    d = [_in_gate(k / n, ratio) for k in counts.background]
    estimate = _g2(counts.coincidences / n, [k / n for k in counts.clicks], d, d)
    part = eps / G2_TERMS
    p12 = probability_upper(counts.coincidences, n, part)
    p = [probability_lower(k, n, part) for k in counts.clicks]
    d_lower = [_in_gate(probability_lower(k, n, part), ratio) for k in counts.background]
    d_upper = [_in_gate(probability_upper(k, n, part), ratio) for k in counts.background]
    least = _g2(probability_upper(0, n, part), p, NO_BACKGROUND, NO_BACKGROUND)
    return Bounded(max(estimate, 0.0), 0.0, max(_g2(p12, p, d_lower, d_upper), least), eps)


def mean_photon_number_bounds(
    clicks: int,
    slots: int,
    efficiency: tuple[float, float],
    g2_upper: float,
    eps: float,
    dark_clicks: int = 0,
    dark_slots: int = 0,
) -> Bounded:
    """<n> at Alice's exit from the clicks of a calibrated detector.

    Parameters
    ----------
    clicks, slots : slots with a click, of how many. efficiency : lowest and highest value from Alice's exit to a click.
    g2_upper : bound of the source. eps : probability that a bound is wrong (four tails; the efficiency's comes on top).
    dark_clicks, dark_slots : the same with the light blocked; 0, 0: no darks are subtracted.

    Raises
    ------
    ValueError
        A number has no meaning, or the detector saturates: efficiency times g2 times <n> is too large for a bound.

    Notes
    -----
    Bonferroni, for any photon-number distribution: eta <n> - eta^2 g2 <n>^2 / 2 <= P(click) <= eta <n>.
    """
    _require_eps(eps)
    low, high = efficiency
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"an efficiency interval lies in (0, 1], not {efficiency}")
    if not (math.isfinite(g2_upper) and g2_upper >= 0.0):
        raise ValueError(f"g2 is finite and >= 0, not {g2_upper}")
    part = eps / MEAN_PHOTON_NUMBER_TERMS
    d = dark_clicks / dark_slots if dark_slots else 0.0
    d_lower = probability_lower(dark_clicks, dark_slots, part) if dark_slots else 0.0
    d_upper = probability_upper(dark_clicks, dark_slots, part) if dark_slots else 0.0
    lower = max(_without(probability_lower(clicks, slots, part), d_upper), 0.0) / high
    upper = _unsaturated(max(_without(probability_upper(clicks, slots, part), d_lower), 0.0) / low, high, g2_upper)
    middle = 0.5 * (low + high)
    estimate = _unsaturated(max(_without(clicks / slots, d), 0.0) / middle, middle, g2_upper)
    return Bounded(estimate, lower, upper, eps)


def _g2(p12: float, p: list[float], d_small: list[float], d_large: list[float]) -> float:
    kept = (1.0 - d_large[0]) * (1.0 - d_large[1])
    both = (p12 - d_small[1] * p[0] - d_small[0] * p[1] + d_small[0] * d_small[1]) / kept
    s1, s2 = _without(p[0], d_large[0]), _without(p[1], d_large[1])
    if s1 <= 0.0 or s2 <= 0.0:
        raise ValueError("the detectors saw no light above their background: no bound of g2 is possible")
    return both / (s1 * s2)


def _in_gate(probability: float, ratio: float) -> float:
    """Background click in the gate from one in a window 1/ratio as wide."""
    return -math.expm1(ratio * math.log1p(-probability)) if ratio > 0.0 and probability < 1.0 else 0.0


def _without(probability: float, dark: float) -> float:
    return (probability - dark) / (1.0 - dark)


def _unsaturated(first: float, efficiency: float, g2: float) -> float:
    """Smaller root n of n - efficiency g2 n^2 / 2 = first."""
    root = 1.0 - 2.0 * efficiency * g2 * first
    if root <= 0.0:
        raise ValueError("the detector saturates: measure with less light or a smaller efficiency")
    return 2.0 * first / (1.0 + math.sqrt(root))


def _require_eps(eps: float) -> None:
    if not 0.0 < eps < 1.0:
        raise ValueError(f"a bound needs 0 < eps < 1, not {eps}")


def _tail(k: int, n: int, eps: float, end: float) -> float:
    if not (0.0 < eps < 1.0 and n > 0 and 0 <= k <= n):
        raise ValueError(f"a bound needs 0 < eps < 1 and 0 <= k <= n, not eps {eps}, {k} of {n}")
    a, needed = k / n, math.log(1.0 / eps)
    if a == end:
        return end
    inside, outside = a, end
    for _ in range(ITERATIONS):
        middle = 0.5 * (inside + outside)
        if middle in (inside, outside):
            break
        within = n * relative_entropy_nats(a, middle) <= needed
        inside, outside = (middle, outside) if within else (inside, middle)
    return outside
