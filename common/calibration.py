"""Calibration files: measured bounds with their confidence, named by `calibration` in `[source]` and `[detectors]`.

`qkd plan g2` and `qkd plan source` write those of the source; both ends need the same values. Units are in the names.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

BOUNDS = {
    "source": ("mean_photon_number_upper", "eps_mean_photon_number", "g2_upper", "eps_g2"),
    "detectors": ("p_z_lower", "p_z_upper", "mismatch", "eps_detectors"),
}
"""Section of the configuration -> what a file that it names must hold: a default would be another device's."""


class Calibration(BaseModel):
    """Bounds of <n> at Alice's exit, of g2(0) and of Bob's detectors; what is missing was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    mean_photon_number: float | None = Field(None, ge=0.0)
    """Best estimate: for planning, not for the proof."""
    mean_photon_number_lower: float | None = Field(None, ge=0.0)
    """For planning and comparison: the proof takes the upper bound alone."""
    mean_photon_number_upper: float | None = Field(None, gt=0.0)
    eps_mean_photon_number: float = Field(0.0, ge=0.0, lt=1.0)
    """Probability that one of the two bounds is wrong."""
    g2: float | None = Field(None, ge=0.0)
    g2_upper: float | None = Field(None, ge=0.0)
    eps_g2: float = Field(0.0, ge=0.0, lt=1.0)
    p_z_lower: float | None = Field(None, gt=0.0, lt=1.0)
    p_z_upper: float | None = Field(None, gt=0.0, lt=1.0)
    """Interval of the probability that Bob's receiver measures Z."""
    mismatch: float | None = Field(None, ge=0.0, lt=1.0)
    """Largest relative difference of the efficiencies of any two of his detectors."""
    eps_detectors: float = Field(0.0, ge=0.0, lt=1.0)
    """Probability that one of these three is wrong."""
    measurement: dict[str, Any] = Field(default_factory=dict)
    """How it was measured: for the reader, not used."""

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        lower, upper = self.mean_photon_number_lower, self.mean_photon_number_upper
        if lower is not None and upper is not None and lower > upper:
            raise ValueError("mean_photon_number_lower is above mean_photon_number_upper")
        if self.p_z_lower is not None and self.p_z_upper is not None and self.p_z_lower > self.p_z_upper:
            raise ValueError("p_z_lower is above p_z_upper")
        return self

    def missing(self, section: str) -> list[str]:
        """What the file does not give of the bounds of a section."""
        return [name for name in BOUNDS[section] if name not in self.model_fields_set]

    def fields_of(self, section: str) -> dict[str, float]:
        """The fields of `[source]` or `[detectors]` that this file gives."""
        named = {
            "source": {
                "mean_photon_number_upper": self.mean_photon_number_upper,
                "g2_upper": self.g2_upper,
                "eps_source": self.eps_mean_photon_number + self.eps_g2,
            },
            "detectors": {
                "p_z_lower": self.p_z_lower,
                "p_z_upper": self.p_z_upper,
                "mismatch": self.mismatch,
                "eps": self.eps_detectors,
            },
        }
        return {name: value for name, value in named[section].items() if value is not None}
