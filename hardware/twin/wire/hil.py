"""`qkd hil serve`: every wire-level twin at once, and the manifest with which a node reaches them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import tomlkit

from common.addresses import read_endpoint
from common.cli.demo import free_ports
from common.config import Config, DeviceSection
from common.config_file import load_config, parse_config
from common.files import read_file, write_file
from common.planning.presets import PRESETS
from hardware.twin.axes import AxesTwin
from hardware.twin.devices import TwinTimeTagger
from hardware.twin.generator import LEVELS_V, GeneratorTwin
from hardware.twin.instruments import AttenuatorTwin, BiasTwin, PowerMeterTwin
from hardware.twin.wire.generators import keysight, tektronix
from hardware.twin.wire.ills import Ill, fault_option, parse_ills
from hardware.twin.wire.instruments import AptDialogue, OzDialogue, WebSqDialogue, websq_counts
from hardware.twin.wire.scpi import Instrument, ScpiDialogue, attenuator, power_meter, voltage_source
from hardware.twin.wire.server import WireServer
from hardware.twin.wire.tags import HEARTBEAT, OVERFLOW, UNLOCKED, tag_stream
from hardware.twin.wire.time_controller import TimeControllerTwin

CONTROLLER, VOLTAGE_CONTROLLER = "polarisation_controller", "polarisation_controller_voltage"
FULL_SCALE_V = 5.0
LASER_W = 1e-6
#: Each with the fewest samples a slot that its clock allows at 76 MHz.
GENERATORS = {"keysight-awg": (keysight, 2), "tektronix-awg": (tektronix, 1)}
AMPLITUDE_V = 0.5
#: The light's time stands still until Alice's light arrives, and with it the instrument that a driver waits for.
PATIENCE_S = 120.0
TAGGERS = ("tcp-tags", "id-time-controller")


def serve_bench(
    server: WireServer,
    host: str = "127.0.0.1",
    ills: Mapping[str, Ill] = MappingProxyType({}),
    paddles: AxesTwin | None = None,
) -> dict[str, dict[str, Any]]:
    """Start every twin; role -> driver and parameters. The power meter stands behind the first attenuator.

    ``paddles`` : those of the first polarisation controller, where they turn a twin's light.
    """

    def ill(role: str) -> Ill:
        return ills.get(role, Ill())

    def visa(role: str, instrument: Instrument) -> str:
        instrument.faults = ill(role).faults
        return f"TCPIP::{host}::{server.tcp(lambda: ScpiDialogue(instrument), host)}::SOCKET"

    def serial(role: str, dialogue: OzDialogue | AptDialogue) -> str:
        dialogue.faults = ill(role).faults
        return server.serial(dialogue)

    first = AttenuatorTwin(lag=ill("attenuator").lag)
    exfo, oz = (AttenuatorTwin(lag=ill(role).lag) for role in ("attenuator_exfo", "attenuator_oz"))
    paddles, plates = paddles or AxesTwin(3), AxesTwin(3, ill(VOLTAGE_CONTROLLER).lag)
    for axis in paddles.axes:
        axis.lag = ill(CONTROLLER).lag
    bias, faults = BiasTwin(), ill("detector_bias").faults
    control = server.tcp(lambda: WebSqDialogue(bias, faults), host)
    counts = server.stream(lambda reader, writer: websq_counts(bias, faults, writer), host)
    return {
        "attenuator": {"driver": "keysight-attenuator", "resource": visa("attenuator", attenuator(first))},
        "attenuator_exfo": {"driver": "exfo-attenuator", "resource": visa("attenuator_exfo", attenuator(exfo, "exfo"))},
        "attenuator_oz": {
            "driver": "oz-attenuator",
            "port": serial("attenuator_oz", OzDialogue(oz)),
            "simulated": True,
        },
        "power_meter": {
            "driver": "thorlabs-pm100",
            "resource": visa("power_meter", power_meter(PowerMeterTwin(LASER_W, first))),
            "wavelength_nm": 942.0,
        },
        CONTROLLER: {"driver": "thorlabs-mpc320", "port": serial(CONTROLLER, AptDialogue(paddles))},
        VOLTAGE_CONTROLLER: {
            "driver": "voltage-polarisation",
            "resource": visa(VOLTAGE_CONTROLLER, voltage_source(plates, FULL_SCALE_V)),
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


def serve_modulator(
    server: WireServer, driver: str, light: str, slot_rate_hz: float, host: str = "127.0.0.1", ill: Ill | None = None
) -> dict[str, Any]:
    """Start the simulated generator, cell and source; driver and parameters for Alice's modulator."""
    twin = GeneratorTwin(light, slot_rate_hz)
    server.defer(twin.close)
    make, samples_per_slot = GENERATORS[driver]
    instrument = make(twin)
    if ill is not None:
        instrument.faults = ill.faults
    port = server.tcp(lambda: ScpiDialogue(instrument), host)
    return {
        "driver": driver,
        "resource": f"TCPIP::{host}::{port}::SOCKET",
        "amplitude_v": AMPLITUDE_V,
        "samples_per_slot": samples_per_slot,
        "channels": [{"output": 1, "driven_by": "state", "levels_v": list(LEVELS_V)}],
    }


