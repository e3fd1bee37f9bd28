"""The twin's light in real time: due by the clock, late light, a buffer that overflows and says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.config_file import parse_config
from common.datatypes import TimeTags
from common.errors import DeviceError
from hardware.twin.devices import TwinTimeTagger
from hardware.twin.real_time import PATIENCE_S, LightClock, TagBuffer
from tests.unit.hardware.test_twin_devices import SLOT_PS, SLOTS, Link


def tags(n: int, until_ps: int) -> TimeTags:
    return TimeTags(np.full(n, until_ps - 1, np.int64), np.zeros(n, np.uint8), until_ps)


def test_light_is_never_early_and_late_light_catches_up() -> None:
    clock = LightClock(1000.0)
    assert clock.wait_s(5000, 5100, 70.0) == pytest.approx(0.1)
    assert clock.wait_s(5100, 5200, 70.0) == pytest.approx(0.2)
    assert clock.wait_s(5200, 5300, 70.9) == 0.0  # late: no wait, and the next is due at its own time
    assert clock.wait_s(5300, 6000, 70.9) == pytest.approx(0.1)
    assert clock.slowed_s == 0.0


def test_light_that_cannot_catch_up_stood_still_for_so_long() -> None:
    clock = LightClock(1000.0)
    clock.wait_s(0, 1000, 0.0)
    late_s = PATIENCE_S + 2.0
    assert clock.wait_s(1000, 2000, 2.0 + late_s) == 0.0
    assert clock.slowed_s == pytest.approx(late_s)
    assert clock.wait_s(2000, 3000, 2.0 + late_s) == pytest.approx(1.0)
    clock.restart()
    assert clock.wait_s(0, 500, 1000.0) == pytest.approx(0.5)
    assert clock.slowed_s == pytest.approx(late_s)


def test_a_full_buffer_loses_tags_and_the_next_batch_says_so() -> None:
    buffer = TagBuffer(10, 5)
    assert (len(empty := buffer.get(0.0)), empty.until_ps, empty.overflow) == (0, 5, False)
    for number in range(1, 6):
        buffer.put(tags(4, 100 * number))
    assert buffer.tags_lost == 12
    assert [(one.until_ps, one.overflow) for one in (buffer.get(0.0), buffer.get(0.0))] == [(100, False), (200, False)]
    assert buffer.get(0.0).until_ps == 200
    buffer.put(tags(0, 700))
    buffer.put(tags(9, 800))  # with the end of the batch before it, one record too many
    buffer.put(tags(7, 900))
    assert [(len(one), one.overflow) for one in (buffer.get(0.0), buffer.get(0.0))] == [(0, True), (7, True)]
    assert buffer.tags_lost == 21


def test_a_buffer_that_nobody_reads_stays_bounded_in_darkness_too() -> None:
    buffer = TagBuffer(10, 0)
    for number in range(1000):
        buffer.put(tags(0, number + 1))
    assert sum(buffer.get(0.0).until_ps == 10 for _ in range(11)) == 2  # the tenth, and then no more


def test_a_fault_of_the_light_reaches_the_reader() -> None:
    buffer = TagBuffer(10, 0)
    waiting = threading.Timer(0.01, buffer.fail, [DeviceError("no fibre")])
    waiting.start()
    with pytest.raises(DeviceError, match="no fibre"):
        buffer.get(30.0)
    waiting.join()


@pytest.fixture(params=[{}])
def link(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Link]:
    more = {"real_time": True, "preset": "lab-0.17dB", **request.param}
    made = Link(parse_config('role = "bob"\n', tmp_path), **more)
    yield made
    made.modulator.close()
    made.tagger.close()


def test_the_light_is_not_early_although_alice_is(link: Link) -> None:
    link.read()  # the light is looked for from here on
    begin = time.monotonic()
    for number in range(4):
        link.send(number * SLOTS)
    clicks = [link.read_click() for _ in range(4)]
    assert time.monotonic() - begin >= 4 * SLOTS * SLOT_PS * 1e-12
    assert np.all(np.diff(np.concatenate([one.times_ps for one in clicks])) >= 0)
    assert link.tagger.counters["tags_lost"] == 0


@pytest.mark.parametrize("link", [{"buffer_tags": 1 << 18}], indirect=True)
def test_light_that_nobody_reads_goes_by_and_is_told_of(link: Link) -> None:
    """A batch is 124 000 clicks: the third finds no room."""
    assert not link.tagger.can_wait
    link.read()
    for number in range(4):
        link.send(number * SLOTS)
    while link.tagger.counters["tags_lost"] < 200_000:
        time.sleep(0.001)
    first, second = link.read_click(), link.read_click()
    link.send(4 * SLOTS)
    after = link.read_click()
    assert [one.overflow for one in (first, second, after)] == [False, False, True]
    assert after.until_ps - second.until_ps == pytest.approx(3 * SLOTS * SLOT_PS, rel=1e-3)
    assert after.times_ps[0] > second.until_ps + 1.9 * SLOTS * SLOT_PS


def test_without_alice_it_is_dark_and_closing_ends_it(link: Link) -> None:
    link.read()
    link.send(0)
    first = link.read_click()
    link.modulator.close()
    while (dark := link.read()).until_ps <= first.until_ps:
        pass
    link.tagger.close()
    with pytest.raises(DeviceError, match="closed"):
        link.tagger.read(0.1)
    assert dark.times_ps.size < 100


def test_without_real_time_nothing_is_counted_and_it_can_wait(tmp_path: Path) -> None:
    tagger = TwinTimeTagger({"fibre": "tcp://127.0.0.1:1"}, parse_config('role = "bob"\n', tmp_path))
    assert (tagger.can_wait, tagger.counters) == (True, {})
    tagger.close()
