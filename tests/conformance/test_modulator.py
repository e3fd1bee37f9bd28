"""The modulator role: what comes out of the fibre is what was sent, once, in order, by whatever wire it went."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from common.cli.demo import free_ports
from common.config import Config, DeviceSection
from common.datatypes import Symbols
from common.errors import ConfigurationError, DeviceError
from hardware.drivers import awg
from hardware.interfaces import NONE_HELD
from hardware.registry import open_device
from hardware.twin.fibre import FibreExit, Light
from hardware.twin.generator import LEVELS_V, GeneratorTwin
from hardware.twin.wire import generators
from hardware.twin.wire.hil import command
from hardware.twin.wire.scpi import ScpiDialogue
from hardware.twin.wire.server import Faults, WireServer
from tests.conformance.test_conformance import assert_has_remedy

CONFIG = Config(role="alice")
EPOCH_SLOTS = 1 << 14
"""Stands for the true epoch in this file: a burst of two is 2^15 slots."""
BATCH_SLOTS = 1 << 13


@dataclass
class Way:
    """How a test reaches a modulator, and the far end of its fibre."""

    driver: str
    parameters: dict[str, Any]
    fibre: str
    faults: Faults
    twin: GeneratorTwin | None = None


@contextmanager
def in_process() -> Iterator[Way]:
    fibre = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    yield Way("twin-modulator", {"fibre": fibre}, fibre, Faults())


@contextmanager
def wire(driver: str, lag: int = 0, samples_per_slot: int = 3) -> Iterator[Way]:
    fibre = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    twin = GeneratorTwin(fibre, CONFIG.link.clock_rate_hz, lag)
    instrument = {"keysight-awg": generators.keysight, "tektronix-awg": generators.tektronix}[driver](twin)
    with WireServer() as server:
        server.defer(twin.close)
        parameters = {
            "resource": f"TCPIP::127.0.0.1::{server.tcp(lambda: ScpiDialogue(instrument))}::SOCKET",
            "timeout_s": 0.3,
            "amplitude_v": 0.5,
            "samples_per_slot": samples_per_slot,
            "channels": [{"output": 1, "driven_by": "state", "levels_v": list(LEVELS_V)}],
        }
        yield Way(driver, parameters, fibre, instrument.faults, twin)


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[Way]]] = {
    "twin": in_process,
    "keysight": lambda: wire("keysight-awg"),
    "keysight-slow": lambda: wire("keysight-awg", lag=3, samples_per_slot=2),
    "tektronix": lambda: wire("tektronix-awg"),
    "tektronix-one-sample": lambda: wire("tektronix-awg", samples_per_slot=1),
}
ON_A_WIRE = [pytest.param(way, id=name) for name, way in WAYS.items() if name != "twin"]


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awg, "EPOCH_SLOTS", EPOCH_SLOTS)


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as made:
        yield made


@pytest.fixture(params=ON_A_WIRE)
def wired(request: pytest.FixtureRequest) -> Iterator[Way]:
    with request.param() as made:
        yield made


def opened(way: Way, **more: Any) -> Any:
    return open_device("modulator", DeviceSection(driver=way.driver, **{**way.parameters, **more}), CONFIG)


def batches(rng: np.random.Generator, count: int, first_slot: int = 0) -> list[Symbols]:
    def words(planes: int) -> Any:
        return rng.integers(0, 1 << 64, (planes, BATCH_SLOTS // 64), dtype=np.uint64)

    return [Symbols(first_slot + k * BATCH_SLOTS, words(1)[0], words(1)[0], words(0), words(4)) for k in range(count)]


def received(fibre: str, n_words: int) -> Iterator[Light]:
    """What leaves the fibre; ends with the number of words that were asked for."""
    end, got = FibreExit(fibre), 0
    try:
        while got < n_words:
            light = end.receive(0.05)
            if light is not None:
                got += light.basis.size
                yield light
    finally:
        end.close()


def send_all(device: Any, symbols: list[Symbols]) -> threading.Thread:
    def work() -> None:
        for batch in symbols:
            device.send(batch)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_symbols_leave_as_they_were_sent_once_and_in_order(way: Way, rng: np.random.Generator) -> None:
    sent = batches(rng, 12)  # three bursts of four
    device = opened(way)
    assert device.info.simulated
    sending = send_all(device, sent)
    got = list(received(way.fibre, 12 * BATCH_SLOTS // 64))
    sending.join()
    for plane in ("basis", "bit"):
        out, into = (np.concatenate([getattr(one, plane) for one in many]) for many in (got, sent))
        assert np.array_equal(out, into), plane
    starts = [light.first_slot for light in got if light.after_dark]
    assert starts == ([] if way.twin is None else [0, 2 * EPOCH_SLOTS, 4 * EPOCH_SLOTS])
    device.close()


def test_what_has_not_left_is_known(way: Way, rng: np.random.Generator) -> None:
    device = opened(way)
    if device.unsent_from_slot != NONE_HELD:
        for batch in batches(rng, 3, 4 * EPOCH_SLOTS):
            device.send(batch)
            assert device.unsent_from_slot == 4 * EPOCH_SLOTS
        device.send(batches(rng, 1, 4 * EPOCH_SLOTS + 3 * BATCH_SLOTS)[0])
        assert device.unsent_from_slot == 6 * EPOCH_SLOTS
    device.close()


@pytest.mark.parametrize("wrong", [0, 2 * BATCH_SLOTS])
def test_no_symbol_is_sent_twice_or_left_out(way: Way, wrong: int, rng: np.random.Generator) -> None:
    device = opened(way)
    sending = send_all(device, batches(rng, 1))
    if way.twin is None:
        list(received(way.fibre, BATCH_SLOTS // 64))
    sending.join()
    with pytest.raises(DeviceError, match=r"sent twice or left out") as caught:
        device.send(batches(rng, 1, wrong)[0])
    assert_has_remedy(caught)
    device.close()


def test_closing_is_dark_forgets_the_symbols_and_may_be_done_twice(way: Way, rng: np.random.Generator) -> None:
    device = opened(way)
    if way.twin is not None:
        device.send(batches(rng, 1)[0])
        assert way.twin.pages
        assert way.twin.output
    device.close()
    device.close()
    if way.twin is not None:
        assert not way.twin.pages
        assert not way.twin.output
    with pytest.raises(DeviceError, match="closed") as caught:
        device.send(batches(rng, 1)[0])
    assert_has_remedy(caught)


def test_closing_releases_a_send_that_waits_for_bob(way: Way, rng: np.random.Generator) -> None:
    device, fault = opened(way), []

    def work() -> None:
        try:
            for batch in batches(rng, 12):
                device.send(batch)
        except DeviceError as error:
            fault.append(str(error))

    sending = threading.Thread(target=work)
    sending.start()
    while way.twin is not None and not way.twin.leaving:
        pass
    device.close()
    sending.join(10.0)
    assert not sending.is_alive()
    assert all("closed" in text for text in fault)


def test_unknown_parameter_is_named(way: Way) -> None:
    with pytest.raises(ConfigurationError, match="no_such_thing"):
        opened(way, no_such_thing=1)


# -- on a wire --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage"])
def test_a_fault_while_opening_is_a_device_error(wired: Way, fault: str) -> None:
    setattr(wired.faults, fault, True)
    with pytest.raises(DeviceError) as caught:
        opened(wired)
    assert_has_remedy(caught)


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage"])
def test_a_fault_in_use_is_a_device_error_and_the_device_recovers(
    wired: Way, fault: str, rng: np.random.Generator
) -> None:
    device = opened(wired)
    setattr(wired.faults, fault, True)
    with pytest.raises(DeviceError) as caught:
        device.send(batches(rng, 1)[0])
    assert_has_remedy(caught)
    with pytest.raises(DeviceError):  # the safe state could not be reached: that is said
        device.close()
    setattr(wired.faults, fault, False)
    again = opened(wired)
    again.send(batches(rng, 1)[0])
    again.close()


def test_the_instruments_own_error_is_read(wired: Way, rng: np.random.Generator) -> None:
    device = opened(wired)
    wired.faults.error = '-225,"Out of memory"'
    with pytest.raises(DeviceError, match="-225") as caught:
        device.send(batches(rng, 1)[0])
    assert_has_remedy(caught)
    device.close()


def test_another_instrument_or_firmware_is_refused(wired: Way) -> None:
    with pytest.raises(DeviceError, match=r"expected 9\.9"):
        opened(wired, expect="9.9")
    wired.faults.identity = "Acme,Toaster,1,0.1"
    with pytest.raises(DeviceError, match="Toaster"):
        opened(wired)


def test_no_stray_trigger_repeats_a_burst(wired: Way, rng: np.random.Generator) -> None:
    """An instrument waits for the next trigger with the page that it has just played."""
    assert wired.twin is not None
    device = opened(wired)
    for batch in batches(rng, 4):
        device.send(batch)
    list(received(wired.fibre, 2 * EPOCH_SLOTS // 64))
    last = batches(rng, 3, 2 * EPOCH_SLOTS)
    while wired.twin.leaving:
        pass
    assert wired.twin.waiting
    device.send(last[0])
    assert not wired.twin.waiting
    with pytest.raises(ValueError, match="not waiting"):
        wired.twin.trigger()
    device.close()


def test_a_burst_begins_with_a_preamble(wired: Way, rng: np.random.Generator) -> None:
    device = opened(wired)
    with pytest.raises(DeviceError, match="does not begin an epoch"):
        device.send(batches(rng, 1, BATCH_SLOTS)[0])
    device.close()


def test_a_page_that_does_not_fit_is_the_instruments_error(wired: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware.twin.generator.MEMORY_SLOTS", 3 * EPOCH_SLOTS)
    with pytest.raises(DeviceError, match="refused"):
        opened(wired)


@pytest.mark.parametrize(("driver", "samples_per_slot"), [("keysight-awg", 1), ("tektronix-awg", 64)])
def test_a_clock_beyond_the_instruments_range_is_refused(driver: str, samples_per_slot: int) -> None:
    with wire(driver, samples_per_slot=samples_per_slot) as way:
        with pytest.raises(DeviceError, match="refused") as caught:
            opened(way)
        assert_has_remedy(caught)


def test_a_real_instrument_that_cuts_its_burst_short_is_found_out(wired: Way, rng: np.random.Generator) -> None:
    """A twin's light takes as long as Bob takes; a real one that is early has lost light."""
    device = opened(wired)
    device.info = type(device.info)("modulator", "M8190A", "DE123")
    device._burst_s = 3600.0
    for batch in batches(rng, 4):
        device.send(batch)
    list(received(wired.fibre, 2 * EPOCH_SLOTS // 64))
    assert wired.twin is not None
    while wired.twin.leaving:
        pass
    with pytest.raises(DeviceError, match="over after") as caught:
        device.send(batches(rng, 1, 2 * EPOCH_SLOTS)[0])
    assert_has_remedy(caught)
    device.close()


def test_wrong_levels_are_wrong_states(rng: np.random.Generator) -> None:
    """The twin's light is what the samples say: with V and R exchanged, the bases are wrong."""
    with wire("keysight-awg") as way:
        h, v, r, left = LEVELS_V
        device = opened(way, channels=[{"output": 1, "driven_by": "state", "levels_v": [h, r, v, left]}])
        sent = batches(rng, 4)
        sending = send_all(device, sent)
        got = list(received(way.fibre, 4 * BATCH_SLOTS // 64))
        sending.join()
        assert np.array_equal(np.concatenate([one.basis for one in got]), np.concatenate([one.bit for one in sent]))
        device.close()


def test_one_server_is_one_bench() -> None:
    result = CliRunner().invoke(command, ["--light", "tcp://127.0.0.1:1", "--fibre", "tcp://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "start one for each" in result.output
