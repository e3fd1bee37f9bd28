"""Symbols as samples: which level each output of a generator has in each slot. Pure; the instruments are elsewhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import Symbols
from common.errors import ConfigurationError

N_STATES = 4


class Channel(BaseModel):
    """One output of the generator and what it drives."""

    model_config = ConfigDict(extra="forbid")
    output: int = Field(ge=1, le=8)
    """Number of the output."""
    driven_by: Literal["state", "intensity", "phase", "gate"] = "state"
    """What chooses the level: the polarisation state, the intensity, the random phase word, or nothing: a gate that is
    up while a burst leaves."""
    levels_v: tuple[float, ...] = Field(min_length=1)
    """Calibrated levels in V: of H, V, R, L; of each intensity; of each phase word; of the gate. 0 V between bursts."""


def check_channels(channels: tuple[Channel, ...], amplitude_v: float, config: Config) -> None:
    """Refuse levels that are missing, too many, or beyond the generator's amplitude.

    Parameters
    ----------
    amplitude_v : peak to peak, of every output.
    """
    link = config.link
    wanted = {"state": N_STATES, "intensity": len(link.intensities), "phase": 1 << config.source.phase_bits, "gate": 1}
    if len({channel.output for channel in channels}) != len(channels):
        raise ConfigurationError("devices.modulator: `channels` name an output twice")
    for channel in channels:
        if len(channel.levels_v) != wanted[channel.driven_by]:
            raise ConfigurationError(
                f"devices.modulator: output {channel.output} has {len(channel.levels_v)} levels, "
                f"but {channel.driven_by!r} needs {wanted[channel.driven_by]}"
            )
        if max(map(abs, channel.levels_v)) > 0.5 * amplitude_v:
            raise ConfigurationError(
                f"devices.modulator: output {channel.output}: a level is beyond +-{0.5 * amplitude_v:g} V",
                remedy="Correct `levels_v`, or raise `amplitude_v` (peak to peak).",
            )
    driven = {channel.driven_by for channel in channels}
    if "state" not in driven:
        raise ConfigurationError("devices.modulator: no output is driven by the state")
    if link.intensities and "intensity" not in driven:
        raise ConfigurationError("devices.modulator: link.intensities are set, but no output is driven by them")
    if link.intensities and "phase" not in driven and config.source.phase_by == "modulator":
        raise ConfigurationError(
            "devices.modulator: weak coherent pulses need a random phase, but no output is driven by it",
            remedy="Give a channel with driven_by = 'phase'; or, with a gain-switched laser, state source.phase_by.",
        )


def level_index(symbols: Symbols, driven_by: str) -> NDArray[np.uint8]:
    """*(n_slots,) uint8*: the place of each slot's level in ``levels_v``."""
    planes = {
        "state": [symbols.bit, symbols.basis],
        "intensity": list(symbols.intensity),
        "phase": list(symbols.phase),
        "gate": [],
    }[driven_by]
    index = np.zeros(symbols.n_slots, np.uint8)
    for k, plane in enumerate(planes):
        index |= np.unpackbits(np.ascontiguousarray(plane, "<u8").view(np.uint8), bitorder="little") << np.uint8(k)
    return index


def fractions(channel: Channel, amplitude_v: float) -> NDArray[np.float64]:
    """*(levels,) float64*: the levels in -1..1 of full scale, filled up with 0 V to a power of two."""
    size = 1 << (len(channel.levels_v) - 1).bit_length()
    levels = np.zeros(size)
    levels[: len(channel.levels_v)] = np.array(channel.levels_v) / (0.5 * amplitude_v)
    return levels


def samples(symbols: Symbols, driven_by: str, table: NDArray[np.generic]) -> bytes:
    """The slots as they go over the wire: each slot a row of ``table`` *(levels, samples a slot)*."""
    return np.take(table, level_index(symbols, driven_by), axis=0).tobytes()
