"""Hardware in the loop: both daemons with instruments behind sockets, as `qkd hil serve` serves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from bob.polarisation import START
from common.cli.demo import Daemon, running
from common.config_file import load_config
from common.planning.presets import PRESETS
from hardware.twin.axes import AxesTwin
from hardware.twin.wire.hil import serve_bench, serve_modulator, serve_tagger
from hardware.twin.wire.server import WireServer
from tests.integration.nodes import good_blocks, pair, wait_until

PRESET = "lab-0.17dB"


def put_behind_the_wire(daemon: Daemon, role: str, section: dict[str, object]) -> None:
    """Replace a device of a configuration."""
    document = tomlkit.parse(daemon.config.read_text())
    document["devices"][role] = section  # type: ignore[index]
    daemon.config.write_text(tomlkit.dumps(document))
    assert load_config(daemon.config).devices[role].driver == section["driver"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modulator", "tagger"),
    [("", "tcp-tags"), ("keysight-awg", "tcp-tags"), ("", "id-time-controller")],
)
def test_daemons_make_a_key_through_instruments_on_a_wire(modulator: str, tagger: str, tmp_path: Path) -> None:
    alice, bob = pair(tmp_path)
    fibre = load_config(bob.config).devices["time_tagger"].model_extra["fibre"]  # type: ignore[index]
    with WireServer() as server:
        if modulator:
            rate_hz = PRESETS[PRESET].clock_rate_hz
            put_behind_the_wire(alice, "modulator", serve_modulator(server, modulator, fibre, rate_hz))
        put_behind_the_wire(bob, "time_tagger", serve_tagger(server, fibre, PRESET, driver=tagger))
        with running(alice, bob):
            wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
    assert alice.good[0]["secret_bits"] == bob.good[0]["secret_bits"] > 0


@pytest.mark.slow
def test_the_feedback_finds_the_polarisation_through_the_paddles_wire(tmp_path: Path) -> None:
    """It begins a quarter turn off, where X tells nothing: no block has a key before the paddles are moved."""
    alice, bob = pair(tmp_path)
    document = tomlkit.parse(bob.config.read_text())
    fibre = str(document["devices"]["time_tagger"]["fibre"])
    paddles = AxesTwin(3)
    with WireServer() as server:
        controller = serve_bench(server, paddles=paddles)["polarisation_controller"]
        tagger = serve_tagger(server, fibre, "lab-0.17dB", paddles=paddles, seed=4)
        document["devices"] = {"time_tagger": tagger, "polarisation_controller": controller}
        document["polarisation"] = {"feedback": True, "patience_s": 1.0, "enough_clicks": 600}
        bob.config.write_text(tomlkit.dumps(document))
        with running(alice, bob):
            wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
    assert sum(position % 1.0 != start for position, start in zip(paddles.positions, START, strict=False)) > 0
    assert bob.good[0]["phase_error_upper"] < 0.3
    assert alice.good[0]["secret_bits"] == bob.good[0]["secret_bits"] > 0
