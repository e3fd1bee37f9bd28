"""Parameter estimation for four states {H, V, R, L}: phase error from X-basis errors.

A Z pulse and an X pulse are the same mixed qubit, so X errors sample the phase errors. Source: `README.md`, section
Four states.
"""

from __future__ import annotations

from common.security.budget import EpsilonBudget
from common.security.tallies import Estimate, L, ProtocolSettings, R, ReceiverBounds, SourceBounds, Tallies, Term

TERMS = 2


def fault(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds) -> str | None:
    """Why these inputs cannot come from this protocol, or None."""
    return source.fault() or tallies.one_intensity_fault()


def estimate(
    tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, receiver: ReceiverBounds, budget: EpsilonBudget
) -> Estimate:
    """Untagged Z events and their phase error rate."""
    bounds, eps = budget.bounds, budget.eps_term(TERMS)
    c = tallies.x_counts[0]
    p_z, p_x = settings.p_z_alice, 1.0 - settings.p_z_alice
    q_z, q_x = settings.p_z_bob, 1.0 - settings.p_z_bob
    tagged_z = bounds.binomial_upper(tallies.slots_sent, p_z * q_z * source.p_multi, eps)
    n_u_lower = tallies.n_z_kept - tagged_z
    errors = c[R][1] + c[L][0]
    n_ph_upper = bounds.sample_upper(errors, (p_z * q_z) / (p_x * q_x), eps)
    terms = (Term("tagged Z pulses, upper", tagged_z, eps), Term("phase errors, upper", n_ph_upper, eps))
    return Estimate.of(n_u_lower, n_ph_upper, terms)
