"""One suite for every device, however it is reached: in-process twin, wire-level twin, real (`--hardware lab.toml`)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from common.config import DeviceSection
from common.errors import ConfigurationError, DeviceError
from common.randomness import CLASSES
from hardware.registry import open_device
from hardware.twin.wire.hil import serve_bench
from hardware.twin.wire.server import WireServer
from tests.conformance.bench import WAYS
from tests.conformance.way import CONFIG, Way

HANGS_S = 10.0
"""No read takes so long that was asked to wait for 0.05 s: not a measurement, only a bound on hanging."""


@contextmanager
def device_of(way: Way) -> Iterator[Any]:
    device = open_device("device", DeviceSection(driver=way.driver, **way.parameters), way.config)
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
        open_device("device", section, any_way.config)


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
    section = DeviceSection(driver=faulty_way.driver, **faulty_way.parameters)
    device = open_device("device", section, faulty_way.config)
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


READS = 20
"""That a tagger may take until its first clicks."""


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
        case "time tagger":
            assert any(len(device.read(1.0)) for _ in range(READS))
        case "random source":
            device.read(1)
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


# -- time taggers -----------------------------------------------------------------------------------------------------


def test_tags_are_ascending_and_complete_up_to_their_time(time_tagger_way: Way) -> None:
    with device_of(time_tagger_way) as device:
        assert 0.0 < device.resolution_ps < 1e6
        until_ps, clicks = -(1 << 62), 0
        for _ in range(READS):
            tags = device.read(0.3)
            if tags is None:  # a recording has ended
                break
            assert tags.times_ps.dtype == np.int64
            assert tags.channels.dtype == np.uint8
            assert tags.times_ps.shape == tags.channels.shape
            assert not tags.channels.size or int(tags.channels.max()) < 4
            times = np.concatenate([[until_ps], tags.times_ps, [tags.until_ps]])
            assert bool((np.diff(times) >= 0).all())
            assert time_tagger_way.real or not tags.overflow
            until_ps, clicks = tags.until_ps, clicks + len(tags)
        assert time_tagger_way.real or clicks > 0


def test_a_tagger_that_was_closed_raises(time_tagger_way: Way) -> None:
    with device_of(time_tagger_way) as device:
        device.read(0.1)
        device.close()
        with pytest.raises(DeviceError, match="closed") as caught:
            device.read(0.1)
        assert_has_remedy(caught)


def test_reading_returns_while_nothing_clicks(time_tagger_way: Way) -> None:
    with device_of(time_tagger_way) as device:
        for _ in range(3):
            started = time.monotonic()
            device.read(0.05)
            assert time.monotonic() - started < HANGS_S


# -- random sources ---------------------------------------------------------------------------------------------------


def test_bytes_are_as_many_as_wanted_fresh_and_fair(random_source_way: Way) -> None:
    with device_of(random_source_way) as device:
        parts = [device.read(n) for n in (0, 1, 7, 4096, 4096)]
        assert [part.size for part in parts] == [0, 1, 7, 4096, 4096]
        assert all(part.dtype == np.uint8 and part.ndim == 1 for part in parts)
        assert not np.array_equal(parts[3], parts[4])
        ones = int(np.unpackbits(np.concatenate(parts)).sum())
        assert abs(2 * ones - 8 * 8200) < 6.0 * math.sqrt(8 * 8200)


def test_a_source_says_of_which_class_it_is(random_source_way: Way) -> None:
    with device_of(random_source_way) as device:
        assert device.info.randomness in CLASSES
        assert device.info.as_randomness().source


def test_no_byte_comes_twice_after_reopening(random_source_way: Way) -> None:
    if random_source_way.driver == "replay-random-source":
        pytest.skip("a replay begins anew; its keys are simulated")
    with device_of(random_source_way) as device:
        before = device.read(64)
    with device_of(random_source_way) as device:
        assert not np.array_equal(device.read(64), before)


def test_a_source_that_was_closed_raises(random_source_way: Way) -> None:
    with device_of(random_source_way) as device:
        device.close()
        with pytest.raises(DeviceError) as caught:
            device.read(1)
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
