"""Parameter estimation for four states {H, V, R, L}: phase error from X-basis errors.

A Z pulse and an X pulse are the same mixed qubit, so X errors sample the phase errors. Source: `README.md`, section
Four states.
"""

from __future__ import annotations

from common.security.bounds import binomial_upper, sample_upper
from common.security.tallies import Estimate, ProtocolSettings, SourceBounds, Tallies, Term

H, V, R, L = range(4)
TERMS = 2


def estimate(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, eps_term: float) -> Estimate:
    """Untagged Z events and their phase error rate."""
    c = tallies.x_counts[0]
    p_z, p_x = settings.p_z_alice, 1.0 - settings.p_z_alice
    q_z, q_x = settings.p_z_bob, 1.0 - settings.p_z_bob
    tagged_z = binomial_upper(tallies.slots_sent * p_z * q_z, source.p_multi, eps_term)
    n_u_lower = tallies.n_z_kept - tagged_z
    errors = c[R][1] + c[L][0]
    n_ph_upper = sample_upper(errors, (p_z * q_z) / (p_x * q_x), eps_term)
    terms = (Term("tagged Z pulses", tagged_z, eps_term), Term("phase errors, upper", n_ph_upper, eps_term))
    return Estimate(n_u_lower, n_ph_upper / n_u_lower if n_u_lower > 0 else 0.5, terms)
