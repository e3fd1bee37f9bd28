"""From tallies to the length of the secret key and its itemised ledger. Zero is an answer, with its reason.

Source: `README.md`, section Length; Tomamichel et al., Nat. Commun. 3, 634 (finite keys by the uncertainty relation).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from common.security import bb84, three_state
from common.security.bounds import binary_entropy
from common.security.tallies import ProtocolSettings, SourceBounds, Tallies, Term

LEDGER_VERSION = 1
PROTOCOLS = {"three-state": three_state, "bb84": bb84}
ESTIMATION_SHARE = 0.1
"""sqrt of the sum of all estimation eps, as a part of eps_total: 2 sqrt(sum) takes a fifth of the budget."""
AMPLIFICATION_SHARE = 0.25
PAPER_EPS_TERM = 1e-10 / 12.0
PAPER_EPS_PA = 1e-10 / 24.0


@dataclass(frozen=True, slots=True)
class EpsilonBudget:
    """The agreed budget, shared out.

    Parameters
    ----------
    accounting : "composable" (default) or "paper" (each bound at 1e-10/12, no square root; for comparison only).
    eps_total, eps_cor, eps_auth : totals of the configuration.
    """

    accounting: str = "composable"
    eps_total: float = 1e-10
    eps_cor: float = 1e-15
    eps_auth: float = 1e-15

    @property
    def eps_pa(self) -> float:
        """Leftover hashing's share."""
        return PAPER_EPS_PA if self.accounting == "paper" else AMPLIFICATION_SHARE * self.eps_total

    def eps_term(self, terms: int) -> float:
        """Each estimation bound's share."""
        if self.accounting == "paper":
            return PAPER_EPS_TERM
        return (ESTIMATION_SHARE * self.eps_total) ** 2 / terms

    def eps_spent(self, estimation: float, source: float) -> float:
        """eps_total as spent: 2 sqrt(sum of estimation eps) + eps_PA + eps_cor + eps_auth + source bounds."""
        smoothing = estimation if self.accounting == "paper" else 2.0 * math.sqrt(estimation)
        return smoothing + self.eps_pa + self.eps_cor + self.eps_auth + source

    def fault(self) -> str | None:
        """Why no key can come of this budget, or None."""
        values = (self.eps_total, self.eps_cor, self.eps_auth)
        if not all(0.0 < value < 1.0 for value in values):
            return "an epsilon is not between 0 and 1"
        if self.eps_cor + self.eps_auth > 0.5 * self.eps_total:
            return "eps_cor and eps_auth leave too little of eps_total"
        return None


@dataclass(frozen=True, slots=True)
class Ledger:
    """How the key length of one block came about: every term, its eps, its inputs."""

    ell_bits: int
    refusal: str | None
    n_u_lower: float
    phi_upper: float
    leak_ec_bits: int
    leak_verify_bits: int
    pa_cost_bits: float
    eps_spent: float
    terms: tuple[Term, ...]
    tallies: Tallies
    settings: ProtocolSettings
    source: SourceBounds
    budget: EpsilonBudget
    version: int = LEDGER_VERSION

    def to_json(self) -> str:
        """Canonical JSON: the same ledger is the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    def digest(self) -> bytes:
        """32-byte SHA-256 of :meth:`to_json`."""
        return hashlib.sha256(self.to_json().encode()).digest()


def key_length(
    tallies: Tallies,
    settings: ProtocolSettings,
    source: SourceBounds,
    budget: EpsilonBudget,
    leak_ec_bits: int,
    leak_verify_bits: int,
) -> Ledger:
    """ell = n_u (1 - h(phi)) - leak_EC - leak_verify - 2 log2(1 / (2 eps_PA)), rounded down to whole bytes.

    Never raises for odd numbers: the ledger then has length 0 and says why.
    """

    def refuse(why: str) -> Ledger:
        return Ledger(0, why, 0.0, 0.5, leak_ec_bits, leak_verify_bits, 0.0, 0.0, (), tallies, settings, source, budget)

    fault = tallies.fault() or budget.fault() or _settings_fault(settings, source)
    if fault is None and (leak_ec_bits < 0 or leak_verify_bits < 0):
        fault = "a leak is negative"
    if fault is not None:
        return refuse(fault)
    proof = PROTOCOLS[settings.protocol]
    estimate = proof.estimate(tallies, settings, source, budget.eps_term(proof.TERMS))
    pa_cost = 2.0 * math.log2(1.0 / (2.0 * budget.eps_pa))
    spent = budget.eps_spent(sum(term.eps for term in estimate.terms), source.eps)
    n_u, phi = estimate.n_u_lower, estimate.phi_upper
    refusal, ell = None, 0
    if not (math.isfinite(n_u) and math.isfinite(phi)):
        return refuse("a bound is not finite")
    if n_u <= 0.0:
        refusal = "all Z events may be multi-photon events"
    elif phi >= 0.5:
        refusal = "the phase error rate may be 1/2"
    elif budget.accounting != "paper" and spent > budget.eps_total:
        refusal = "the epsilon budget is overspent"
    else:
        length = n_u * (1.0 - binary_entropy(phi)) - leak_ec_bits - leak_verify_bits - pa_cost
        ell = max(0, math.floor(length / 8.0) * 8)
        refusal = None if ell else "the leak and the phase errors leave no key"
    return Ledger(
        ell,
        refusal,
        n_u,
        min(max(phi, 0.0), 0.5),
        leak_ec_bits,
        leak_verify_bits,
        pa_cost,
        spent,
        estimate.terms,
        tallies,
        settings,
        source,
        budget,
    )


def _settings_fault(settings: ProtocolSettings, source: SourceBounds) -> str | None:
    if settings.protocol not in PROTOCOLS:
        return f"there is no proof for protocol {settings.protocol!r}"
    if not (0.0 < settings.p_z_alice < 1.0 and 0.0 < settings.p_z_bob < 1.0):
        return "a basis probability is not strictly between 0 and 1"
    values = (source.mean_photon_number_upper, source.g2_upper, source.eps)
    if not all(math.isfinite(value) and value >= 0.0 for value in values):
        return "a source bound is negative or not finite"
    if source.mean_photon_number_upper == 0.0:
        return "the source's mean photon number is 0"
    return None
