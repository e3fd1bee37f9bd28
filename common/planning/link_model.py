"""From a link's description to the mean tallies of a block: closed forms of what the digital twin samples.

A slot's four detectors are blind spots of one distribution: with N(S) = P(no click in the set S) known for all 16 sets,
every pattern of clicks follows by inclusion and exclusion, doubles and darks included, and is resolved by Bob's rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from common.config import ProtocolName, check_gate
from common.errors import InputError
from common.kernels.click_rule import CROSS, DOUBLE, KINDS, CrossBasis, shares
from common.planning.presets import LinkParameters
from common.security.bounds import binary_entropy
from common.security.decoy import PHASE_BITS
from common.security.tallies import ONES_STEPS, ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.units import PS_PER_S, transmittance_from_db

EXPECTED_F_EC = 1.16
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
SYMBOLS = 4
DECOY = "decoy-bb84"
PROTOCOL_NAMES = get_args(ProtocolName)

Floats = NDArray[np.float64]

_BITS = (np.arange(16)[:, None] >> np.arange(4)) & 1
#: P(exactly M) = -sum over T within M of (-1)^|M without T| P(a click in the complement of T), for M not empty.
_EXACTLY = np.array(
    [[-((-1.0) ** int(_BITS[m ^ t].sum())) if t & m == t and m else 0.0 for t in range(16)][::-1] for m in range(16)]
)


@dataclass(frozen=True, slots=True)
class ReceiverRules:
    """Bob's rules for clicks: common dead time, what a cross-basis slot becomes, and who chooses the basis.

    ``passive`` is the node's receiver, a splitter; otherwise a switch sends all photons of a slot into one basis. Only
    rates to compare with have that.
    """

    dead_time_ps: int = 0
    cross_basis: CrossBasis = "discard"
    passive: bool = True


@dataclass(frozen=True, slots=True)
class Expected:
    """The mean block of a link.

    Parameters
    ----------
    tallies : rounded mean counts.
    qber : of the Z events.
    detection_probability : detections per slot, as Bob counts them.
    double_probability, cross_probability : slots with two detectors of one basis, of both bases.
    """

    tallies: Tallies
    qber: float
    detection_probability: float
    double_probability: float
    cross_probability: float


def expected_block(
    link: LinkParameters, settings: ProtocolSettings, detections: float, rules: ReceiverRules | None = None
) -> Expected:
    """Mean tallies of a block of ``detections``, without fading.

    Parameters
    ----------
    link : the physics; a preamble's slots are not key slots and not counted.
    settings : protocol and probabilities; for decoy-bb84 its intensities replace the link's source.
    detections : clicks after Bob's rules, all bases and symbols, as `block_size_detections` counts them.
    rules : Bob's dead time and double-click rule.

    Raises
    ------
    InputError
        A number has no meaning; it is named.
    """
    check_link(link)
    check_settings(settings)
    if not (math.isfinite(detections) and detections >= 1.0):
        raise InputError(f"block size must be a number >= 1, not {detections}", remedy="Give 1e4 to 1e8 detections.")
    rules = rules or ReceiverRules()
    p_sent = sent_probabilities(settings)
    patterns = click_patterns(link, settings, p_sent, rules)
    outcomes = patterns @ np.array(shares(rules.cross_basis))
    joint = p_sent[:, :, None] * outcomes
    per_slot = float(joint.sum())
    if per_slot <= 0.0:
        raise InputError("nothing would ever be detected", remedy="Give a source, a loss and darks that give clicks.")
    slots = detections / per_slot
    counts = slots * joint
    z_counts, x_counts = counts[:, :2, :2], np.rint(counts[:, :, 2:]).astype(int)
    n_z = np.rint(z_counts.sum(axis=(1, 2))).astype(int)
    wrong = float(z_counts[:, 0, 1].sum() + z_counts[:, 1, 0].sum())
    cells = tuple(tuple((int(pair[0]), int(pair[1])) for pair in level) for level in x_counts)
    mean = np.tensordot(p_sent, patterns, axes=2)
    doubles, crossed = float(mean[KINDS == DOUBLE].sum()), float(mean[KINDS == CROSS].sum())
    n_x, n_z_seen = int(x_counts.sum()), round(float(counts[:, :, :2].sum()))
    tallies = Tallies(
        slots_sent=round(slots),
        n_z=tuple(int(n) for n in n_z),
        n_z_kept=int(n_z.sum()),
        x_counts=cells,
        z_detections=max(n_z_seen, int(n_z.sum())),
        x_detections=n_x,
        cross_clicks=round(slots * crossed),
        double_clicks=round(slots * doubles),
        z_ones_steps=min(round(ONES_STEPS * float(z_counts[:, :, 1].sum() / z_counts.sum())), ONES_STEPS - 1),
    )
    return Expected(tallies, wrong / float(z_counts.sum()), per_slot, doubles, crossed)


def expected_tallies(link: LinkParameters, settings: ProtocolSettings, detections: float) -> Tallies:
    """Mean counts of a block under the default rules."""
    return expected_block(link, settings, detections).tallies


def expected_qber(link: LinkParameters, settings: ProtocolSettings | None = None) -> float:
    """Error rate of the Z events: misalignment of the signal, 1/2 of darks and double clicks."""
    return expected_block(link, settings or ProtocolSettings("three-state", 0.5, link.p_z_bob), 1e6).qber


def key_leak(qber: float, n_bits: int, f_ec: float = EXPECTED_F_EC) -> int:
    """Bits that reconciliation is expected to disclose: f_EC h(QBER) a bit."""
    return round(f_ec * binary_entropy(qber) * n_bits)


def attenuated(link: LinkParameters, attenuation_db: float) -> LinkParameters:
    """The link behind an attenuator at Alice's exit: <n> falls, g2 stays."""
    if not (math.isfinite(attenuation_db) and attenuation_db >= 0.0):
        raise InputError(f"attenuation must be >= 0 dB, not {attenuation_db}", remedy="Give the attenuation in dB.")
    return replace(link, mean_photon_number=link.mean_photon_number * transmittance_from_db(attenuation_db))


