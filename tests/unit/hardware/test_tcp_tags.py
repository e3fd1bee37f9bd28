"""The raw tag stream: what a tagger reads arrives unchanged; damage voids the block or is a DeviceError."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.datatypes import TimeTags
from common.errors import DeviceError
from hardware.drivers.tcp_tags import TcpTags
from hardware.interfaces import DeviceInfo
from hardware.twin.wire.server import WireServer
from hardware.twin.wire.tags import encode, tag_stream

CONFIG = Config(role="bob")


class Script:
    """A tagger that reads out a list of batches."""

    info = DeviceInfo("time tagger", "script", simulated=True)
    resolution_ps = 1.0

    def __init__(self, batches: list[TimeTags]) -> None:
        self._batches = iter(batches)

    def read(self, timeout_s: float) -> TimeTags | None:
        return next(self._batches, None)

    def close(self) -> None:
        pass


@contextmanager
def sending(data: bytes) -> Iterator[TcpTags]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await reader.read()

    with WireServer() as server:
        device = opened(server.stream(talk))
        try:
            yield device
        finally:
            device.close()
            device.close()


def opened(port: int, **more: Any) -> TcpTags:
    marks = {"heartbeat_channel": 15, "overflow_channel": 14}
    return TcpTags({"host": "127.0.0.1", "port": port, "simulated": True, "timeout_s": 1.0, **marks, **more}, CONFIG)


def read_all(device: TcpTags) -> list[TimeTags]:
    batches = []
    try:
        while (batch := device.read(2.0)) is not None:
            batches.append(batch)
    except DeviceError as error:
        assert "closed the connection" in str(error)  # noqa: PT017 - the only way that a stream ends
    return batches


def test_what_a_tagger_reads_arrives_unchanged(rng: np.random.Generator) -> None:
    times = np.sort(rng.integers(0, 1 << 50, 20_000))
    channels = rng.integers(0, 4, times.size).astype(np.uint8)
    cuts = [0, 1, 777, 20_000]
    batches = [TimeTags(times[a:b], channels[a:b], int(times[b - 1]) + 1) for a, b in itertools.pairwise(cuts)]
    with WireServer() as server:
        port = server.stream(lambda reader, writer: tag_stream(Script(batches), writer))
        device = opened(port)
        got = read_all(device)
        device.close()
    assert np.array_equal(np.concatenate([batch.times_ps for batch in got]), times)
    assert np.array_equal(np.concatenate([batch.channels for batch in got]), channels)
    assert got[-1].until_ps == int(times[-1]) + 1
    assert not any(batch.overflow for batch in got)


def test_an_overflow_mark_voids_the_batch() -> None:
    tags = TimeTags(np.array([5, 9]), np.array([1, 2], np.uint8), 10, overflow=True)
    with sending(encode(tags)) as device:
        got = device.read(2.0)
        assert got is not None
        assert got.overflow
        assert got.times_ps.tolist() == [5, 9]


def test_a_time_that_goes_back_is_dropped_and_voids_the_batch() -> None:
    with sending(struct.pack("<3Q", 100 << 4, 50 << 4 | 1, 120 << 4 | 2)) as device:
        got = device.read(2.0)
        assert got is not None
        assert got.overflow
        assert got.times_ps.tolist() == [100, 120]


def test_silence_is_an_empty_batch() -> None:
    with sending(b"\x01") as device:  # part of a record: nothing yet
        got = device.read(0.05)
        assert got is not None
        assert len(got) == 0


def test_garbage_is_a_device_error() -> None:
    with sending(b"HTTP/1.1 400 Bad Request\r\n\r\n") as device:
        with pytest.raises(DeviceError, match="not mapped") as caught:
            device.read(2.0)
        assert caught.value.remedy.endswith(".")


def test_nobody_there_is_a_device_error() -> None:
    with WireServer() as server:
        port = server.stream(lambda reader, writer: asyncio.sleep(0))
    with pytest.raises(DeviceError, match="cannot be reached"):
        opened(port)
