"""Asymptotic rates and limits, in secret bits per sent pulse: when does a single-photon source beat laser pulses?

Equations (1) to (3) of arXiv:2406.02045 for ideal devices, and the same two rates with errors and darks. ``eta`` is the
end-to-end transmittance, ``<n>`` the mean photon number at Alice's exit, ``g2`` the source's g2(0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from common.security.bounds import binary_entropy

MEAN_PHOTON_NUMBER_MIN = math.exp(-1.0)
"""Equation (3): below this <n> no loss is small enough for an advantage."""
G2_MAX = math.e / 4.0
"""Equation (3): above this g2 there is no advantage at zero loss, and none at any other."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
SEARCH_STEPS = 60


def coherent_limit(eta: float) -> float:
    """Equation (1): R_WCP = eta / e, weak coherent pulses with <n> = 1 and infinitely many decoy states."""
    _require_transmittance(eta)
    return eta / math.e


def attenuation_threshold(mean_photon_number: float, g2: float) -> float:
    """eta_th of equation (2): at or below this transmittance, pre-attenuation at Alice's exit produces more key.

    Notes
    -----
    eta_th = (1 - sqrt(1 - 4 g2^2 <n>^2)) / (2 g2 <n>), written so that a small g2 loses no digits. For g2 <n> > 1/2
    attenuation always helps: 1.
    """
    _require_source(mean_photon_number, g2)
    x = g2 * mean_photon_number
    if x >= 0.5:
        return 1.0
    return 2.0 * x / (1.0 + math.sqrt((1.0 - 2.0 * x) * (1.0 + 2.0 * x)))


def single_photon_limit(eta: float, mean_photon_number: float, g2: float) -> float:
    """Equation (2): gain minus two-photon pulses, at the best pre-attenuation.

    Notes
    -----
    With p2 = g2 <n>^2 / 2 and p1 = <n> - 2 p2 the gain is p1 eta + p2 (1 - (1 - eta)^2) = eta <n> - p2 eta^2; all p2
    are lost to Eve: R = eta <n> - g2 <n>^2 (eta^2 + 1) / 2 above eta_th. Below it <n> is attenuated to
    eta / (g2 (eta^2 + 1)) and R = eta^2 / (2 g2 (eta^2 + 1)).
    """
    _require_transmittance(eta)
    if eta > attenuation_threshold(mean_photon_number, g2):
        return eta * mean_photon_number - g2 * mean_photon_number**2 * (eta * eta + 1.0) / 2.0
    return eta * eta / (2.0 * g2 * (eta * eta + 1.0))


def best_pre_attenuation(eta: float, mean_photon_number: float, g2: float) -> float:
    """Transmittance (0, 1] to set at Alice's exit so that equation (2) is reached; 1 if <n> or g2 is 0."""
    _require_transmittance(eta)
    if eta > attenuation_threshold(mean_photon_number, g2):
        return 1.0
    return eta / (g2 * (eta * eta + 1.0)) / mean_photon_number


def boundary_g2(eta: float, mean_photon_number: float) -> float | None:
    """The g2 at which R_SPS = R_WCP (figure 1); smaller is an advantage. None if <n> is below 1/e.

    Notes
    -----
    Equation (2) solved for g2: 2 eta (<n> - 1/e) / (<n>^2 (1 + eta^2)) up to <n> = 2/e, from there on attenuation holds
    e eta / (2 (1 + eta^2)).
    """
    _require_transmittance(eta)
    _require_source(mean_photon_number, 0.0)
    if mean_photon_number < MEAN_PHOTON_NUMBER_MIN:
        return None
    if mean_photon_number >= 2.0 / math.e:
        return math.e * eta / (2.0 * (1.0 + eta * eta))
    return 2.0 * eta * (mean_photon_number - MEAN_PHOTON_NUMBER_MIN) / (mean_photon_number**2 * (1.0 + eta * eta))


