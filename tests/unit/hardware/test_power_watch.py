"""Power outside its window, or unread, keeps blocks from producing key; nothing is said to be watched that is not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from common.config_file import parse_config
from common.errors import ConfigurationError, DeviceError
from common.statements import assumed
from hardware.interfaces import DeviceInfo
from hardware.power_watch import STALE_S, PowerWatch, power_watch
from hardware.slow_control import SlowControl

WINDOW = "[source]\npower_lower_w = 1e-9\npower_upper_w = 2e-9\n"


class Meter:
    info = DeviceInfo("power meter", "script")

    def __init__(self, power_w: float = 1.5e-9) -> None:
        self.value: float | None = power_w

    def power_w(self) -> float:
        if self.value is None:
            raise DeviceError("no answer")
        return self.value

    def close(self) -> None:
        pass


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def watch(meter: Meter, now: list[float]) -> PowerWatch:
    return PowerWatch(meter.power_w, 1e-9, 2e-9, lambda: now[0])


def test_before_the_first_reading_nothing_gives_key(watch: PowerWatch) -> None:
    assert "no reading" in str(watch.judge())
    watch.look()
    assert watch.judge() is None


@pytest.mark.parametrize("power_w", [0.0, 0.99e-9, 2.01e-9, math.nan, math.inf])
def test_a_reading_outside_is_told_though_the_next_is_inside_again(
    watch: PowerWatch, meter: Meter, power_w: float
) -> None:
    watch.look()
    meter.value = power_w
    watch.look()
    meter.value = 1.5e-9
    watch.look()
    assert "not 1e-09 .. 2e-09 W" in str(watch.judge())
    assert watch.judge() is None


def test_the_edges_are_inside(watch: PowerWatch, meter: Meter) -> None:
    for meter.value in (1e-9, 2e-9):
        watch.look()
        assert watch.judge() is None


def test_a_meter_that_fails_or_hangs_counts_as_outside(watch: PowerWatch, meter: Meter, now: list[float]) -> None:
    watch.look()
    meter.value = None
    watch.look()
    assert "fails: no answer" in str(watch.judge())
    now[0] = STALE_S + 0.1
    assert "no reading" in str(watch.judge())


def test_a_window_needs_a_meter_and_a_meter_alone_watches_nothing() -> None:
    windowed = parse_config(f'role = "alice"\n{WINDOW}', Path())
    with pytest.raises(ConfigurationError, match="need a power meter"):
        power_watch(windowed, SlowControl())
    slow = SlowControl({"power_meter": Meter()})
    made = power_watch(windowed, slow)
    assert made is not None
    made.look()
    assert made.judge() is None
    assert power_watch(parse_config('role = "alice"', Path()), slow) is None


def test_only_a_watched_power_stands_in_the_assumptions() -> None:
    for role in ("alice", "bob"):
        said = [one for one in assumed(parse_config(f'role = "{role}"\n{WINDOW}', Path())) if "power" in one]
        assert len(said) == 1
        assert "1e-09 .. 2e-09 W" in said[0]
        assert not any("power" in one for one in assumed(parse_config(f'role = "{role}"', Path())))
