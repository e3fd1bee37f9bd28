"""Phase errors from what was counted in X: a supermartingale for each exponent, instead of several bounds added up.

For an exponent lambda the coefficients x are chosen so that exp(lambda (N_ph - x . counts)) has a conditional mean of
at most 1 in every event, whatever was done before; Ville's inequality then bounds N_ph wherever the block ends.
Source: ours; derived in `README.md`, section Phase errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.security.bounds import require
from common.security.tallies import ReceiverBounds

GRID_POINTS = 64
GRID_RATIO = 1.25
TOP = 0.99
"""The largest exponent as a part of the one at which the coefficients become infinite."""
ROUNDING = 1e-12
"""More than what floating point may do to a sum of products of about ten roundings each."""
BALANCE = 4.0
"""How the two terms of a mismatch share; best for a phase error rate of 1/17, and within 5 % from 2 to 14 %."""


class Mismatch(NamedTuple):
    """The Z detectors' unequal efficiencies as a filter: P(phase error) <= (1 + more) P(wrong) + flip P(right) in X.

    ``seen`` is the least part of the X outcomes that is detected.
    """

    more: float
    flip: float
    seen: float

    @classmethod
    def of(cls, receiver: ReceiverBounds) -> Mismatch:
        """From the largest relative difference D of two efficiencies: d = (1 - sqrt(1 - D)) / 2."""
        d = receiver.mismatch / (2.0 * (1.0 + math.sqrt(1.0 - receiver.mismatch)))
        return cls(BALANCE * d, d * d + d / BALANCE, 1.0 - receiver.mismatch)


def price(gain: float, loss: float, exponent: float) -> float:
    """What an observed event must count: x with gain (e^lambda - 1) + loss (e^(-lambda x) - 1) = 0."""
    return -math.log1p(-gain * math.expm1(exponent) / loss) / exponent


def steepest(gain: float, loss: float) -> float:
    """The exponent at which :func:`price` becomes infinite."""
    return math.log1p(loss / gain)


def grid(limit: float) -> Iterator[float]:
    """The exponents: fixed by the settings, before anything is counted."""
    return (TOP * limit / GRID_RATIO**j for j in range(GRID_POINTS))


def least(limit: float, eps: float, counted: Callable[[float], tuple[float, float]]) -> float:
    """The best of the bounds (for - against) + ln(64 / eps) / lambda, of which none fails but with probability eps.

    Parameters
    ----------
    limit : of the exponents. eps : that the bound is wrong, at whichever event the block ends.
    counted : what the observed events count for and against the phase errors at an exponent, both >= 0.
    """
    require(eps)
    needed = math.log(GRID_POINTS / eps)

    def bound(exponent: float) -> float:
        more, less = counted(exponent)
        return (1.0 + ROUNDING) * (more + needed / exponent) - (1.0 - ROUNDING) * less

    return max(0.0, min(map(bound, grid(limit))))


def from_both_bases(wrong: float, right: float, ratio: float, receiver: ReceiverBounds, eps: float) -> float:
    """Phase errors from the X errors of four states: a wrong + m right + ln(64 / eps) / lambda.

    Parameters
    ----------
    wrong, right : X outcomes of X symbols (upper bounds). ratio : (Z sent, Z measured) : (X sent, X measured).
    """
    unequal = Mismatch.of(receiver)
    gain, loss = ratio, unequal.seen

    def counted(exponent: float) -> tuple[float, float]:
        a = price((1.0 + unequal.more) * gain, loss, exponent)
        m = price(unequal.flip * gain, loss, exponent)
        return a * wrong + m * right, 0.0

    return least(steepest((1.0 + unequal.more) * gain, loss), eps, counted)
