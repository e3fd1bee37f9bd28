"""Light of several photons at a passive receiver: what of it reached one basis alone, from the cross-basis clicks.

An eavesdropper who sends k >= 2 photons makes the splitter give a click in Z alone, in X alone, or in both. She cannot
have the first two without the third. Source: ours; `README.md`, section Several photons.
"""

from __future__ import annotations

from common.security.budget import EpsilonBudget
from common.security.tallies import ReceiverBounds, Tallies, Term

BASES = ("Z", "X")
TERMS = len(BASES)


def odds(q: float, mismatch: float) -> float:
    """All of k photons : both bases clicked, at most, for the basis that a photon takes with probability q; k = 2.

    u^2 / (2 q (1 - q) (1 - D)^2) with u = q + (1 - q) D, the probability that a photon is not seen in the other basis.
    """
    u = q + (1.0 - q) * mismatch
    return u**2 / (2.0 * q * (1.0 - q) * (1.0 - mismatch) ** 2)


def several_upper(basis: str, tallies: Tallies, receiver: ReceiverBounds, budget: EpsilonBudget, eps: float) -> Term:
    """Kept detections in one basis that were made by several photons, upper bound.

    By policy "random" the slots with clicks in both bases are kept, and may all be there.
    """
    ends = (receiver.p_z_lower, receiver.p_z_upper)
    worst = max(odds(p_z if basis == "Z" else 1.0 - p_z, receiver.mismatch) for p_z in ends)
    unseen = budget.bounds.sample_upper(tallies.cross_clicks, worst, eps)
    kept = tallies.cross_clicks if receiver.cross_basis == "random" else 0
    return Term(f"several photons in {basis}, upper", unseen + kept, eps)
