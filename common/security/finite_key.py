"""From tallies to the length of the secret key and its itemised ledger. Zero is an answer, with its reason.

Source: `README.md`, section Length; Tomamichel et al., Nat. Commun. 3, 634 (finite keys by the uncertainty relation).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from common.security import assumes as assumptions
from common.security import bb84, decoy, monitors, three_state
from common.security.bounds import binary_entropy
from common.security.budget import EpsilonBudget, eps_verify
from common.security.tallies import (
    LARGEST_COUNT,
    SMALLEST_PROBABILITY,
    Estimate,
    Monitor,
    ProtocolSettings,
    ReceiverBounds,
    SourceBounds,
    Tallies,
    Term,
)

__all__ = ["PROTOCOLS", "EpsilonBudget", "Ledger", "key_length"]

LEDGER_VERSION = 3
PROTOCOLS = {"three-state": three_state, "bb84": bb84, "decoy-bb84": decoy}
"""The proofs by the protocol's name: each has `TERMS`, `fault` and `estimate` with the same signature."""

NOTHING = Estimate(0.0, 0.5, ())
"""What is known where nothing could be estimated."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """How the key length of one block came about: every term, its eps, its inputs."""

    ell_bits: int
    refusal: str | None
    n_u_lower: float
    phi_upper: float
    leak_ec_bits: int
    leak_verify_bits: int
    leak_monitor_bits: int
    pa_cost_bits: float
    eps_spent: float
    terms: tuple[Term, ...]
    monitors: tuple[Monitor, ...]
    tallies: Tallies
    settings: ProtocolSettings
    source: SourceBounds
    receiver: ReceiverBounds
    budget: EpsilonBudget
    assumes: tuple[str, ...]
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
    receiver: ReceiverBounds,
    budget: EpsilonBudget,
    leak_ec_bits: int,
    leak_verify_bits: int,
    assumes: tuple[str, ...] = (),
) -> Ledger:
    """ell = n_u (1 - h(phi)) - leak - 2 log2(1 / (2 eps_PA)), rounded down to whole bytes.

    Parameters
    ----------
    assumes : sentences about what the length rests on beyond these numbers, for the ledger.

    Never raises for odd numbers: the ledger then has length 0 and says why.
    """
    leaks = (leak_ec_bits, leak_verify_bits, monitors.LEAK_BITS)

    def ledger(
        ell_bits: int,
        refusal: str | None,
        estimate: Estimate = NOTHING,
        watched: tuple[Monitor, ...] = (),
        pa_cost_bits: float = 0.0,
        eps_spent: float = 0.0,
    ) -> Ledger:
        return Ledger(
            ell_bits=ell_bits,
            refusal=refusal,
            n_u_lower=estimate.n_u_lower,
            phi_upper=min(max(estimate.phi_upper, 0.0), 0.5),
            leak_ec_bits=leak_ec_bits,
            leak_verify_bits=leak_verify_bits,
            leak_monitor_bits=monitors.LEAK_BITS,
            pa_cost_bits=pa_cost_bits,
            eps_spent=eps_spent,
            terms=estimate.terms,
            monitors=watched,
            tallies=tallies,
            settings=settings,
            source=source,
            receiver=receiver,
            budget=budget,
            assumes=tuple(dict.fromkeys((*assumptions.sentences(settings, budget), *assumes))),
        )

    fault = tallies.fault() or budget.fault() or receiver.fault() or _settings_fault(settings, source, receiver)
    if fault is None and not all(0 <= leak <= LARGEST_COUNT for leak in leaks):
        fault = f"a leak is negative or above {LARGEST_COUNT}"
    if fault is None:
        fault = PROTOCOLS[settings.protocol].fault(tallies, settings, source)
    if fault is not None:
        return ledger(0, fault)
    estimate = PROTOCOLS[settings.protocol].estimate(tallies, settings, source, receiver, budget)
    watched, alarm = monitors.monitors(tallies, settings, receiver)
    spent = budget.eps_spent(sum(term.eps for term in estimate.terms), source.eps + receiver.eps)
    n_u, phi = estimate.n_u_lower, estimate.phi_upper
    refusal, ell = alarm, 0
    if not (math.isfinite(n_u) and math.isfinite(phi)):
        return ledger(0, "a bound is not finite")
    if refusal is not None:
        pass
    elif n_u <= 0.0:
        refusal = "all Z events may be multi-photon events"
    elif phi >= 0.5:
        refusal = "the phase error rate may be 1/2"
    elif budget.eps_cor < eps_verify(tallies.n_z_kept):
        refusal = f"eps_cor is below {eps_verify(tallies.n_z_kept):.1e}, what verification of these bits reaches"
    elif budget.accounting != "paper" and spent > budget.eps_total:
        refusal = "the epsilon budget is overspent"
    else:
        ell = max(0, math.floor((n_u * (1.0 - binary_entropy(phi)) - sum(leaks) - budget.pa_cost_bits) / 8.0) * 8)
        refusal = None if ell else "the leak and the phase errors leave no key"
    return ledger(ell, refusal, estimate, watched, budget.pa_cost_bits, spent)


def _settings_fault(settings: ProtocolSettings, source: SourceBounds, receiver: ReceiverBounds) -> str | None:
    if settings.protocol not in PROTOCOLS:
        return f"there is no proof for protocol {settings.protocol!r}"
    probabilities = (settings.p_z_alice, settings.p_z_bob, *settings.p_intensities)
    if not all(SMALLEST_PROBABILITY <= p <= 1.0 - SMALLEST_PROBABILITY for p in probabilities):
        return "a probability is not strictly between 0 and 1"
    if not receiver.p_z_lower <= settings.p_z_bob <= receiver.p_z_upper:
        return "the receiver's basis probability is not in its interval"
    if not 0.0 <= source.eps <= 1.0:
        return "the probability that a source bound is wrong is not in 0 .. 1"
    return None
