"""Parameter estimation for weak coherent pulses: four states, intensities signal > decoy > vacuum.

The single-photon counts follow from the counts of three intensities by the linear combinations of Lim et al., PRA 89,
022307, Eqs. (2)-(4) (the two-decoy protocol of Wiesemann et al., arXiv:2405.16578), with relative-entropy bounds on the
means and a coin for the phase errors. Source and departures: `README.md`, section Decoy states.
"""

from __future__ import annotations

import math

from common.security import arrivals
from common.security.budget import EpsilonBudget
from common.security.phase_errors import from_both_bases
from common.security.tallies import Estimate, L, ProtocolSettings, R, ReceiverBounds, SourceBounds, Tallies, Term

SIGNAL, DECOY, VACUUM = range(3)
TERMS = 9
PROBABILITY_SLACK = 1e-6
PHASE_BITS = 4
"""16 phases: a class of photon numbers is then within sqrt(mu^16 / 16!) of a Fock state (Cao et al. 2015)."""
BRIGHTEST = 10.0
"""Mean photons of the brightest pulse that is taken for a weak one."""


def fault(tallies: Tallies, settings: ProtocolSettings, source: SourceBounds) -> str | None:
    """Why these inputs cannot come from this protocol, or None. The bounds on <n> and g2 are not used."""
    mu, p = settings.intensities, settings.p_intensities
    if len(mu) != 3 or len(p) != 3:
        return "decoy states need three intensities and three probabilities"
    if not mu[DECOY] > mu[VACUUM] >= 0.0:
        return "the decoy is not brighter than the vacuum"
    if not max(mu) <= BRIGHTEST:
        return "an intensity is absurdly bright"
    if not mu[SIGNAL] > mu[DECOY] + mu[VACUUM]:
        return "the signal is not brighter than decoy and vacuum together"
    if not abs(sum(p) - 1.0) <= PROBABILITY_SLACK:
        return "the probabilities of the intensities do not sum to 1"
    if len(tallies.n_z) < 3:
        return f"there are counts of {len(tallies.n_z)} intensities, not of three"
    if not source.phase_bits >= PHASE_BITS:
        return f"the phase has fewer than {2**PHASE_BITS} values: the photon numbers are not Poissonian"
    never = sum(tallies.n_z[3:]) + sum(sum(symbol) for level in tallies.x_counts[3:] for symbol in level)
    return "an intensity was counted that is never sent" if never else None


def photon_probability(n: int, settings: ProtocolSettings) -> float:
    """tau_n: that a pulse of unknown intensity has n photons."""
    pairs = zip(settings.intensities, settings.p_intensities, strict=True)
    return sum(p * math.exp(-mu) * mu**n / math.factorial(n) for mu, p in pairs)


def estimate(
    tallies: Tallies, settings: ProtocolSettings, source: SourceBounds, receiver: ReceiverBounds, budget: EpsilonBudget
) -> Estimate:
    """Single-photon Z events and their phase error rate.

    With y_n = (events of n photons) / tau_n, a count scaled by e^mu / p_mu has the mean sum_n mu^n / n! y_n.
    """
    bounds, eps = budget.bounds, budget.eps_term(TERMS)
    mu, nu, vac = settings.intensities
    tau_0, tau_1 = photon_probability(0, settings), photon_probability(1, settings)
    scale = [math.exp(k) / p for k, p in zip(settings.intensities, settings.p_intensities, strict=True)]
    terms: list[Term] = []

    def scaled(counts: list[int], level: int, what: str, *, upper: bool) -> float:
        bound = (bounds.mean_upper if upper else bounds.mean_lower)(counts[level], sum(counts), eps)
        terms.append(Term(f"{what}, mean, {'upper' if upper else 'lower'}", bound, eps))
        return scale[level] * bound

    def noted(what: str, value: float) -> float:
        terms.append(Term(what, value, 0.0))
        return value

    n_z = list(tallies.n_z[:3])
    signal_upper = scaled(n_z, SIGNAL, "signal Z events", upper=True)
    decoy_lower = scaled(n_z, DECOY, "decoy Z events", upper=False)
    decoy_upper = scaled(n_z, DECOY, "decoy Z events", upper=True)
    vacuum_lower = scaled(n_z, VACUUM, "vacuum Z events", upper=False)
    vacuum_upper = scaled(n_z, VACUUM, "vacuum Z events", upper=True)
    y_0 = max(0.0, (nu * vacuum_lower - vac * decoy_upper) / (nu - vac))
    noted("Z events without a photon, lower", tau_0 * y_0)
    multi = (nu**2 - vac**2) / mu**2 * (signal_upper - y_0)
    y_1 = (decoy_lower - vacuum_upper - multi) * mu / (mu * (nu - vac) - nu**2 + vac**2)
    s_1_lower = noted("Z events of one photon, lower", max(0.0, tau_1 * y_1))
    terms.append(several := arrivals.several_upper("Z", tallies, receiver, budget, eps))
    n_u_lower = s_1_lower - (sum(n_z) - tallies.n_z_kept) - several.value

    errors = [c[R][1] + c[L][0] for c in tallies.x_counts[:3]]
    decoy_errors = scaled(errors, DECOY, "decoy X errors", upper=True)
    vacuum_errors = scaled(errors, VACUUM, "vacuum X errors", upper=False)
    v_1_upper = noted("X errors of one photon, upper", max(0.0, tau_1 * (decoy_errors - vacuum_errors) / (nu - vac)))
    v_1_upper = min(v_1_upper, float(sum(errors)))
    p_z, q_z = settings.p_z_alice, receiver.p_z_upper
    right = sum(c[R][0] + c[L][1] for c in tallies.x_counts[:3])
    ratio = (p_z * q_z) / ((1.0 - p_z) * (1.0 - q_z))
    n_ph_upper = from_both_bases(v_1_upper, right, ratio, receiver, eps)
    terms.append(Term("phase errors, upper", n_ph_upper, eps))
    return Estimate.of(n_u_lower, n_ph_upper, tuple(terms))
