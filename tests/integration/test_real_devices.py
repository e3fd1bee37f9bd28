"""A daemon whose device turns out to be real refuses to run on the twin's numbers, and with weak randomness."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from alice import daemon as alice
from bob import daemon as bob
from common.cli.init import initialise
from common.config_file import load_config
from common.errors import ConfigurationError
from common.node.node import Options
from hardware.interfaces import NONE_HELD, DeviceInfo

STATED: dict[str, dict[str, dict[str, Any]]] = {
    "alice": {"source": {"eps_source": 1e-12, "phase_bits": 4}},
    "bob": {
        "receiver": {"dead_time_ps": 40_000},
        "detectors": {"p_z_lower": 0.89, "p_z_upper": 0.91, "mismatch": 0.05, "eps": 1e-12},
    },
}


class Real:
    info = DeviceInfo("device", "real", "1")
    unsent_from_slot = NONE_HELD
    resolution_ps = 1.0
    applies_phase = True

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def refusal(role: str, folder: Path, monkeypatch: pytest.MonkeyPatch, device: Real, stated: bool) -> str:
    initialise(folder, STATED if stated else {})
    module: Any = {"alice": alice, "bob": bob}[role]
    monkeypatch.setattr(module, "open_device", lambda *_: device)
    monkeypatch.setattr("common.node.node.stop_event", asyncio.Event)  # the tests' own signal handlers stay
    with pytest.raises(ConfigurationError) as caught:
        await module.run(load_config(folder / f"{role}.toml"), Options())
    return str(caught.value)


@pytest.mark.parametrize(("role", "field"), [("alice", "source.eps_source"), ("bob", "receiver.dead_time_ps")])
async def test_the_twins_numbers_are_refused(
    role: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Real()
    said = await refusal(role, tmp_path, monkeypatch, device, stated=False)
    assert f"{field} is not stated" in said
    assert device.closed


async def test_a_modulator_without_a_random_phase_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Real()
    device.applies_phase = False
    assert "random phase" in await refusal("alice", tmp_path, monkeypatch, device, stated=True)


async def test_the_operating_systems_coins_and_start_secret_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await refusal("bob", tmp_path, monkeypatch, Real(), stated=True)
    assert "security.randomness is 'physical', but coins are computational (the operating system's generator)" in said
