"""The five links of the source paper (arXiv:2406.02045, Table 1) as plain numbers; what to expect: `link_model.py`."""

from __future__ import annotations

from dataclasses import dataclass

from common.units import transmittance_from_db


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
        """Per slot, to first order (pairs of clicks counted twice); the exact value is in `link_model.py`."""
        return self.mean_photon_number * self.transmittance + self.dark_probability


PRESETS: dict[str, LinkParameters] = {
    "lab-0.17dB": LinkParameters(0.17),
    "lab-5.11dB": LinkParameters(5.11),
    "lab-10.15dB": LinkParameters(10.15),
    "field-14.6dB": LinkParameters(14.6),
    "lab-15.16dB": LinkParameters(15.16),
}