def serve_tagger(
    server: WireServer,
    fibre: str,
    preset: str,
    host: str = "127.0.0.1",
    driver: str = "tcp-tags",
    paddles: AxesTwin | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Start the simulated receiver behind one of ``TAGGERS``; driver and parameters for Bob's time tagger.

    ``paddles`` turn its light. ``more`` : parameters of the twin, such as its weather.
    """
    turning = {CONTROLLER: DeviceSection(driver="twin-polarisation-controller")} if paddles else {}
    tagger = TwinTimeTagger({"fibre": fibre, "preset": preset, **more}, Config(role="bob", devices=turning))
    tagger.axes = paddles
    if driver == "id-time-controller":
        twin = TimeControllerTwin(tagger, host).__enter__()
        server.defer(twin.__exit__)
        server.defer(tagger.close)
        ports = {"port": twin.port, "link_port": twin.link_port, "stream_ports": free_ports(4), "timeout_s": PATIENCE_S}
        return {"driver": driver, "host": host, "link_host": host, **ports}
    server.defer(tagger.close)
    port = server.stream(lambda reader, writer: tag_stream(tagger, writer), host)
    marks = {"heartbeat_channel": HEARTBEAT, "overflow_channel": OVERFLOW, "unlocked_channel": UNLOCKED}
    return {"driver": "tcp-tags", "host": host, "port": port, "simulated": True, **marks}


def merge_devices(path: Path, role: str, devices: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a bench into a configuration: its `[devices.*]` tables are replaced or added, all else stays as it is.

    Raises
    ------
    ConfigurationError
        The file is not the configuration of this role, or would be none afterwards.
    """
    config = load_config(path, role)
    document = tomlkit.parse(read_file(path).decode())
    tables = document.setdefault("devices", tomlkit.table(is_super_table=True))
    for name, parameters in devices.items():
        tables[name] = tomlkit.item(dict(parameters))
    text = tomlkit.dumps(document)
    parse_config(text, config.base_dir, str(path))
    write_file(path, text)


def _leaves_at(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """An address of light, if one is given, as the devices will read it."""
    if value:
        try:
            if read_endpoint(value) is None:
                raise ValueError("tcp://host:port is needed")
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None
    return value


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--light", default="", callback=_leaves_at,
              help="Address where light leaves: serves Alice's modulator too.")  # fmt: skip
@click.option("--modulator", type=click.Choice(sorted(GENERATORS)), default="keysight-awg", show_default=True,
              help="Generator that serves Alice's modulator.")  # fmt: skip
@click.option("--fibre", default="", callback=_leaves_at,
              help="Address where Alice's light leaves: serves Bob's time tagger too.")  # fmt: skip
@click.option("--tagger", type=click.Choice(TAGGERS), default="tcp-tags", show_default=True,
              help="Instrument that serves Bob's time tagger.")  # fmt: skip
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="field-14.6dB", show_default=True,
              help="Simulated link: loss, source, detectors.")  # fmt: skip
@click.option("--into", type=click.Path(path_type=Path), help="Write the bench into this configuration instead of "
              "printing it: devices of the same roles are replaced, all else stays.")  # fmt: skip
@fault_option
def command(
    host: str, light: str, modulator: str, fibre: str, tagger: str, preset: str, into: Path | None,
    fault: tuple[str, ...],
) -> None:  # fmt: skip
    """Serve simulated instruments that speak their real protocols; print the manifest of the bench.

    Alice's bench with --light, Bob's (in another terminal) with --fibre and the same address.

    Example: qkd hil serve --fibre tcp://127.0.0.1:47500 --into link/bob.toml
    """
    if light and fibre:
        raise click.UsageError("--light is for Alice's bench and --fibre for Bob's: start one for each")
    ills = parse_ills(fault)
    with WireServer() as server:
        paddles = AxesTwin(3)
        devices = serve_bench(server, host, ills, paddles)
        if fibre:
            devices["time_tagger"] = serve_tagger(server, fibre, preset, host, tagger, paddles)
        if light:
            rate_hz = PRESETS[preset].clock_rate_hz
            devices["modulator"] = serve_modulator(server, modulator, light, rate_hz, host, ills.get("modulator"))
        served = [role for role in devices if role != "time_tagger"]
        if unknown := sorted(set(ills) - set(served)):
            raise click.UsageError(f"--fault: {unknown[0]} is not among the instruments that can: {', '.join(served)}")
        role = "bob" if fibre else "alice"
        if into is not None:
            merge_devices(into, role, devices)
            click.echo(f"{into}: {len(devices)} devices are written", err=True)
        else:
            document: dict[str, Any] = {"role": role, "devices": devices}
            print(tomlkit.dumps(document), flush=True)
        click.echo("serving until Ctrl-C", err=True)
        threading.Event().wait()
