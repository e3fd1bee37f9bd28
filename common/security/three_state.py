"""Parameter estimation for three states {H, V, R}: phase error from mismatched events.

Source: `README.md`, section Three states (after Tamaki et al., PRA 90, 052314, loss-tolerant estimation); the protocol
of arXiv:2406.02045.
"""

from __future__ import annotations

from common.security.budget import EpsilonBudget
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
    c = tallies.x_counts[0]
    p_z, p_x = settings.p_z_alice, 1.0 - settings.p_z_alice
    q_z, q_x = settings.p_z_bob, 1.0 - settings.p_z_bob
    n_s, p_multi = tallies.slots_sent, source.p_multi
    virtual_ratio = (p_z / 2.0) / p_x
    tagged_z = bounds.binomial_upper(n_s, p_z * q_z * p_multi, eps)
    n_u_lower = tallies.n_z_kept - tagged_z
    v_rl_upper = bounds.sample_upper(c[R][1], virtual_ratio, eps)
    tagged_x = bounds.binomial_upper(n_s, p_x * q_x * p_multi, eps)
    v_rr_lower = bounds.sample_lower(max(0.0, c[R][0] - tagged_x), virtual_ratio, eps)
    e_vx_upper = max(0.0, v_rl_upper + (c[H][0] + c[V][0]) - v_rr_lower)
    n_ph_upper = bounds.sample_upper(e_vx_upper, q_z / q_x, eps)
    terms = (
        Term("tagged Z pulses, upper", tagged_z, eps),
        Term("virtual R sent, L seen, upper", v_rl_upper, eps),
        Term("tagged X pulses, upper", tagged_x, eps),
        Term("virtual R sent, R seen, lower", v_rr_lower, eps),
        Term("virtual X errors, upper", e_vx_upper, 0.0),
        Term("phase errors, upper", n_ph_upper, eps),
    )
    return Estimate.of(n_u_lower, n_ph_upper, terms)