def source_bounds(link: LinkParameters, settings: ProtocolSettings) -> SourceBounds:
    """Bounds that equal the link's own numbers; a laser pulse has g2 = 1 and its largest intensity."""
    if settings.protocol == DECOY:
        return SourceBounds(max(settings.intensities), 1.0, phase_bits=PHASE_BITS)
    return SourceBounds(link.mean_photon_number, link.g2)


def receiver_bounds(link: LinkParameters, rules: ReceiverRules) -> ReceiverBounds:
    """Bounds that equal the link's own numbers."""
    return ReceiverBounds(link.p_z_bob, link.p_z_bob, cross_basis=rules.cross_basis)


def sent_probabilities(settings: ProtocolSettings) -> Floats:
    """*(levels, 4)* probability of each intensity and symbol H, V, R, L."""
    p_z, p_x = settings.p_z_alice, 1.0 - settings.p_z_alice
    x_symbols = (p_x, 0.0) if settings.protocol == "three-state" else (p_x / 2.0, p_x / 2.0)
    levels = settings.p_intensities if settings.protocol == DECOY else (1.0,)
    return np.outer(levels, [p_z / 2.0, p_z / 2.0, *x_symbols])


def click_patterns(link: LinkParameters, settings: ProtocolSettings, p_sent: Floats, rules: ReceiverRules) -> Floats:
    """*(levels, 4, 16)* probability that exactly these detectors (bit c = detector c) are seen in a slot.

    Notes
    -----
    A detector's own recovery (not paralysable) thins its clicks to p / (1 + k p) with k blind slots; Bob's common dead
    time leaves the slots before which nobody clicked, and where it covers the recovery, a live slot has four ready
    detectors. A photon that met a recovering detector does not prolong the dead time: ``unseen``, to first order. All
    is exact while a recovery ends within its slot; with 40 ns at 0.17 dB the detection probability is good to 1 %.
    """
    darks = -math.expm1(-link.dark_probability / 4.0) * np.ones(4)
    ways = [(1.0, link)] if rules.passive else [(q, replace(link, p_z_bob=z)) for q, z in _switched(link)]

    def patterns(ready: Floats) -> Floats:
        found = [part * _patterns(way, settings, _photon_clicks(way) * ready, darks * ready) for part, way in ways]
        return np.sum(found, axis=0)  # type: ignore[no-any-return]

    free = patterns(np.ones(4))
    mean = np.tensordot(p_sent, free, axes=2)
    alone, anybody = mean @ _BITS, float(mean.sum())
    window, blind = _blind_slots(link, rules.dead_time_ps), float(_blind_slots(link, link.dead_time_ps).sum())
    quiet = float(np.prod(1.0 - anybody * window)) * math.exp(-link.dark_rate_cps * rules.dead_time_ps / PS_PER_S)
    ready = 1.0 / (1.0 + blind * alone)
    if rules.dead_time_ps < link.dead_time_ps:
        return quiet * (patterns(ready) if blind > 0.0 else free)
    unseen = float(ready @ alone**2) * 0.5 * blind * (blind + 1.0) / max(1.0 - anybody, 1e-9)
    return quiet * min(1.0 + unseen, 1.0 / quiet) * free


def check_link(link: LinkParameters) -> None:
    """Refuse a description that cannot be, naming the number."""
    limits = {
        "loss_db": (0.0, 200.0),
        "clock_rate_hz": (1.0, 1e12),
        "mean_photon_number": (0.0, 10.0),
        "g2": (0.0, 2.0),
        "misalignment": (0.0, 0.5),
        "receiver_efficiency": (0.0, 1.0),
        "detector_efficiency": (0.0, 1.0),
        "dark_rate_cps": (0.0, 1e12),
        "gate_ps": (0.0, 1e12),
        "pulse_width_ps": (0.0, 1e12),
        "jitter_ps": (0.0, 1e12),
        "dead_time_ps": (0.0, 1e15),
        "resolution_ps": (0.0, 1e12),
    }
    for name, (low, high) in limits.items():
        value = getattr(link, name)
        if not low <= value <= high:
            raise InputError(f"{name} = {value} is not in {low:g} .. {high:g}", remedy=f"Correct {name}.")
    try:
        check_gate(link.gate_ps, link.clock_rate_hz)
    except ValueError as error:
        raise InputError(str(error), remedy="Correct gate_ps or clock_rate_hz.") from None
    if link.dark_probability > 1.0:
        raise InputError(f"{link.dark_probability:g} darks in a gate", remedy="Correct dark_rate_cps or gate_ps.")
    p2 = link.g2 * link.mean_photon_number**2 / 2.0
    if link.mean_photon_number - 2.0 * p2 < 0.0 or link.mean_photon_number - p2 > 1.0:
        raise InputError(
            f"<n> = {link.mean_photon_number:g} with g2 = {link.g2:g} is not a distribution over 0, 1, 2 photons",
            remedy="Correct mean_photon_number or g2; laser pulses are the protocol decoy-bb84.",
        )


