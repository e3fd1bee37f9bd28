"""`qkd hil serve`: every wire-level twin at once, and the manifest with which a node reaches them."""

from __future__ import annotations

import threading
from typing import Any

import click
import tomlkit

from common.config import Config
from common.planning.presets import PRESETS
from hardware.twin.devices import TwinTimeTagger
from hardware.twin.instruments import AttenuatorTwin, AxesTwin, BiasTwin, PowerMeterTwin
from hardware.twin.wire.instruments import AptDialogue, OzDialogue, WebSqDialogue, websq_counts
from hardware.twin.wire.scpi import Instrument, ScpiDialogue, attenuator, power_meter, voltage_source
from hardware.twin.wire.server import Faults, WireServer
from hardware.twin.wire.tags import HEARTBEAT, OVERFLOW, tag_stream

FULL_SCALE_V = 5.0
LASER_W = 1e-6


def serve_bench(server: WireServer, host: str = "127.0.0.1") -> dict[str, dict[str, Any]]:
    """Start every twin; role -> driver and parameters. The power meter stands behind the first attenuator."""
    first = AttenuatorTwin()

    def visa(instrument: Instrument) -> str:
        return f"TCPIP::{host}::{server.tcp(lambda: ScpiDialogue(instrument), host)}::SOCKET"

    bias, faults = BiasTwin(), Faults()
    control = server.tcp(lambda: WebSqDialogue(bias, faults), host)
    counts = server.stream(lambda reader, writer: websq_counts(bias, faults, writer), host)
    return {
        "attenuator": {"driver": "keysight-attenuator", "resource": visa(attenuator(first))},
        "attenuator_exfo": {"driver": "exfo-attenuator", "resource": visa(attenuator(AttenuatorTwin(), "exfo"))},
        "attenuator_oz": {
            "driver": "oz-attenuator",
            "port": server.serial(OzDialogue(AttenuatorTwin())),
            "simulated": True,
        },
        "power_meter": {
            "driver": "thorlabs-pm100",
            "resource": visa(power_meter(PowerMeterTwin(LASER_W, first))),
            "wavelength_nm": 942.0,
        },
        "polarisation_controller": {"driver": "thorlabs-mpc320", "port": server.serial(AptDialogue(AxesTwin(3)))},
        "polarisation_controller_voltage": {
            "driver": "voltage-polarisation",
            "resource": visa(voltage_source(AxesTwin(3), FULL_SCALE_V)),
            "full_scale_v": FULL_SCALE_V,
        },
        "detector_bias": {
            "driver": "single-quantum-websq",
            "host": host,
            "control_port": control,
            "counts_port": counts,
            "bias_ua": [20.0] * 4,
            "simulated": True,
        },
    }


def serve_tagger(server: WireServer, fibre: str, preset: str, host: str = "127.0.0.1") -> dict[str, Any]:
    """Start the simulated receiver behind a raw tag stream; driver and parameters for Bob's time tagger."""
    tagger = TwinTimeTagger({"fibre": fibre, "preset": preset}, Config(role="bob"))
    server.defer(tagger.close)
    port = server.stream(lambda reader, writer: tag_stream(tagger, writer), host)
    marks = {"heartbeat_channel": HEARTBEAT, "overflow_channel": OVERFLOW}
    return {"driver": "tcp-tags", "host": host, "port": port, "simulated": True, **marks}


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--fibre", default="", help="Address of Alice's twin-modulator: serves Bob's time tagger too.")
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="field-14.6dB", show_default=True)
def command(host: str, fibre: str, preset: str) -> None:
    """Serve simulated instruments that speak their real protocols; print the manifest of the bench.

    Example: qkd hil serve --fibre tcp://127.0.0.1:47500 > bench.toml
    """
    with WireServer() as server:
        document: dict[str, Any] = {"role": "bob" if fibre else "alice", "devices": serve_bench(server, host)}
        if fibre:
            document["devices"]["time_tagger"] = serve_tagger(server, fibre, preset, host)
        print(tomlkit.dumps(document), flush=True)
        click.echo("serving until Ctrl-C", err=True)
        threading.Event().wait()
