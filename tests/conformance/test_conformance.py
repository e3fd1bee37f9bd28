"""One suite for every device, however it is reached: in-process twin, wire-level twin, real (`--hardware lab.toml`)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Config, DeviceSection, load_config
from common.errors import ConfigurationError, DeviceError
from hardware.registry import open_device
from hardware.twin.wire.hil import serve_bench
from hardware.twin.wire.server import WireServer
from tests.conformance.bench import WAYS, Way, local

CONFIG = Config(role="alice")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `<kind>_way` runs once for every way; the manifest's devices are ways like the others."""
    manifest = metafunc.config.getoption("--hardware")
    devices = load_config(Path(manifest)).devices if manifest else {}
    for name in (name for name in metafunc.fixturenames if name.endswith("_way")):
        every = name in ("any_way", "faulty_way")
        kinds = list(WAYS) if every else [name.removesuffix("_way").replace("_", " ")]
        ways = {f"{kind}-{key}": way for kind in kinds for key, way in WAYS[kind].items()}
        if name == "faulty_way":
            ways = {key: way for key, way in ways.items() if not key.endswith("-twin")}
        else:
            real = {key: section for key, section in devices.items() if key.replace("_", " ").startswith(tuple(kinds))}
            ways |= {f"real-{key}": _real(section) for key, section in real.items()}
        metafunc.parametrize(name, list(ways.values()), ids=list(ways), indirect=True)


def _real(section: DeviceSection) -> Callable[[], Any]:
    return lambda: local(section.driver, **(section.model_extra or {}))


@pytest.fixture
def any_way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param()() as way:
        yield way


faulty_way = attenuator_way = power_meter_way = polarisation_controller_way = detector_bias_way = any_way


@contextmanager
def device_of(way: Way) -> Iterator[Any]:
    device = open_device("device", DeviceSection(driver=way.driver, **way.parameters), CONFIG)
    try:
        yield device
    finally:
        device.close()


def assert_has_remedy(caught: pytest.ExceptionInfo[Any]) -> None:
    assert str(caught.value)
    assert caught.value.remedy.endswith(".")


# -- what every device promises ---------------------------------------------------------------------------------------


def test_says_who_it_is_and_closes_twice(any_way: Way) -> None:
    with device_of(any_way) as device:
        assert device.info.kind
        assert device.info.model
        if any_way.faults is not None:
            assert device.info.simulated  # the twin's serial number says so, or the manifest
        device.close()
        device.close()
    if any_way.safe is not None:
        assert any_way.safe()


def test_unknown_parameter_is_named(any_way: Way) -> None:
    section = DeviceSection(driver=any_way.driver, **{**any_way.parameters, "no_such_thing": 1})
    with pytest.raises(ConfigurationError, match="no_such_thing"):
        open_device("device", section, CONFIG)


# -- faults of the wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage"])
def test_a_fault_while_opening_is_a_device_error(faulty_way: Way, fault: str) -> None:
    assert faulty_way.faults is not None
    setattr(faulty_way.faults, fault, True)
    with pytest.raises(DeviceError) as caught, device_of(faulty_way):
        pass
    assert_has_remedy(caught)


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage"])
def test_a_fault_in_use_is_a_device_error_and_the_device_recovers(faulty_way: Way, fault: str) -> None:
    assert faulty_way.faults is not None
    device = open_device("device", DeviceSection(driver=faulty_way.driver, **faulty_way.parameters), CONFIG)
    try:
        setattr(faulty_way.faults, fault, True)
        with pytest.raises(DeviceError) as caught:
            use(device)
        assert_has_remedy(caught)
    finally:
        setattr(faulty_way.faults, fault, False)
        with contextlib.suppress(DeviceError):  # a safe state that could not be reached is said, never hidden
            device.close()
    with device_of(faulty_way) as again:
        use(again)


def test_another_instrument_is_refused(faulty_way: Way) -> None:
    assert faulty_way.faults is not None
    faulty_way.faults.identity = "Acme,Toaster,1,0.1"
    with pytest.raises(DeviceError, match=r"Toaster") as caught, device_of(faulty_way):
        pass
    assert_has_remedy(caught)


def test_another_firmware_than_expected_is_refused() -> None:
    with WAYS["attenuator"]["keysight"]()() as way:
        way.parameters["expect"] = "1.025"
        with device_of(way) as device:
            assert device.info.firmware == "1.025"
        way.parameters["expect"] = "1.026"
        with pytest.raises(DeviceError, match=r"expected 1\.026") as caught, device_of(way):
            pass
        assert_has_remedy(caught)


