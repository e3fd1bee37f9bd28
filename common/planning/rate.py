"""The expected key of one block at given settings: link model -> tallies -> key length, with its JSON form."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import InputError
from common.planning.link_model import (
    DECOY,
    EXPECTED_F_EC,
    Expected,
    ReceiverRules,
    attenuated,
    expected_block,
    key_leak,
    receiver_bounds,
    source_bounds,
)
from common.planning.presets import LinkParameters
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from common.security import finite_key
from common.security.bounds import binary_entropy
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds
from common.units import transmittance_from_db

LEAK_VERIFY_BITS = 128
KEY_SLOTS_SHARE = 1.0 - PREAMBLE_SLOTS / EPOCH_SLOTS
#: Of a block that no proof can use: below every merit that a block can have.
WORST_MERIT = -1e3


@dataclass(frozen=True, slots=True)
class Task:
    """What is given and does not change while settings are varied.

    Parameters
    ----------
    link : the physics before any pre-attenuation. protocol : its name. block_size : detections of a block.
    budget, f_ec, rules : accounting, expected error-correction efficiency, Bob's click rules.
    source : bounds that the proof uses, before pre-attenuation; None: equal to the link's own numbers.
    receiver : bounds of the detectors; None: likewise.
    """

    link: LinkParameters
    protocol: str = "three-state"
    block_size: int = 1_000_000
    budget: EpsilonBudget = field(default_factory=EpsilonBudget)
    f_ec: float = EXPECTED_F_EC
    rules: ReceiverRules = field(default_factory=ReceiverRules)
    source: SourceBounds | None = None
    receiver: ReceiverBounds | None = None

    @property
    def bounds(self) -> ReceiverBounds:
        """Of the receiver, for the proof."""
        return self.receiver or receiver_bounds(self.link, self.rules)

    def settings(
        self, p_z_alice: float, intensities: tuple[float, ...] = (), p_intensities: tuple[float, ...] = ()
    ) -> ProtocolSettings:
        """Settings of this task's protocol and receiver."""
        return ProtocolSettings(self.protocol, p_z_alice, self.link.p_z_bob, intensities, p_intensities)


@dataclass(frozen=True, slots=True)
class Rate:
    """What one block is expected to give."""

    task: Task
    attenuation_db: float
    expected: Expected
    ledger: Ledger

    @property
    def settings(self) -> ProtocolSettings:
        """The settings that were evaluated."""
        return self.ledger.settings

    @property
    def bits_per_pulse(self) -> float:
        """Secret bits over key slots sent."""
        return self.ledger.ell_bits / self.ledger.tallies.slots_sent

    @property
    def seconds(self) -> float:
        """Duration of a block, preambles included."""
        return self.ledger.tallies.slots_sent / (self.task.link.clock_rate_hz * KEY_SLOTS_SHARE)

    @property
    def secret_key_rate_bps(self) -> float:
        """Secret bits per second of light."""
        return self.ledger.ell_bits / self.seconds

    @property
    def merit(self) -> float:
        """Bits per pulse before rounding; without a key, bits missing per bit of Z: the way from nothing to a key."""
        ledger = self.ledger
        if ledger.terms == () or not math.isfinite(ledger.n_u_lower):
            return WORST_MERIT
        spent = ledger.leak_ec_bits + ledger.leak_verify_bits + ledger.pa_cost_bits
        secret = max(ledger.n_u_lower, 0.0) * (1.0 - binary_entropy(min(ledger.phi_upper, 0.5)))
        if ledger.phi_upper >= 0.5 or ledger.n_u_lower <= 0.0:
            secret = min(ledger.n_u_lower, 0.0)
        bits = secret - spent
        return bits / (ledger.tallies.slots_sent if bits > 0.0 else max(sum(ledger.tallies.n_z), 1))

    def document(self) -> dict[str, Any]:
        """The JSON fields of `qkd plan`."""
        ledger, settings = self.ledger, self.settings
        return {
            "protocol": settings.protocol,
            "loss_db": self.task.link.loss_db,
            "bits_per_pulse": self.bits_per_pulse,
            "secret_bits": ledger.ell_bits,
            "secret_key_rate_bps": self.secret_key_rate_bps,
            "refusal": ledger.refusal,
            "phase_error_upper": ledger.phi_upper,
            "n_u_lower": ledger.n_u_lower,
            "n_z": sum(ledger.tallies.n_z),
            "qber": self.expected.qber,
            "leak_ec_bits": ledger.leak_ec_bits,
            "f_ec": self.task.f_ec,
            "p_z_alice": settings.p_z_alice,
            "p_z_bob": settings.p_z_bob,
            "p_z_bob_interval": [ledger.receiver.p_z_lower, ledger.receiver.p_z_upper],
            "mismatch": ledger.receiver.mismatch,
            "attenuation_db": self.attenuation_db,
            "intensities": list(settings.intensities),
            "p_intensities": list(settings.p_intensities),
            "block_size": self.task.block_size,
            "slots": ledger.tallies.slots_sent,
            "block_seconds": self.seconds,
            "accounting": ledger.budget.accounting,
            "tails": ledger.budget.tails,
            "eps_spent": ledger.eps_spent,
            "terms": {term.name: term.value for term in ledger.terms},
        }


def evaluate(task: Task, settings: ProtocolSettings, attenuation_db: float = 0.0) -> Rate:
    """The expected key of one block.

    Raises
    ------
    InputError
        A number has no meaning, or no proof for the protocol is installed.
    """
    require_proof(task.protocol)
    if not (math.isfinite(task.f_ec) and task.f_ec >= 1.0):
        raise InputError(f"f_EC = {task.f_ec} is below the Shannon limit 1", remedy="Give an f_EC of 1 or more.")
    fault = task.budget.fault()
    if fault is not None:
        raise InputError(fault, remedy="Correct the epsilon budget.")
    link = attenuated(task.link, attenuation_db)
    expected = expected_block(link, settings, task.block_size, task.rules)
    source = source_bounds(link, settings)
    if task.source is not None and task.protocol != DECOY:
        kept = transmittance_from_db(attenuation_db)
        source = replace(task.source, mean_photon_number_upper=task.source.mean_photon_number_upper * kept)
    leak = key_leak(expected.qber, expected.tallies.n_z_kept, task.f_ec)
    ledger = key_length(expected.tallies, settings, source, task.bounds, task.budget, leak, LEAK_VERIFY_BITS)
    return Rate(task, attenuation_db, expected, ledger)


def require_proof(protocol: str) -> None:
    """Refuse a protocol whose estimation is not there."""
    if protocol not in finite_key.PROTOCOLS:
        raise InputError(
            f"there is no finite-key proof for protocol {protocol!r} in this version",
            remedy="Plan one of: " + ", ".join(sorted(finite_key.PROTOCOLS)) + ".",
        )
