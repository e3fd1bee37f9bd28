"""A link's description (TOML) for the planner: what differs from a preset, the budget, the limits of a block."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.calibration import Calibration
from common.calibration_file import load_calibration
from common.config import ProtocolName
from common.errors import ConfigurationError
from common.files import read_file
from common.kernels.click_rule import CrossBasis
from common.planning.link_model import EXPECTED_F_EC, ReceiverRules, check_link
from common.planning.presets import PRESETS, LinkParameters
from common.planning.rate import KEY_SLOTS_SHARE, Task
from common.security.finite_key import EpsilonBudget
from common.security.tallies import ReceiverBounds, SourceBounds

DEFAULT_PRESET = "field-14.6dB"
LARGEST_BLOCK = 100_000_000
SMALLEST_BLOCK = 10_000


class LinkDescription(BaseModel):
    """Everything has the value of ``preset`` until given. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    preset: str = DEFAULT_PRESET
    protocol: ProtocolName = "three-state"

    loss_db: float | None = Field(None, ge=0.0, le=200.0)
    clock_rate_hz: float | None = Field(None, gt=0.0)
    mean_photon_number: float | None = Field(None, gt=0.0)
    """At Alice's exit, without pre-attenuation."""
    g2: float | None = Field(None, ge=0.0)
    misalignment: float | None = Field(None, ge=0.0, le=0.5)
    receiver_efficiency: float | None = Field(None, gt=0.0, le=1.0)
    detector_efficiency: float | None = Field(None, gt=0.0, le=1.0)
    p_z_bob: float | None = Field(None, gt=0.0, lt=1.0)
    dark_rate_cps: float | None = Field(None, ge=0.0)
    """All detectors together."""
    gate_ps: float | None = Field(None, gt=0.0)
    pulse_width_ps: float | None = Field(None, ge=0.0)
    jitter_ps: float | None = Field(None, ge=0.0)
    dead_time_ps: int | None = Field(None, ge=0)
    """Recovery of one detector."""
    receiver_dead_time_ps: int = Field(0, ge=0)
    """Bob's common dead time, `[receiver] dead_time_ps`."""
    cross_basis: CrossBasis = "discard"

    p_z_lower: float | None = Field(None, gt=0.0, lt=1.0)
    p_z_upper: float | None = Field(None, gt=0.0, lt=1.0)
    mismatch: float = Field(0.0, ge=0.0, lt=1.0)
    eps_detectors: float = Field(0.0, ge=0.0, lt=1.0)
    """Bounds of the receiver, as in `[detectors]`; without them its own numbers."""

    calibration: Path | None = None
    """Calibration file: the proof uses its bounds, the plan its estimates."""
    mean_photon_number_upper: float | None = Field(None, gt=0.0)
    g2_upper: float | None = Field(None, ge=0.0)
    eps_source: float = Field(0.0, ge=0.0, lt=1.0)

    accounting: Literal["composable", "paper"] = "composable"
    eps_total: float = Field(1e-14, gt=0.0, lt=1.0)
    eps_cor: float = Field(1e-15, gt=0.0, lt=1.0)
    eps_auth: float = Field(1e-15, gt=0.0, lt=1.0)
    tails: Literal["chernoff", "exact", "anytime"] = "anytime"
    f_ec: float = Field(EXPECTED_F_EC, ge=1.0)
    """Expected leak over the Shannon limit."""
    block_size_max: int = Field(LARGEST_BLOCK, ge=SMALLEST_BLOCK, le=LARGEST_BLOCK)
    block_seconds_max: float | None = Field(None, gt=0.0)
    """The key of a block comes when the block is full: the longest to wait for it."""

    def task(self, base_dir: Path = Path()) -> Task:
        """The planner's task, with the largest block that is allowed.

        Raises
        ------
        ConfigurationError, InputError
            The preset is unknown, the calibration is wrong, or the numbers contradict each other.
        """
        if self.preset not in PRESETS:
            near = difflib.get_close_matches(self.preset, PRESETS, n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigurationError(f"unknown preset {self.preset!r}{hint}", remedy="Known: " + ", ".join(PRESETS))
        known = load_calibration(base_dir / self.calibration) if self.calibration is not None else Calibration()
        link = self._link(known)
        check_link(link)
        rules = ReceiverRules(self.receiver_dead_time_ps, self.cross_basis)
        budget = EpsilonBudget(self.accounting, self.eps_total, self.eps_cor, self.eps_auth, self.tails)
        source, receiver = self._source(link, known), self._receiver(link)
        return Task(link, self.protocol, self.block_size_max, budget, self.f_ec, rules, source, receiver)

    def _link(self, known: Calibration) -> LinkParameters:
        measured = {"mean_photon_number": known.mean_photon_number, "g2": known.g2}
        given = {field.name: getattr(self, field.name, None) for field in fields(LinkParameters)}
        chosen: dict[str, Any] = {
            name: value if value is not None else measured.get(name) for name, value in given.items()
        }
        return replace(PRESETS[self.preset], **{name: value for name, value in chosen.items() if value is not None})

    def _source(self, link: LinkParameters, known: Calibration) -> SourceBounds:
        mean, g2 = self.mean_photon_number_upper, self.g2_upper
        mean = mean if mean is not None else known.mean_photon_number_upper
        g2 = g2 if g2 is not None else known.g2_upper
        bounds = SourceBounds(
            link.mean_photon_number if mean is None else mean,
            link.g2 if g2 is None else g2,
            self.eps_source + known.eps_mean_photon_number + known.eps_g2,
        )
        if bounds.mean_photon_number_upper < link.mean_photon_number or bounds.g2_upper < link.g2:
            raise ConfigurationError(
                "an upper bound of the source is below the source's own value",
                remedy="Correct mean_photon_number_upper or g2_upper.",
            )
        return bounds

    def _receiver(self, link: LinkParameters) -> ReceiverBounds:
        low, high = (link.p_z_bob if bound is None else bound for bound in (self.p_z_lower, self.p_z_upper))
        if not low <= link.p_z_bob <= high:
            raise ConfigurationError(
                "p_z_bob is not between p_z_lower and p_z_upper", remedy="Correct the interval of the splitting ratio."
            )
        return ReceiverBounds(low, high, self.mismatch, self.eps_detectors, self.cross_basis)

    def largest_block(self, detections_per_second: float) -> int:
        """Detections of the largest block within both limits."""
        if self.block_seconds_max is None:
            return self.block_size_max
        filled = int(self.block_seconds_max * detections_per_second * KEY_SLOTS_SHARE)
        if filled < SMALLEST_BLOCK:
            raise ConfigurationError(
                f"{self.block_seconds_max:g} s of light are {filled} detections, less than the smallest block",
                remedy="Raise block_seconds_max.",
            )
        return min(filled, self.block_size_max)


def load_link(path: Path) -> LinkDescription:
    """Read a link's description.

    Raises
    ------
    ConfigurationError
        It cannot be read; or names every wrong field, with the nearest known one.
    """
    try:
        table = tomllib.loads(read_file(path).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}", remedy="Give a link description (TOML).") from None
    return parse_link(table, str(path))


def parse_link(table: dict[str, Any], source: str = "link") -> LinkDescription:
    """Validate a description; see :func:`load_link`."""
    try:
        return LinkDescription.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(
            f"{source}: " + "; ".join(_explain(item) for item in error.errors()),
            remedy=f"Correct that in {source}, and run `qkd plan` again; docs/planning.md lists the keys.",
        ) from None


def _explain(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{name or 'file'}: {item['msg']}"
    near = difflib.get_close_matches(name, list(LinkDescription.model_fields), n=1, cutoff=0.4)
    return f"unknown key {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
