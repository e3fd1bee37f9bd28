"""From tallies to the length of the secret key and its itemised ledger. Zero is an answer, with its reason.

Source: `README.md`, section Length; Tomamichel et al., Nat. Commun. 3, 634 (finite keys by the uncertainty relation).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from common.security import bb84, decoy, three_state
from common.security.bounds import binary_entropy
from common.security.budget import EpsilonBudget
from common.security.tallies import ProtocolSettings, SourceBounds, Tallies, Term

__all__ = ["PROTOCOLS", "EpsilonBudget", "Ledger", "key_length"]

LEDGER_VERSION = 2
PROTOCOLS = {"three-state": three_state, "bb84": bb84, "decoy-bb84": decoy}
"""The proofs by the protocol's name: each has `TERMS`, `fault` and `estimate` with the same signature."""

SMALLEST_PROBABILITY = 2.0**-32


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
    if fault is None and not all(math.isfinite(leak) and leak >= 0 for leak in (leak_ec_bits, leak_verify_bits)):
        fault = "a leak is negative or not finite"
    if fault is None:
        fault = PROTOCOLS[settings.protocol].fault(tallies, settings, source)
    if fault is not None:
        return refuse(fault)
    estimate = PROTOCOLS[settings.protocol].estimate(tallies, settings, source, budget)
    pa_cost = budget.pa_cost_bits
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
    probabilities = (settings.p_z_alice, settings.p_z_bob, *settings.p_intensities)
    if not all(SMALLEST_PROBABILITY <= p <= 1.0 - SMALLEST_PROBABILITY for p in probabilities):
        return "a probability is not strictly between 0 and 1"
    if not (math.isfinite(source.eps) and source.eps >= 0.0):
        return "the probability that a source bound is wrong is negative or not finite"
    return None