def check_settings(settings: ProtocolSettings) -> None:
    """Refuse probabilities and intensities that cannot be, naming the number."""
    if settings.protocol not in PROTOCOL_NAMES:
        raise InputError(f"unknown protocol {settings.protocol!r}", remedy="Known: " + ", ".join(PROTOCOL_NAMES))
    for name in ("p_z_alice", "p_z_bob"):
        value = getattr(settings, name)
        if not 0.0 < value < 1.0:
            raise InputError(f"{name} = {value} is not strictly between 0 and 1", remedy=f"Correct {name}.")
    levels, shares = settings.intensities, settings.p_intensities
    if settings.protocol != DECOY:
        if levels or shares:
            raise InputError(f"{settings.protocol} has no intensities", remedy="Leave them out, or use decoy-bb84.")
        return
    if len(levels) != 3 or len(shares) != 3:
        raise InputError("decoy-bb84 needs three intensities and their probabilities", remedy="Signal, decoy, vacuum.")
    if not (1.0 >= levels[0] > levels[1] > levels[2] >= 0.0):
        raise InputError(f"intensities {levels} are not 1 >= signal > decoy > vacuum >= 0", remedy="Correct them.")
    if not all(0.0 < share < 1.0 for share in shares) or abs(sum(shares) - 1.0) > 1e-6:
        raise InputError(f"probabilities {shares} of the intensities do not sum to 1", remedy="Correct them.")


def _switched(link: LinkParameters) -> tuple[tuple[float, float], ...]:
    """(how often, share of the light in Z) of a switch."""
    return (link.p_z_bob, 1.0), (1.0 - link.p_z_bob, 0.0)


def _photon_clicks(link: LinkParameters) -> Floats:
    """*(4, 4)* probability that one photon of a symbol is seen, in the gate, by each detector."""
    sigma = math.hypot(link.pulse_width_ps / FWHM_PER_SIGMA, link.jitter_ps, link.resolution_ps / math.sqrt(12.0))
    in_gate = math.erf(link.gate_ps / (2.0 * math.sqrt(2.0) * sigma)) if sigma > 0.0 else 1.0
    right, wrong = 1.0 - link.misalignment, link.misalignment
    q_z, q_x = link.p_z_bob, 1.0 - link.p_z_bob
    split = [
        (q_z * right, q_z * wrong, q_x / 2.0, q_x / 2.0),
        (q_z * wrong, q_z * right, q_x / 2.0, q_x / 2.0),
        (q_z / 2.0, q_z / 2.0, q_x * right, q_x * wrong),
        (q_z / 2.0, q_z / 2.0, q_x * wrong, q_x * right),
    ]
    return link.transmittance * in_gate * np.array(split)


def _patterns(link: LinkParameters, settings: ProtocolSettings, photon: Floats, darks: Floats) -> Floats:
    """*(levels, 4, 16)* exact click patterns from one photon's and the darks' probabilities."""
    seen = photon @ _BITS.T
    if settings.protocol == DECOY:
        light = -np.expm1(-np.multiply.outer(np.array(settings.intensities), seen))
    else:
        p2 = link.g2 * link.mean_photon_number**2 / 2.0
        light = ((link.mean_photon_number - 2.0 * p2) * seen + p2 * seen * (2.0 - seen))[None]
    dark = -np.expm1(_BITS @ np.log1p(-darks))
    found: NDArray[np.float64] = np.maximum((light + (1.0 - light) * dark) @ _EXACTLY.T, 0.0)
    return found


def _blind_slots(link: LinkParameters, dead_time_ps: float) -> Floats:
    """*(k,)* how much of each following slot's light falls into the dead time after a click (jitter smears it)."""
    slot_ps = PS_PER_S / link.clock_rate_hz
    edge = 2.0 * math.hypot(link.pulse_width_ps / FWHM_PER_SIGMA, link.jitter_ps) + 1e-9
    count = math.ceil((dead_time_ps + 5.0 * edge) / slot_ps)
    if count > 1_000_000:
        raise InputError(f"a dead time of {dead_time_ps} ps is {count} slots", remedy="Give the dead time in ps.")
    gaps = (dead_time_ps - slot_ps * np.arange(1, count + 1)) / edge
    return np.array([0.5 * math.erfc(-gap) for gap in gaps if gap > -5.0])