def boundary_mean_photon_number(eta: float, g2: float) -> float | None:
    """The smallest <n> at which R_SPS = R_WCP for this g2; None if no <n> is enough."""
    _require_transmittance(eta)
    _require_source(1.0, g2)
    half = g2 * (1.0 + eta * eta) / 2.0
    root = eta * eta - 4.0 * half * eta / math.e
    if root < 0.0:
        return None
    return (2.0 * eta / math.e) / (eta + math.sqrt(root))


def advantage_db(rate: float, reference: float) -> float:
    """How far a rate lies above another, in dB; negative below. Both must be positive."""
    if not (rate > 0.0 and reference > 0.0 and math.isfinite(rate) and math.isfinite(reference)):
        raise ValueError(f"an advantage needs two positive rates, not {rate} and {reference}")
    return 10.0 * math.log10(rate / reference)


def single_photon_asymptotic(
    eta: float, mean_photon_number: float, g2: float, misalignment: float, dark_probability: float, f_ec: float
) -> float:
    """Infinite blocks, one basis almost always, with errors: the best pre-attenuation; 0 if there is no key.

    Notes
    -----
    R = (Q - p2) (1 - h(E Q / (Q - p2))) - f_EC Q h(E), with Q the gain and E the error rate of all detections. Source:
    Gottesman, Lo, Luetkenhaus, Preskill 2004 (tagged pulses); without errors and darks it is equation (2).
    """
    _require_transmittance(eta)
    _require_source(mean_photon_number, g2)
    _require_receiver(misalignment, dark_probability, f_ec)

    def rate(n: float) -> float:
        p2 = g2 * n * n / 2.0
        light = eta * n - p2 * eta * eta
        gain = light + dark_probability
        untagged = gain - p2
        if gain <= 0.0 or untagged <= 0.0:
            return -p2
        error = (misalignment * light + dark_probability / 2.0) / gain
        phase = min(error * gain / untagged, 0.5)
        return untagged * (1.0 - binary_entropy(phase)) - f_ec * gain * binary_entropy(error)

    return _best(rate, mean_photon_number)


def coherent_asymptotic(eta: float, misalignment: float, dark_probability: float, f_ec: float) -> float:
    """The same for weak coherent pulses with infinitely many decoy states, at the best intensity <= 1.

    Notes
    -----
    R = Q_1 (1 - h(e_1)) - f_EC Q h(E), Q_1 = mu exp(-mu) Y_1. Source: Lo, Ma, Chen, PRL 94, 230504; without errors and
    darks it is equation (1).
    """
    _require_transmittance(eta)
    _require_receiver(misalignment, dark_probability, f_ec)

    def rate(mu: float) -> float:
        light = -math.expm1(-eta * mu)
        gain = light + dark_probability
        error = (misalignment * light + dark_probability / 2.0) / gain if gain > 0.0 else 0.5
        one = eta + dark_probability
        one_error = (misalignment * eta + dark_probability / 2.0) / one
        return mu * math.exp(-mu) * one * (1.0 - binary_entropy(one_error)) - f_ec * gain * binary_entropy(error)

    return _best(rate, 1.0)


def _best(rate: Callable[[float], float], most: float) -> float:
    """Largest value of a function with one maximum on (0, most], at least 0 (golden section)."""
    low, high = 0.0, most
    for _ in range(SEARCH_STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (left, high) if rate(left) < rate(right) else (low, right)
    return max(0.0, rate(most), rate(0.5 * (low + high)))


def _require_transmittance(eta: float) -> None:
    if not 0.0 < eta <= 1.0:
        raise ValueError(f"a transmittance lies in (0, 1], not {eta}")


def _require_source(mean_photon_number: float, g2: float) -> None:
    if not all(math.isfinite(value) and value >= 0.0 for value in (mean_photon_number, g2)):
        raise ValueError(f"<n> and g2 are finite and not negative, not {mean_photon_number} and {g2}")


def _require_receiver(misalignment: float, dark_probability: float, f_ec: float) -> None:
    if not (0.0 <= misalignment <= 0.5 and 0.0 <= dark_probability < 1.0 and 1.0 <= f_ec < math.inf):
        raise ValueError(
            f"misalignment in [0, 1/2], darks in [0, 1), f_EC >= 1; not {misalignment}, {dark_probability}, {f_ec}"
        )