def use(device: Any) -> None:
    """The first thing that each kind is for."""
    match device.info.kind:
        case "attenuator":
            device.set_attenuation_db(12.0)
        case "power meter":
            device.power_w()
        case "polarisation controller":
            device.set_axes(np.full(device.n_axes, 0.25))
        case "detector bias":
            device.set_bias(1, True)
            device.count_rates_cps()
        case kind:
            raise AssertionError(f"no use known for {kind!r}")


# -- attenuators ------------------------------------------------------------------------------------------------------


def test_attenuation_is_in_db_and_reached_on_return(attenuator_way: Way) -> None:
    with device_of(attenuator_way) as device:
        for wanted in (3.0, 27.5, 0.0):
            device.set_attenuation_db(wanted)
            assert device.attenuation_db() == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize("wrong", [-1.0, 1e4, math.nan, math.inf])
def test_attenuation_out_of_range_changes_nothing(attenuator_way: Way, wrong: float) -> None:
    with device_of(attenuator_way) as device:
        device.set_attenuation_db(10.0)
        with pytest.raises(DeviceError, match=r"range|not in") as caught:
            device.set_attenuation_db(wrong)
        assert_has_remedy(caught)
        assert device.attenuation_db() == pytest.approx(10.0, abs=0.1)


def test_after_closing_nothing_is_set(attenuator_way: Way) -> None:
    with device_of(attenuator_way) as device:
        device.close()
        with pytest.raises(DeviceError, match="closed"):
            device.set_attenuation_db(1.0)


# -- power meters -----------------------------------------------------------------------------------------------------


def test_power_is_in_watts(power_meter_way: Way) -> None:
    with device_of(power_meter_way) as device:
        assert 0.0 <= device.power_w() < 1.0


# -- polarisation controllers -----------------------------------------------------------------------------------------


def test_axes_take_fractions_of_their_range(polarisation_controller_way: Way) -> None:
    with device_of(polarisation_controller_way) as device:
        for wanted in (0.0, 0.5, 1.0):
            device.set_axes(np.full(device.n_axes, wanted))


@pytest.mark.parametrize("wrong", [[0.5], [0.1, 0.2, 1.1], [0.1, 0.2, math.nan], [-0.1, 0.0, 0.0]])
def test_wrong_axes_are_refused(polarisation_controller_way: Way, wrong: list[float]) -> None:
    with device_of(polarisation_controller_way) as device:
        with pytest.raises(DeviceError, match=r"axes") as caught:
            device.set_axes(np.array(wrong))
        assert_has_remedy(caught)


# -- detector bias ----------------------------------------------------------------------------------------------------


def test_a_detector_counts_only_while_biased(detector_bias_way: Way) -> None:
    with device_of(detector_bias_way) as device:
        device.set_bias(2, True)
        rates = device.count_rates_cps()
        assert rates[2] > 0.0
        assert not rates[[0, 1, 3]].any()
        device.set_bias(2, False)
        assert not device.count_rates_cps().any()


@pytest.mark.parametrize("wrong", [-1, 99])
def test_a_detector_that_is_not_there_is_refused(detector_bias_way: Way, wrong: int) -> None:
    with device_of(detector_bias_way) as device, pytest.raises(DeviceError, match=r"no detector") as caught:
        device.set_bias(wrong, True)
    assert_has_remedy(caught)


# -- errors that an instrument reports itself -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["attenuator-keysight", "attenuator-exfo", "attenuator-oz", "detector bias-websq"])
def test_an_instruments_own_error_is_read(kind: str) -> None:
    what, name = kind.split("-")
    with WAYS[what][name]()() as way, device_of(way) as device:
        assert way.faults is not None
        way.faults.error = '-222,"Data out of range"'
        with pytest.raises(DeviceError, match=r"-222") as caught:
            use(device)
        assert_has_remedy(caught)


# -- the whole bench --------------------------------------------------------------------------------------------------


def test_the_bench_serves_a_manifest_whose_devices_work_together() -> None:
    with WireServer() as server:
        bench = {role: DeviceSection.model_validate(section) for role, section in serve_bench(server).items()}
        attenuator = open_device("attenuator", bench.pop("attenuator"), CONFIG)
        meter = open_device("power_meter", bench["power_meter"], CONFIG)
        attenuator.set_attenuation_db(0.0)
        bright = meter.power_w()
        attenuator.set_attenuation_db(20.0)
        assert meter.power_w() == pytest.approx(bright / 100.0, rel=1e-3)
        attenuator.close()
        assert meter.power_w() == 0.0
        meter.close()
        for role, section in bench.items():
            device = open_device(role, section, CONFIG)
            assert device.info.simulated, role
            use(device)
            device.close()
