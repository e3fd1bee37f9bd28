"""Calibration files: bounds of the source with their confidence, named by `[source] calibration` of a configuration.

`qkd plan g2` and `qkd plan source` write them; both ends need the same values. Units are in the names.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import ConfigurationError


class Calibration(BaseModel):
    """One-sided bounds of <n> at Alice's exit and of g2(0); what is missing was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    mean_photon_number: float | None = Field(None, ge=0.0)
    """Best estimate: for planning, not for the proof."""
    mean_photon_number_lower: float | None = Field(None, ge=0.0)
    mean_photon_number_upper: float | None = Field(None, gt=0.0)
    eps_mean_photon_number: float = Field(0.0, ge=0.0, lt=1.0)
    """Probability that one of the two bounds is wrong."""
    g2: float | None = Field(None, ge=0.0)
    g2_upper: float | None = Field(None, ge=0.0)
    eps_g2: float = Field(0.0, ge=0.0, lt=1.0)
    measurement: dict[str, Any] = Field(default_factory=dict)
    """How it was measured: for the reader, not used."""

    @model_validator(mode="after")
    def _consistent(self) -> Calibration:
        lower, upper = self.mean_photon_number_lower, self.mean_photon_number_upper
        if lower is not None and upper is not None and lower > upper:
            raise ValueError("mean_photon_number_lower is above mean_photon_number_upper")
        return self

    def source_fields(self) -> dict[str, float]:
        """The fields of `[source]` that this file gives."""
        named = {
            "mean_photon_number_lower": self.mean_photon_number_lower,
            "mean_photon_number_upper": self.mean_photon_number_upper,
            "g2_upper": self.g2_upper,
            "eps_source": self.eps_mean_photon_number + self.eps_g2,
        }
        return {name: value for name, value in named.items() if value is not None}


def load_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises
    ------
    ConfigurationError
        It cannot be read, or a field is wrong; the field is named.
    """
    remedy = "Make it with `qkd plan g2` and `qkd plan source`, or correct the named field."
    try:
        return Calibration.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}", remedy=remedy) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path}: {faults}", remedy=remedy) from None


def with_calibration(source: Any, base_dir: Path) -> Any:
    """A configuration's `[source]` table completed from the file that it names; a value given twice is refused."""
    if not isinstance(source, dict) or not isinstance(source.get("calibration"), str):
        return source
    fields = load_calibration(base_dir / source["calibration"]).source_fields()
    twice = sorted(set(fields) & set(source))
    if twice:
        raise ConfigurationError(
            f"source.{twice[0]} is given by the configuration and by {source['calibration']}",
            remedy="Leave it out of one of them.",
        )
    return {**source, **fields}


def update_calibration(path: Path, measurement: str, details: dict[str, Any], **fields: float) -> None:
    """Write measured fields and how they were measured into a calibration file; other measurements in it stay."""
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    for name, value in fields.items():
        if not math.isfinite(value):
            raise ConfigurationError(f"{name} = {value} is no calibration")
        document[name] = value
    how = document.setdefault("measurement", tomlkit.table())
    how[measurement] = details
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    load_calibration(path)
