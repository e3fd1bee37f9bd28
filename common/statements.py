"""What a configuration must state where a device is real: whatever the proof takes from that device.

The defaults of these fields describe the digital twin. A real source or receiver has numbers of its own, and a key
whose length rests on the twin's is not secret: so `run`, `check` and `doctor` refuse a field that nobody has written,
in the configuration or in a calibration file, with the same words. Source: `common/security/README.md`, A1 and A3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from common.config import Config
from common.errors import ConfigurationError
from common.randomness import Randomness, Uses, shortfall

MEASURE_N = "Measure it with `qkd plan source`, which writes the calibration file that `source.calibration` names."
MEASURE_G2 = "Measure it with `qkd plan g2`, which writes the calibration file that `source.calibration` names."
STATE_EPS = "State the probability that one of the measured bounds is wrong; 0 where they are taken as certain."
MEASURE_P_Z = "Measure the splitting ratio with its uncertainty; `detectors.calibration` may name a file with it."
MEASURE_MISMATCH = "Measure the efficiencies of the four detectors: the largest relative difference, upper bound."
STATE_PHASE = (
    "State how many bits of random phase the modulator puts onto every pulse; 0 only with source.phase_by = 'source'."
)
MEASURE_DEAD_TIME = "Measure it: `qkd doctor --hardware` with this configuration prints the line to write."

BETTER_RANDOMNESS = (
    "Use a true random source (devices.random_source; for the start secret, make the file from one and state "
    "channel.link_secret_class), or accept it: security.randomness = 'computational' at both ends."
)

SINGLE_PHOTONS = {"source.mean_photon_number_upper": MEASURE_N, "source.g2_upper": MEASURE_G2}
NEEDED = {
    "modulator": {
        "source.eps_source": STATE_EPS,
        "source.phase_bits": STATE_PHASE,
    },
    "time_tagger": {
        "receiver.dead_time_ps": MEASURE_DEAD_TIME,
        "link.p_z_bob": MEASURE_P_Z,
        "detectors.p_z_lower": MEASURE_P_Z,
        "detectors.p_z_upper": MEASURE_P_Z,
        "detectors.mismatch": MEASURE_MISMATCH,
        "detectors.eps": STATE_EPS,
    },
}
"""Device -> field that its proof needs -> remedy."""
DEVICE_OF = {"alice": "modulator", "bob": "time_tagger"}
"""Whose device the fields speak of: that end must state them; the handshake makes the other say the same."""


def stated(config: Config, field: str) -> bool:
    """Whether a dotted field was written by somebody: in the configuration, or in a calibration file that it names."""
    section, _, name = field.partition(".")
    table = getattr(config, section)
    return section in config.model_fields_set and name in table.model_fields_set and getattr(table, name) is not None


def needed(config: Config) -> dict[str, str]:
    """Field -> remedy: what this role must state if its device is real."""
    device = DEVICE_OF[config.role]
    single = device == "modulator" and config.link.protocol != "decoy-bb84"
    return {**(SINGLE_PHOTONS if single else {}), **NEEDED[device]}


def faults(config: Config) -> Iterator[tuple[str, str, str]]:
    """(field, fault, remedy) of everything that keeps a real device of this role from making key."""
    device = DEVICE_OF[config.role]
    for field, remedy in needed(config).items():
        if not stated(config, field):
            yield field, f"{field} is not stated, and the {device} is real", remedy
    if device == "modulator" and config.source.phase_by == "modulator" and config.source.phase_bits == 0:
        yield "source.phase_bits", "source.phase_bits is 0, and the modulator is real", STATE_PHASE


def require(config: Config, simulated: bool) -> None:
    """Refuse a real device about which something is not stated.

    Raises
    ------
    ConfigurationError
        Names every field; the remedy is that of the first.
    """
    found = [] if simulated else list(faults(config))
    if found:
        more = "; also " + ", ".join(field for field, _, _ in found[1:]) if len(found) > 1 else ""
        raise ConfigurationError(found[0][1] + more, remedy=found[0][2])


def start_secret(config: Config) -> Randomness:
    """What the start secret was made from, as the configuration states it."""
    return Randomness(config.channel.link_secret_class, config.channel.link_secret_origin)


def require_randomness(config: Config, simulated: bool, uses: Uses) -> None:
    """Refuse real devices with a random source of a weaker class than the link accepts.

    Raises
    ------
    ConfigurationError
        Names the use and the source.
    """
    weak = None if simulated else shortfall(uses, config.security.randomness)
    if weak is not None:
        raise ConfigurationError(
            f"security.randomness is {config.security.randomness!r}, but {weak}", remedy=BETTER_RANDOMNESS
        )


def require_phase(config: Config, simulated: bool, applies_phase: bool) -> None:
    """Refuse a real modulator whose driver does not put the phase word onto the light, unless the source needs none.

    Without a random phase the vacuum and the photon of a resonantly driven emitter interfere, as do the photon numbers
    of a laser pulse: then A1 does not hold, whatever g2 is.
    """
    if not (simulated or applies_phase or config.source.phase_by == "source"):
        raise ConfigurationError(
            "the modulator is real, and its driver does not put the random phase onto the light",
            remedy="Drive a phase modulator; or, if the source itself gives every pulse a random phase, state"
            " source.phase_by = 'source' at both ends.",
        )


def assumed(config: Config) -> tuple[str, ...]:
    """What the length takes from the configuration without a failure probability, as sentences: equal at both ends."""
    source, link = config.source, config.link
    sentences = []
    if source.eps_source == 0.0:
        sentences.append("the bounds of the source are certain (source.eps_source is 0)")
    if config.detectors.eps == 0.0:
        sentences.append("the bounds of the receiver are certain (detectors.eps is 0)")
    if link.intensities:
        sentences.append("the intensities are exactly those of link.intensities")
    if source.power_upper_w is not None:
        window = f"{source.power_lower_w:.4g} .. {source.power_upper_w:.4g} W"
        sentences.append(f"the bounds of the source hold while the power at Alice's monitor, watched, is {window}")
    if source.phase_by == "source":
        sentences.append("the source itself gives every pulse a random phase (stated, not watched)")
    else:
        sentences.append(f"every pulse has one of {1 << source.phase_bits} phases, drawn at random")
        if link.intensities:
            distance = phase_distance(link.intensities[0], 1 << source.phase_bits)
            sentences.append(f"that is within {distance:.1e} (trace distance) of a phase drawn from all")
    return tuple(sentences)


def phase_distance(mean_photon_number: float, phases: int) -> float:
    """Largest trace distance of a pulse's photon-number class from a Fock state, where the phase is one of ``phases``.

    Source: ours, after Cao, Zhang, Lo and Ma, New J. Phys. 17, 053014 (2015). N phases leave the photon numbers n,
    n + N, n + 2N, ... in superposition; the weight outside n is mu^N n! / (n + N)! to first order, at most mu^N / N!,
    and the trace distance of pure states is the square root of that.
    """
    return math.exp(0.5 * (phases * math.log(mean_photon_number) - math.lgamma(phases + 1)))
