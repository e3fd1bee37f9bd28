"""A conversation with an instrument that broke is begun anew, and what the instrument must know is said again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from common.config import Config
from common.errors import AnotherDeviceError, DeviceError
from hardware.drivers.attenuator_scpi import KeysightAttenuator
from hardware.drivers.thorlabs_pm100 import ThorlabsPM100
from hardware.drivers.websq import WebSQ
from hardware.twin.instruments import AttenuatorTwin, BiasTwin, PowerMeterTwin
from hardware.twin.wire.instruments import WebSqDialogue, websq_counts
from hardware.twin.wire.scpi import Instrument, ScpiDialogue, attenuator, power_meter
from hardware.twin.wire.server import Faults, WireServer

BROKEN: list[dict[str, Any]] = [{"half_open": True}, {"silent": True}, {"garbage": True}]
HOST = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as one:
        yield one


def at(server: WireServer, instrument: Instrument) -> dict[str, Any]:
    port = server.tcp(lambda: ScpiDialogue(instrument), HOST)
    return {"resource": f"TCPIP::{HOST}::{port}::SOCKET", "timeout_s": 0.5}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda fault: next(iter(fault)))
def test_a_broken_conversation_is_begun_anew(server: WireServer, broken: dict[str, Any]) -> None:
    instrument = attenuator(AttenuatorTwin())
    instrument.faults = Faults()
    device = KeysightAttenuator(at(server, instrument), Config(role="alice"))
    device.set_attenuation_db(7.0)
    vars(instrument.faults).update(broken)
    for _ in range(3):
        with pytest.raises(DeviceError):
            device.attenuation_db()
    vars(instrument.faults).update(dict.fromkeys(broken, False))
    assert device.attenuation_db() == pytest.approx(7.0)
    device.set_attenuation_db(9.0)
    assert device.attenuation_db() == pytest.approx(9.0)
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.attenuation_db()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda fault: next(iter(fault)))
def test_a_bias_supply_that_broke_off_is_asked_again(server: WireServer, broken: dict[str, Any]) -> None:
    twin, faults = BiasTwin(), Faults()
    ports = {
        "control_port": server.tcp(lambda: WebSqDialogue(twin, faults), HOST),
        "counts_port": server.stream(lambda reader, writer: websq_counts(twin, faults, writer), HOST),
    }
    given = {"host": HOST, "bias_ua": [20.0] * 4, "simulated": True, "timeout_s": 0.5, **ports}
    device = WebSQ(given, Config(role="bob"))
    vars(faults).update(broken)
    for _ in range(2):
        with pytest.raises(DeviceError):
            device.count_rates_cps()
    vars(faults).update(dict.fromkeys(broken, False))
    assert device.count_rates_cps().size == 4
    device.set_bias(2, True)
    assert device.count_rates_cps()[2] > 0.0
    device.close()


def test_another_instrument_at_the_address_is_refused(server: WireServer) -> None:
    instrument = attenuator(AttenuatorTwin())
    instrument.faults = Faults()
    device = KeysightAttenuator(at(server, instrument), Config(role="alice"))
    instrument.faults.half_open = True
    with pytest.raises(DeviceError):
        device.attenuation_db()
    instrument.faults.half_open, instrument.faults.identity = False, "KEYSIGHT,81560A,TWIN7777,9.9"
    with pytest.raises(AnotherDeviceError, match="TWIN7777"):
        device.attenuation_db()
    instrument.faults.identity = ""
    assert device.attenuation_db() >= 0.0
    device.close()


def test_a_meter_that_was_switched_off_is_told_its_wavelength_again(server: WireServer) -> None:
    twin = PowerMeterTwin(1e-6)
    instrument = power_meter(twin)
    instrument.faults = Faults()
    device = ThorlabsPM100({**at(server, instrument), "wavelength_nm": 942.0}, Config(role="alice"))
    assert twin.wavelength_nm == 942.0
    instrument.faults.half_open = True
    with pytest.raises(DeviceError):
        device.power_w()
    twin.wavelength_nm, instrument.faults.half_open = 1550.0, False
    assert device.power_w() == pytest.approx(1e-6)
    assert twin.wavelength_nm == 942.0
    device.close()
