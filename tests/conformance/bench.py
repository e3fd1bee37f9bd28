"""Every device of the suite: kind -> ways to reach it. A way is a context manager that yields (driver, parameters, faults)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from hardware.twin.instruments import AttenuatorTwin, PowerMeterTwin
from hardware.twin.wire.scpi import Instrument, ScpiDialogue, attenuator, power_meter
from hardware.twin.wire.server import Faults, WireServer

TIMEOUT_S = 0.3


@dataclass
class Way:
    """How a test reaches a device. ``faults``: None where nothing can be injected; ``safe``: is the twin in its safe state?"""

    driver: str
    parameters: dict[str, Any]
    faults: Faults | None = None
    safe: Callable[[], bool] | None = None


Opening = Callable[[], AbstractContextManager[Way]]


def local(driver: str, **parameters: Any) -> Opening:
    """A twin in this process."""

    @contextmanager
    def way() -> Iterator[Way]:
        yield Way(driver, parameters)

    return way


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


WAYS: dict[str, dict[str, Callable[[], Opening]]] = {
    "attenuator": {
        "twin": lambda: local("twin-attenuator", lag=2),
        "keysight": lambda: scpi_attenuator("keysight"),
        "keysight-slow": lambda: scpi_attenuator("keysight", lag=4),
        "exfo": lambda: scpi_attenuator("exfo"),
    },
    "power meter": {
        "twin": lambda: local("twin-power-meter"),
        "pm100": lambda: scpi("thorlabs-pm100", power_meter(PowerMeterTwin()), None, wavelength_nm=942.0),
    },
}
