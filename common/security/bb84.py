"""Parameter estimation for four states {H, V, R, L}: phase error from X-basis errors.

A Z pulse and an X pulse are the same mixed qubit, so X errors sample the phase errors. Source: `README.md`, section
Four states.
"""

from __future__ import annotations

from common.security import arrivals
from common.security.budget import EpsilonBudget
from common.security.phase_errors import from_both_bases
from common.security.tallies import Estimate, L, ProtocolSettings, R, ReceiverBounds, SourceBounds, Tallies, Term

TERMS = 3


def fault(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds) -> str | None:
    """Why these inputs cannot come from this protocol, or None."""
    return source.fault() or tallies.one_intensity_fault()


def estimate(
    tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, receiver: ReceiverBounds, budget: EpsilonBudget
) -> Estimate:
    """Untagged Z events and their phase error rate."""
    bounds, eps = budget.bounds, budget.eps_term(TERMS)
    c, p_z, q_z = tallies.x_counts[0], settings.p_z_alice, receiver.p_z_upper
    tagged = bounds.binomial_upper(tallies.slots_sent, p_z * q_z * source.p_multi, eps)
    several = arrivals.several_upper("Z", tallies, receiver, budget, eps)
    n_u_lower = tallies.n_z_kept - tagged - several.value
    ratio = (p_z * q_z) / ((1.0 - p_z) * (1.0 - q_z))
    n_ph_upper = from_both_bases(c[R][1] + c[L][0], c[R][0] + c[L][1], ratio, receiver, eps)
    terms = (Term("tagged Z pulses, upper", tagged, eps), several, Term("phase errors, upper", n_ph_upper, eps))
    return Estimate.of(n_u_lower, n_ph_upper, terms)
