"""The five links of the source paper (arXiv:2406.02045, Table 1) as plain numbers, and good choices for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.config import PZ_DENOMINATOR
from common.security.bounds import binary_entropy
from common.security.finite_key import EpsilonBudget, key_length
from common.security.tallies import ProtocolSettings, SourceBounds, Tallies
from common.units import transmittance_from_db

EXPECTED_F_EC = 1.16


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """A link's physics. Defaults: the paper's Table 1, and a dead time below one slot."""

    loss_db: float
    clock_rate_hz: float = 76.13e6
    mean_photon_number: float = 0.292
    g2: float = 0.00698
    misalignment: float = 0.0254
    receiver_efficiency: float = 0.6
    detector_efficiency: float = 0.712
    p_z_bob: float = 0.9
    dark_rate_cps: float = 43.0
    gate_ps: float = 3420.0
    pulse_width_ps: float = 75.8
    jitter_ps: float = 40.0
    dead_time_ps: int = 10_000
    resolution_ps: float = 42.0

    @property
    def dark_probability(self) -> float:
        """Dark counts per gate, all detectors together."""
        return self.dark_rate_cps * self.gate_ps * 1e-12

    @property
    def transmittance(self) -> float:
        """From Alice's exit to a click."""
        return transmittance_from_db(self.loss_db) * self.receiver_efficiency * self.detector_efficiency

    @property
    def detection_probability(self) -> float:
        """Per slot."""
        return self.mean_photon_number * self.transmittance + self.dark_probability


PRESETS: dict[str, LinkParameters] = {
    "lab-0.17dB": LinkParameters(0.17),
    "lab-5.11dB": LinkParameters(5.11),
    "lab-10.15dB": LinkParameters(10.15),
    "field-14.6dB": LinkParameters(14.6),
    "lab-15.16dB": LinkParameters(15.16),
}


@dataclass(frozen=True, slots=True)
class WeakPulses:
    """Intensities of signal, decoy and vacuum (mean photon numbers), and how often each is sent (in 2^-16)."""

    intensities: tuple[float, float, float]
    numerators: tuple[int, int, int]

    @property
    def probabilities(self) -> tuple[float, float, float]:
        """Of signal, decoy, vacuum."""
        a, b, c = self.numerators
        return a / PZ_DENOMINATOR, b / PZ_DENOMINATOR, c / PZ_DENOMINATOR


WEAK_PULSES: dict[int, WeakPulses] = {
    3_000_000: WeakPulses((0.36, 0.135, 0.0), (48_497, 15_073, 1_966)),
    30_000_000: WeakPulses((0.40, 0.085, 0.0), (60_292, 4_588, 656)),
    100_000_000: WeakPulses((0.44, 0.045, 0.0), (62_914, 2_294, 328)),
}
"""Good weak coherent pulses for blocks up to so many detections: near the optimum at every loss of the presets."""


def weak_pulses(block_size_detections: int) -> WeakPulses:
    """A good choice of intensities for blocks of this size."""
    return WEAK_PULSES[min((size for size in WEAK_PULSES if size >= block_size_detections), default=max(WEAK_PULSES))]


def expected_tallies(link: LinkParameters, settings: ProtocolSettings, detections: int) -> Tallies:
    """Mean counts of a block of ``detections`` with no weather."""
    if settings.intensities:
        return _expected_decoy_tallies(link, settings, detections)
    slots = detections / link.detection_probability
    p_z, q_z = settings.p_z_alice, settings.p_z_bob
    error = expected_qber(link)
    four = settings.protocol != "three-state"
    x_each = detections * (1.0 - q_z)
    z_half = round(x_each * p_z / 4.0)
    x_sent = x_each * (1.0 - p_z) / (2.0 if four else 1.0)
    right, wrong = round(x_sent * (1.0 - error)), round(x_sent * error)
    l_counts = (wrong, right) if four else (0, 0)
    n_z = round(detections * p_z * q_z)
    return Tallies(round(slots), (n_z,), n_z, (((z_half, z_half), (z_half, z_half), (right, wrong), l_counts),))


def _clicks(link: LinkParameters, settings: ProtocolSettings) -> list[tuple[float, float]]:
    """(probability of a click, of an error when the bases match) per slot and intensity, sent with its probability."""
    dark, pairs = link.dark_probability, zip(settings.intensities, settings.p_intensities, strict=True)
    light = [(p * -math.expm1(-mu * link.transmittance), p * dark) for mu, p in pairs]
    return [(seen + dark_part, link.misalignment * seen + 0.5 * dark_part) for seen, dark_part in light]


def _expected_decoy_tallies(link: LinkParameters, settings: ProtocolSettings, detections: int) -> Tallies:
    p_z, q_z = settings.p_z_alice, settings.p_z_bob
    clicks = _clicks(link, settings)
    slots = detections / sum(click for click, _ in clicks)
    n_z, x_counts = [], []
    for click, error in clicks:
        n_z.append(round(slots * click * p_z * q_z))
        half = round(slots * click * p_z * (1.0 - q_z) / 4.0)
        each = slots * (1.0 - p_z) * (1.0 - q_z) / 2.0
        right, wrong = round(each * (click - error)), round(each * error)
        x_counts.append(((half, half), (half, half), (right, wrong), (wrong, right)))
    return Tallies(round(slots), tuple(n_z), sum(n_z), tuple(x_counts))


def expected_qber(link: LinkParameters, settings: ProtocolSettings | None = None) -> float:
    """Misalignment of the signal, 1/2 of the darks; of all intensities together where ``settings`` names some."""
    if settings is not None and settings.intensities:
        clicks = _clicks(link, settings)
        return sum(error for _, error in clicks) / sum(click for click, _ in clicks)
    signal = link.mean_photon_number * link.transmittance
    return (link.misalignment * signal + 0.5 * link.dark_probability) / link.detection_probability


def recommended_p_z_alice(link: LinkParameters, block_size_detections: int, protocol: str = "three-state") -> float:
    """Alice's basis probability with the longest expected key, to 1/256; a multiple of 2^-16."""
    light = weak_pulses(block_size_detections) if protocol == "decoy-bb84" else None
    pulses = (light.intensities, light.probabilities) if light is not None else ((), ())

    def expected_bits(numerator: int) -> tuple[int, int]:
        settings = ProtocolSettings(protocol, numerator / PZ_DENOMINATOR, link.p_z_bob, *pulses)
        tallies = expected_tallies(link, settings, block_size_detections)
        entropy = key_leak(expected_qber(link, settings), tallies.n_z_kept)
        source = SourceBounds(link.mean_photon_number, link.g2)
        return key_length(tallies, settings, source, EpsilonBudget(), entropy, 128).ell_bits, numerator

    best, numerator = max(expected_bits(n) for n in range(PZ_DENOMINATOR // 2, PZ_DENOMINATOR - 255, 256))
    return (numerator if best else PZ_DENOMINATOR * 3 // 4) / PZ_DENOMINATOR


def key_leak(qber: float, n_bits: int) -> int:
    """Bits that reconciliation is expected to disclose."""
    return round(EXPECTED_F_EC * binary_entropy(qber) * n_bits)
