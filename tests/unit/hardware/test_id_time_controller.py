"""ID900 and ID1000 over ZeroMQ: sub-acquisitions arrive as one ascending stream; losses void, faults are told."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.datatypes import TimeTags
from common.errors import ConfigurationError, DeviceError
from hardware.drivers.id_time_controller import GAP_PS, IdTimeController
from hardware.twin.wire.time_controller import TimeControllerTwin

CONFIG = Config(role="bob")
LENGTH_PS = 200_000_000_000
PERIOD_PS = LENGTH_PS + GAP_PS


class Script:
    """A tagger that reads out a list of batches, and is dark from then on."""

    resolution_ps = 1.0

    def __init__(self, *batches: TimeTags) -> None:
        self._batches = list(batches)
        self._until_ps = batches[-1].until_ps if batches else 0

    def read(self, timeout_s: float) -> TimeTags | None:
        if self._batches:
            return self._batches.pop(0)
        return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._until_ps)


def clicks(times: Any, channels: Any, until_ps: int, overflow: bool = False) -> TimeTags:
    return TimeTags(np.asarray(times, np.int64), np.asarray(channels, np.uint8), until_ps, overflow)


def free_ports(n: int) -> tuple[int, ...]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)


def parameters(twin: TimeControllerTwin, **more: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": twin.port,
        "link_port": twin.link_port,
        "stream_ports": free_ports(4),
        "timeout_s": 0.5,
        **more,
    }


@contextmanager
def serving(*batches: TimeTags) -> Iterator[TimeControllerTwin]:
    with TimeControllerTwin(Script(*batches)) as twin:  # type: ignore[arg-type]
        yield twin


@contextmanager
def opened(twin: TimeControllerTwin, **more: Any) -> Iterator[IdTimeController]:
    device = IdTimeController(parameters(twin, **more), CONFIG)
    try:
        yield device
    finally:
        device.close()


def read_one(device: IdTimeController) -> TimeTags:
    before = device.read(0.001)
    assert before is not None
    got = before
    while got.until_ps == before.until_ps and not len(got):
        after = device.read(2.0)
        assert after is not None
        got = after
    return got


def read_all(device: IdTimeController) -> None:
    for _ in range(100):
        device.read(0.5)


def test_sub_acquisitions_arrive_as_one_stream_but_for_the_gaps(rng: np.random.Generator) -> None:
    times = np.sort(rng.integers(0, 4 * PERIOD_PS, 5_000))
    times[0] = 0
    channels = rng.integers(0, 4, times.size)
    cuts = [0, 17, 2_000, times.size]
    batches = [clicks(times[a:b], channels[a:b], int(times[b - 1]) + 1) for a, b in itertools.pairwise(cuts)]
    batches.append(clicks([], [], 4 * PERIOD_PS))
    with serving(*batches) as twin, opened(twin) as device:
        assert device.info.simulated
        got = [read_one(device) for _ in range(4)]
    seen = times % PERIOD_PS < LENGTH_PS
    assert np.array_equal(np.concatenate([batch.times_ps for batch in got]), times[seen])
    assert [batch.until_ps for batch in got] == [PERIOD_PS * (k + 1) for k in range(4)]
    pairs = set(zip(times[seen].tolist(), channels[seen].tolist(), strict=True))
    assert {
        pair for batch in got for pair in zip(batch.times_ps.tolist(), batch.channels.tolist(), strict=True)
    } == pairs
    assert not any(batch.overflow for batch in got)
    assert not twin.playing


def test_a_loss_that_the_instrument_counts_voids_its_batch_alone() -> None:
    late = clicks([PERIOD_PS + 7], [2], 2 * PERIOD_PS)
    with serving(clicks([0, 5], [0, 1], PERIOD_PS, overflow=True)) as twin, opened(twin) as device:
        first = read_one(device)
        assert first.overflow
        assert first.times_ps.tolist() == [0, 5]
        twin._tagger._batches.append(late)  # type: ignore[attr-defined]
        second = read_one(device)
        assert not second.overflow
        assert second.times_ps.tolist() == [PERIOD_PS + 7]


def test_a_program_that_died_does_not_keep_the_service() -> None:
    with serving(clicks([0], [0], 1)) as twin:
        dead = IdTimeController(parameters(twin), CONFIG)
        dead._release()
        with opened(twin) as device:
            assert device.info.model == "ID Quantique ID1000"


@pytest.mark.parametrize("fault", ["silent", "half_open", "garbage"])
def test_a_fault_while_opening_is_a_device_error(fault: str) -> None:
    with serving() as twin:
        setattr(twin.faults, fault, True)
        with pytest.raises(DeviceError) as caught, opened(twin):
            pass
        assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize("fault", ["silent", "garbage"])
def test_a_fault_in_use_is_a_device_error_and_it_can_be_opened_again(fault: str) -> None:
    with serving(clicks([0], [0], 1)) as twin:
        device = IdTimeController(parameters(twin), CONFIG)
        setattr(twin.faults, fault, True)
        twin._tagger._batches.append(clicks([PERIOD_PS], [0], PERIOD_PS + 1))  # type: ignore[attr-defined]
        with pytest.raises(DeviceError):
            read_all(device)
        with pytest.raises(DeviceError):
            device.close()
        device.close()
        with pytest.raises(DeviceError, match="closed"):
            device.read(0.1)
        setattr(twin.faults, fault, False)
        with opened(twin) as again:
            assert again.info.serial.startswith("TWIN")


def test_another_instrument_and_its_own_errors_are_told() -> None:
    with serving() as twin:
        twin.faults.identity = "Acme,Toaster,1,0.1"
        with pytest.raises(DeviceError, match="Toaster"), opened(twin):
            pass
        twin.faults.identity, twin.faults.error = "", "EXECUTION"
        with pytest.raises(DeviceError, match="SCPI_ERR_EXECUTION"), opened(twin):
            pass


def test_times_outside_their_sub_acquisition_are_no_tags() -> None:
    with serving() as twin, opened(twin) as device:
        for message, what in [(b"123", "whole tags"), (np.array([5, 3], "<i8").tobytes(), "outside")]:
            with pytest.raises(DeviceError, match=what):
                device._merge([message, b"", b"", b""])


def test_channels_must_be_four_inputs() -> None:
    with pytest.raises(ConfigurationError, match="four different"):
        IdTimeController({"host": "127.0.0.1", "channels": (1, 1, 2, 3)}, CONFIG)
