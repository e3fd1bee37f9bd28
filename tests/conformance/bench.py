"""Every device of the suite: kind -> ways to reach it, each a context manager that yields a :class:`Way`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hardware.twin.axes import AxesTwin
from hardware.twin.instruments import AttenuatorTwin, BiasTwin, PowerMeterTwin
from hardware.twin.wire.instruments import AptDialogue, OzDialogue, WebSqDialogue, websq_counts
from hardware.twin.wire.scpi import Instrument, ScpiDialogue, attenuator, power_meter, voltage_source
from hardware.twin.wire.server import Faults, WireServer
from tests.conformance.streams import SOURCES, TAGGERS
from tests.conformance.way import TIMEOUT_S, Opening, Way, local


def scpi(driver: str, instrument: Instrument, safe: Callable[[], bool] | None, **parameters: Any) -> Opening:
    """A SCPI instrument on a socket."""

    @contextmanager
    def way() -> Iterator[Way]:
        with WireServer() as server:
            port = server.tcp(lambda: ScpiDialogue(instrument))
            address = {"resource": f"TCPIP::127.0.0.1::{port}::SOCKET", "timeout_s": TIMEOUT_S, "settle_s": 2.0}
            yield Way(driver, {**address, **parameters}, instrument.faults, safe)

    return way


def scpi_attenuator(family: str, lag: int = 0) -> Opening:
    twin = AttenuatorTwin(lag=lag)
    return scpi(
        f"{family}-attenuator", attenuator(twin, family), lambda: not twin.open and twin.attenuation.target == 60.0
    )


def serial(driver: str, dialogue: OzDialogue | AptDialogue, safe: Callable[[], bool], **more: Any) -> Opening:
    """An instrument on a pseudo-terminal."""

    @contextmanager
    def way() -> Iterator[Way]:
        with WireServer() as server:
            parameters = {"port": server.serial(dialogue), "timeout_s": TIMEOUT_S, "settle_s": 2.0, **more}
            yield Way(driver, parameters, dialogue.faults, safe)

    return way


def oz_attenuator() -> Opening:
    twin = AttenuatorTwin()
    return serial("oz-attenuator", OzDialogue(twin), lambda: twin.attenuation.target == 60.0, simulated=True)


def voltage_polarisation() -> Opening:
    twin = AxesTwin(3, lag=1)
    instrument = voltage_source(twin, 5.0)
    return scpi("voltage-polarisation", instrument, lambda: all(a.target == 0.0 for a in twin.axes), full_scale_v=5.0)


def websq() -> Opening:
    twin, faults = BiasTwin(), Faults()

    @contextmanager
    def way() -> Iterator[Way]:
        with WireServer() as server:
            control = server.tcp(lambda: WebSqDialogue(twin, faults))
            counts = server.stream(lambda reader, writer: websq_counts(twin, faults, writer))
            ports = {"host": "127.0.0.1", "control_port": control, "counts_port": counts}
            parameters = {**ports, "bias_ua": [20.0] * 4, "timeout_s": TIMEOUT_S, "simulated": True}
            yield Way("single-quantum-websq", parameters, faults, lambda: not twin.enabled and not any(twin.current_ua))

    return way


#: Without a wire whose faults could be injected; `tcp-tags` has a test of its own for its stream.
WITHOUT_FAULTS = ("twin", "tcp-tags", "swabian", "qutag", "replay", "software", "device", "file", "drbg", "quantis")

WAYS: dict[str, dict[str, Callable[[], Opening]]] = {
    "attenuator": {
        "twin": lambda: local("twin-attenuator", lag=2),
        "keysight": lambda: scpi_attenuator("keysight"),
        "keysight-slow": lambda: scpi_attenuator("keysight", lag=4),
        "exfo": lambda: scpi_attenuator("exfo"),
        "oz": oz_attenuator,
    },
    "power meter": {
        "twin": lambda: local("twin-power-meter"),
        "pm100": lambda: scpi("thorlabs-pm100", power_meter(PowerMeterTwin()), None, wavelength_nm=942.0),
    },
    "polarisation controller": {
        "twin": lambda: local("twin-polarisation-controller", lag=2),
        "mpc320": lambda: serial("thorlabs-mpc320", AptDialogue(AxesTwin(3, lag=2)), lambda: True),
        "voltage": voltage_polarisation,
    },
    "detector bias": {"twin": lambda: local("twin-detector-bias"), "websq": websq},
    "time tagger": TAGGERS,
    "random source": SOURCES,
}
