"""Parameter estimation for three states {H, V, R}: phase error from mismatched events.

Source: `README.md`, section Three states (after Tamaki et al., PRA 90, 052314, loss-tolerant estimation); the protocol
of arXiv:2406.02045.
"""

from __future__ import annotations

from common.security.bounds import binomial_upper, sample_lower, sample_upper
from common.security.tallies import Estimate, ProtocolSettings, SourceBounds, Tallies, Term

H, V, R, L = range(4)
TERMS = 6


def estimate(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, eps_term: float) -> Estimate:
    """Untagged Z events and their phase error rate.

    rho_H + rho_V = rho_R + rho_L, hence virtual L->R clicks = (clicks of R from Z pulses) - (virtual R->R clicks).
    """
    c = tallies.x_counts[0]
    p_z, p_x = settings.p_z_alice, 1.0 - settings.p_z_alice
    q_z, q_x = settings.p_z_bob, 1.0 - settings.p_z_bob
    n_s, p_multi = tallies.slots_sent, source.p_multi
    virtual_ratio = (p_z / 2.0) / p_x
    tagged_z = binomial_upper(n_s * p_z * q_z, p_multi, eps_term)
    n_u_lower = tallies.n_z_kept - tagged_z
    v_rl_upper = sample_upper(c[R][1], virtual_ratio, eps_term)
    tagged_x = binomial_upper(n_s * p_x * q_x, p_multi, eps_term)
    v_rr_lower = sample_lower(max(0.0, c[R][0] - tagged_x), virtual_ratio, eps_term)
    e_vx_upper = max(0.0, v_rl_upper + (c[H][0] + c[V][0]) - v_rr_lower)
    n_ph_upper = sample_upper(e_vx_upper, q_z / q_x, eps_term)
    terms = (
        Term("tagged Z pulses", tagged_z, eps_term),
        Term("virtual R sent, L seen, upper", v_rl_upper, eps_term),
        Term("tagged X pulses", tagged_x, eps_term),
        Term("virtual R sent, R seen, lower", v_rr_lower, eps_term),
        Term("virtual X errors, upper", e_vx_upper, 0.0),
        Term("phase errors, upper", n_ph_upper, eps_term),
    )
    return Estimate(n_u_lower, n_ph_upper / n_u_lower if n_u_lower > 0 else 0.5, terms)
