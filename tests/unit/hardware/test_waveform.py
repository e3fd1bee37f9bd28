"""Symbols as samples: every slot has the level of its own symbol, and levels that cannot be right are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.config import Config
from common.config_file import parse_config
from common.datatypes import Symbols
from common.errors import ConfigurationError
from hardware.drivers.awg_scpi import KeysightAwg, TektronixAwg
from hardware.drivers.waveform import Channel, check_channels, fractions, level_index, samples

AMPLITUDE_V = 0.5
STATE = Channel(output=1, levels_v=(0.0, 0.2, 0.1, -0.1))


def plane(values: list[int], bit: int) -> NDArray[np.uint64]:
    word = sum((value >> bit & 1) << i for i, value in enumerate(values))
    return np.array([word], np.uint64)


def symbols(states: list[int], intensities: list[int], phases: list[int]) -> Symbols:
    """One word of slots; states count H, V, R, L."""
    return Symbols(
        0,
        plane(states, 1),
        plane(states, 0),
        np.array([plane(intensities, bit) for bit in range(2)]),
        np.array([plane(phases, bit) for bit in range(4)]),
    )


def test_each_slot_has_the_level_of_its_symbol(rng: np.random.Generator) -> None:
    states, levels, phases = (rng.integers(0, top, 64).tolist() for top in (4, 3, 16))
    sent = symbols(states, levels, phases)
    assert level_index(sent, "state").tolist() == states
    assert level_index(sent, "intensity").tolist() == levels
    assert level_index(sent, "phase").tolist() == phases
    assert level_index(sent, "gate").tolist() == [0] * 64


def test_samples_hold_a_level_for_a_whole_slot() -> None:
    states = [0, 1, 2, 3] * 16
    table = np.repeat(fractions(STATE, AMPLITUDE_V)[:, None], 3, axis=1)
    got = np.frombuffer(samples(symbols(states, [0] * 64, [0] * 64), "state", table), np.float64)
    assert got[:12] == pytest.approx([0.0] * 3 + [0.8] * 3 + [0.4] * 3 + [-0.4] * 3)
    assert got.size == 3 * 64


@pytest.mark.parametrize(
    ("family", "words"),
    [(KeysightAwg, [0, 2047 << 4, -2047 << 4, 1024 << 4]), (TektronixAwg, [0.0, 1.0, -1.0, 0.5])],
)
def test_full_scale_is_full_scale(family: Any, words: list[float]) -> None:
    made = family._words(family, np.array([0.0, 1.0, -1.0, 0.5]))
    assert made.tolist() == words
    assert made.dtype.itemsize == (2 if family is KeysightAwg else 4)


def config(tmp_path: Path, text: str) -> Config:
    return parse_config('role = "alice"\n' + text, tmp_path)


DECOY = '[link]\nprotocol = "decoy-bb84"\nintensities = [0.5, 0.1, 0.0]\np_intensities = [0.5, 0.25, 0.25]\n'
INTENSITY = Channel(output=2, driven_by="intensity", levels_v=(0.2, 0.1, 0.0))


def test_a_complete_set_of_channels_is_taken(tmp_path: Path) -> None:
    gate = Channel(output=3, driven_by="gate", levels_v=(0.25,))
    check_channels((STATE, gate), AMPLITUDE_V, config(tmp_path, ""))
    phase = Channel(output=4, driven_by="phase", levels_v=tuple(0.01 * k for k in range(16)))
    check_channels((STATE, INTENSITY, phase), AMPLITUDE_V, config(tmp_path, DECOY))
    check_channels((STATE, INTENSITY), AMPLITUDE_V, config(tmp_path, DECOY + '[source]\nphase_by = "source"\n'))


@pytest.mark.parametrize(
    ("channels", "text", "fault"),
    [
        ((STATE, STATE), "", "an output twice"),
        ((Channel(output=1, levels_v=(0.0, 0.1, 0.2)),), "", "3 levels"),
        ((Channel(output=1, levels_v=(0.0, 0.1, 0.2, 0.26)),), "", "beyond"),
        ((Channel(output=1, levels_v=(0.0, 0.1, 0.2, -0.3)),), "", "beyond"),
        ((Channel(output=1, driven_by="gate", levels_v=(0.1,)),), "", "driven by the state"),
        ((STATE, INTENSITY), "", "'intensity' needs 0"),
        ((STATE,), DECOY, "driven by them"),
        ((STATE, INTENSITY), DECOY, "random phase"),
    ],
)
def test_channels_that_cannot_be_right_are_refused(
    channels: tuple[Channel, ...], text: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        check_channels(channels, AMPLITUDE_V, config(tmp_path, text))


def test_three_bursts_must_fit_alices_memory_of_symbols(tmp_path: Path) -> None:
    parameters = {
        "resource": "TCPIP::127.0.0.1::9::SOCKET",
        "amplitude_v": AMPLITUDE_V,
        "channels": [STATE.model_dump()],
        "burst_epochs": 6,
    }
    with pytest.raises(ConfigurationError, match="symbol_buffer_slots"):
        KeysightAwg(parameters, config(tmp_path, ""))
