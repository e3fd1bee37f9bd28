"""Parameter estimation for three states {H, V, R}: phase error from mismatched events.

Source: ours, `README.md`, section Phase errors (mismatched events after Tamaki et al., PRA 90, 052314); the protocol of
arXiv:2406.02045.
"""

from __future__ import annotations

import math

from common.security import arrivals
from common.security.budget import EpsilonBudget
from common.security.phase_errors import Mismatch, least, price, steepest
from common.security.tallies import Estimate, H, L, ProtocolSettings, R, ReceiverBounds, SourceBounds, Tallies, Term, V

TERMS = 5


def fault(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds) -> str | None:
    """Why these inputs cannot come from this protocol, or None."""
    if (why := source.fault() or tallies.one_intensity_fault()) is not None:
        return why
    return "L was counted, which three states never send" if sum(tallies.x_counts[0][L]) else None


def estimate(
    tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, receiver: ReceiverBounds, budget: EpsilonBudget
) -> Estimate:
    """Untagged Z events and their phase error rate.

    rho_H + rho_V = rho_R + rho_L, hence virtual L->R clicks = (clicks of R from Z pulses) - (virtual R->R clicks).
    """
    bounds, eps = budget.bounds, budget.eps_term(TERMS)
    c, p_z, p_x = tallies.x_counts[0], settings.p_z_alice, 1.0 - settings.p_z_alice
    q_z, q_x = receiver.p_z_upper, 1.0 - receiver.p_z_lower
    slots, p_multi = tallies.slots_sent, source.p_multi
    tagged_z = Term("tagged Z pulses, upper", bounds.binomial_upper(slots, p_z * q_z * p_multi, eps), eps)
    tagged_x = Term("tagged X pulses, upper", bounds.binomial_upper(slots, p_x * q_x * p_multi, eps), eps)
    several_z, several_x = (arrivals.several_upper(b, tallies, receiver, budget, eps) for b in arrivals.BASES)
    n_u_lower = tallies.n_z_kept - tagged_z.value - several_z.value
    right_lower = max(0.0, c[R][0] - tagged_x.value - several_x.value)
    n_ph_upper = phase_errors(c[R][1], c[H][0] + c[V][0], c[H][1] + c[V][1], right_lower, p_z, receiver, eps)
    terms = (tagged_z, tagged_x, several_z, several_x, Term("phase errors, upper", n_ph_upper, eps))
    return Estimate.of(n_u_lower, n_ph_upper, terms)


def phase_errors(
    wrong: float, z_r: float, z_l: float, right: float, p_z: float, receiver: ReceiverBounds, eps: float
) -> float:
    """N_ph <= a c[R][L] + b (R from Z pulses) + m (L from Z pulses) - g (untagged c[R][R]) + ln(64 / eps) / lambda.

    Parameters
    ----------
    wrong, z_r, z_l, right : c[R][L], c[H][R] + c[V][R], c[H][L] + c[V][L], lower bound of the untagged c[R][R].
    """

    def counted(exponent: float) -> tuple[float, float]:
        a, b, m, g = coefficients(exponent, p_z, receiver)
        return a * wrong + b * z_r + m * z_l, g * right

    return least(limit(p_z, receiver), eps, counted)


def coefficients(exponent: float, p_z: float, receiver: ReceiverBounds) -> tuple[float, float, float, float]:
    """a, b, m, g for which the mean is 1 in the events (R, L), (L, R), (L, L), (R, R) of (sent, X outcome)."""
    gain, loss, flip = _weights(receiver)
    w = virtual(p_z)
    a = price(w * gain, (1.0 - w) * loss, exponent)
    b = price(gain, loss, exponent)
    m = price(flip, loss, exponent)
    e_b, e_m = math.expm1(-exponent * b), math.expm1(-exponent * m)
    g = math.log1p(w / (1.0 - w) * (e_m - e_b)) / exponent
    return a, b, m, g


def limit(p_z: float, receiver: ReceiverBounds) -> float:
    """The exponent at which a or b becomes infinite."""
    gain, loss, _ = _weights(receiver)
    w = virtual(p_z)
    return min(steepest(gain, loss), steepest(w * gain, (1.0 - w) * loss))


def virtual(p_z: float) -> float:
    """w: that a pulse which is |R>, virtually or really, was meant for Z."""
    return (p_z / 2.0) / (1.0 - p_z / 2.0)


def _weights(receiver: ReceiverBounds) -> tuple[float, float, float]:
    """Of a wrong X outcome: to be a phase error, to be seen; of a right one: to be a phase error."""
    unequal, q_z = Mismatch.of(receiver), receiver.p_z_upper
    return q_z * (1.0 + unequal.more), (1.0 - q_z) * unequal.seen, q_z * unequal.flip
