"""The random source of a daemon: its class is stated, an alarm drops and pauses, a second within the hour ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError, DeviceError
from common.kernels.health import scan
from hardware.drivers.random_device import RandomDevice
from hardware.drivers.random_file import RandomFile
from hardware.health import RandomAlarm
from hardware.interfaces import DeviceInfo
from hardware.randomness import (
    AT_ONCE_S,
    SECOND_ALARM_S,
    START_UP_BYTES,
    Ahead,
    LockedRandom,
    OperatingSystem,
    TestedRandom,
    WatchedRandom,
    drawn_bytes_per_s,
    open_random_source,
)

CONFIG = Config(role="alice")
RATE = 1e6
PORTION = round(AT_ONCE_S * RATE)
"""Bytes that are drawn at once; as many are drawn before they are asked for."""


class Script:
    """A source that does what each read is told to do; sound bytes once the script is over."""

    info = DeviceInfo("random source", "script", randomness="quantum")

    def __init__(self, rng: np.random.Generator, *script: str) -> None:
        self.rng, self.script, self.closed = rng, list(script), 0
        self.go_on = threading.Event()

    def read(self, n_bytes: int) -> Any:
        data = np.frombuffer(self.rng.bytes(n_bytes), np.uint8)
        match self.script.pop(0) if self.script else "good":
            case "stuck":
                return np.zeros(n_bytes, np.uint8)
            case "short":
                return data[:-1]
            case "hangs":
                self.go_on.wait()
            case "ends":
                raise DeviceError("it ended")
        return data

    def close(self) -> None:
        self.closed += 1
        self.go_on.set()


class Watch:
    """A watched script, its alarms and its clock."""

    def __init__(self, source: Any, timeout_s: float = 60.0) -> None:
        self.source, self.now_s = source, 0.0
        self.alarms: list[str | None] = []
        self.random = WatchedRandom(
            source, RATE, self._told, clock=lambda: self.now_s, timeout_s=timeout_s, pause_s=0.0
        )

    def _told(self, text: str | None) -> None:
        self.alarms.append(text)
        self.source.go_on.set()  # what hung goes on once that was noticed


@pytest.fixture
def watch(rng: np.random.Generator) -> Iterator[Callable[..., Watch]]:
    made: list[Watch] = []

    def make(*script: str, **more: Any) -> Watch:
        made.append(Watch(Script(rng, "good", *script), **more))
        return made[-1]

    yield make
    for one in made:
        one.random.close()


def test_bytes_come_in_order_and_those_of_the_start_up_test_are_used(rng: np.random.Generator) -> None:
    given: list[bytes] = []

    class Remembers(Script):
        def read(self, n_bytes: int) -> Any:
            data = super().read(n_bytes)
            given.append(data.tobytes())
            return data

    random = Watch(Remembers(rng)).random
    got = b"".join(random.read(n).tobytes() for n in (0, 1, 100, START_UP_BYTES, 10_000))
    drawn = b"".join(given)
    assert got == drawn[: len(got)]
    assert random.read(len(drawn) - len(got)).tobytes() == drawn[len(got) :], "what was drawn at once is all used"
    random.close()


@pytest.mark.parametrize(
    ("fault", "says"),
    [("stuck", "equal bytes"), ("short", f"{PORTION - 1} of {PORTION} bytes"), ("hangs", "nothing came for")],
)
def test_the_first_alarm_is_shown_and_survived_the_second_ends(
    watch: Callable[..., Watch], fault: str, says: str
) -> None:
    one = watch(fault, timeout_s=0.05 if fault == "hangs" else 60.0)
    one.random.read(START_UP_BYTES)
    good = one.random.read(10_000)
    assert np.unique(good).size > 200
    assert len(one.alarms) == 1
    assert says in one.alarms[0]
    assert "a second alarm within an hour ends the node" in one.alarms[0]
    one.source.script, one.now_s = ["stuck"], SECOND_ALARM_S - 1.0
    with pytest.raises(RandomAlarm, match="second alarm within an hour") as caught:
        one.random.read(3 * PORTION)
    assert "Do not use this source" in caught.value.remedy


def test_after_an_hour_the_alarm_goes_and_the_next_is_a_first_one(watch: Callable[..., Watch]) -> None:
    one = watch("stuck")
    one.random.read(START_UP_BYTES + 1000)
    one.now_s = SECOND_ALARM_S
    one.random.read(1)
    assert one.alarms[1:] == [None]
    one.source.script = ["stuck"]
    one.random.read(3 * PORTION)
    assert len(one.alarms) == 3


def test_a_source_that_does_not_recover_ends_at_once(watch: Callable[..., Watch]) -> None:
    one = watch("stuck", "stuck")
    with pytest.raises(RandomAlarm, match="second"):
        one.random.read(START_UP_BYTES + 1000)
    assert len(one.alarms) == 1


def test_bytes_of_a_read_that_alarmed_are_never_given(rng: np.random.Generator) -> None:
    given: list[bytes] = []

    class Remembers(Script):
        def read(self, n_bytes: int) -> Any:
            bad = bool(self.script)
            data = super().read(n_bytes)
            given.append(b"" if bad else data.tobytes())
            return data

    source = Remembers(rng)
    one = Watch(source)
    one.random.read(START_UP_BYTES - 10)
    source.script = ["stuck"]
    got = one.random.read(1000).tobytes()
    assert got == given[3][:1000]  # after the start-up, the stuck read, the start-up test after it
    one.random.close()


def test_the_next_portion_is_drawn_before_it_is_asked_for(rng: np.random.Generator) -> None:
    drawn = threading.Semaphore(0)

    class Tells(Script):
        def read(self, n_bytes: int) -> Any:
            drawn.release()
            return super().read(n_bytes)

    random = Watch(Tells(rng)).random
    random.read(START_UP_BYTES + 1)
    for _ in ("start-up", "the portion that was asked for", "the one behind it"):
        assert drawn.acquire(timeout=60.0)
    assert not drawn.acquire(blocking=False), "no further"
    random.close()


def test_a_read_under_way_is_over_before_the_device_is_closed(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardware.randomness.CLOSE_S", 60.0)
    begun = threading.Event()

    class Slow(Script):
        closing: threading.Event | None = None
        was_closed = False

        def read(self, n_bytes: int) -> Any:
            if self.closing is not None:
                begun.set()
                self.closing.wait(60.0)
                self.was_closed = bool(self.closed)
            return super().read(n_bytes)

    source = Slow(rng)
    random = Watch(source).random
    source.closing = random._closed

    def wait() -> None:
        with contextlib.suppress(DeviceError):
            random.read(START_UP_BYTES + 1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert begun.wait(60.0)
    random.close()
    waiting.join(60.0)
    assert source.closed
    assert not source.was_closed


def test_a_source_that_fails_its_start_up_test_is_not_opened_and_is_closed(rng: np.random.Generator) -> None:
    source = Script(rng, "stuck")
    with pytest.raises(RandomAlarm, match="equal bytes"):
        Watch(source)
    assert source.closed


def test_a_driver_s_own_error_passes_unchanged(watch: Callable[..., Watch]) -> None:
    one = watch("ends")
    with pytest.raises(DeviceError, match="it ended"):
        one.random.read(START_UP_BYTES + 1)
    assert one.alarms == []


def test_closing_wakes_who_waits_and_reading_then_raises(watch: Callable[..., Watch]) -> None:
    one = watch("hangs")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            one.random.read(START_UP_BYTES + 1)
        except DeviceError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    one.random.close()
    waiting.join(10.0)
    assert "closed" in str(caught[0])
    with pytest.raises(DeviceError, match="closed"):
        one.random.read(1)


def test_the_raw_noise_is_tested_where_a_driver_shows_it(rng: np.random.Generator) -> None:
    class Conditioned(Script):
        raw_entropy_bits = 1.0
        raw = bytes(range(256)) * 4

        def raw_noise(self) -> Any:
            return np.frombuffer(self.raw, np.uint8)

    source = Conditioned(rng)
    tested = TestedRandom(source, RATE)
    assert tested.tested == "raw noise and output"
    assert TestedRandom(Script(rng), RATE).tested == "output"
    tested.restart()
    tested.read(10)
    Conditioned.raw = bytes(1024)
    with pytest.raises(RandomAlarm, match="equal bytes"):
        tested.read(10)


def test_several_threads_share_every_byte_once(rng: np.random.Generator) -> None:
    random = LockedRandom(Script(rng))
    bits = random.bits(13)
    assert bits.size == 13
    assert set(bits.tolist()) <= {0, 1}
    assert random.bits(0).size == 0
    assert abs(float(random.bits(100_000).mean()) - 0.5) < 0.02


def test_bytes_drawn_ahead_come_without_waiting_and_once() -> None:
    drawn: list[int] = []
    gate = threading.Semaphore(0)

    def read(n: int) -> Any:
        if drawn:
            gate.acquire()
        drawn.append(n)
        return np.full(n, len(drawn), np.uint8)

    ahead = Ahead(read, lambda error: None, 64)
    assert set(ahead.take(48).tolist()) == {1}  # more is asked for now, and does not come
    ahead.take(16)
    with pytest.raises(DeviceError, match="used up"):
        ahead.take(1)
    ahead.close()
    gate.release()


def test_bytes_drawn_ahead_are_renewed() -> None:
    more = threading.Semaphore(0)

    def read(n: int) -> Any:
        more.release()
        return np.zeros(n, np.uint8)

    ahead = Ahead(read, lambda error: None, 64)
    assert more.acquire(timeout=60.0)
    ahead.take(32)
    assert more.acquire(timeout=60.0), "half is gone: half is drawn anew"
    ahead.close()


def test_a_source_that_ends_ends_who_draws_ahead() -> None:
    failed: list[BaseException] = []
    told = threading.Event()

    def read(n: int) -> Any:
        if n < 64:
            raise DeviceError("it ended")
        return np.zeros(n, np.uint8)

    def fail(error: BaseException) -> None:
        failed.append(error)
        told.set()

    ahead = Ahead(read, fail, 64)
    ahead.take(40)
    assert told.wait(60.0)
    assert "it ended" in str(failed[0])
    ahead.close()


# -- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/urandom", "/dev/random"])
def test_the_kernel_s_generator_is_computational_by_any_path(tmp_path: Path, path: str) -> None:
    link = tmp_path / "qrng0"
    link.symlink_to(path)
    for name in (path, str(link)):
        source = RandomDevice({"path": name}, CONFIG)
        assert source.info.randomness == "computational"
        assert "kernel's generator" in source.info.as_randomness().source
        source.close()
        stated = {"path": name, "randomness": "quantum", "reason": "so the label on the box says"}
        with pytest.raises(ConfigurationError, match="it is computational"):
            RandomDevice(stated, CONFIG)


@pytest.mark.parametrize(
    ("number", "stated", "grade"),
    [
        ((10, 183), {}, "physical"),
        ((10, 183), {"randomness": "quantum", "reason": "a Quantis behind the kernel's driver"}, "quantum"),
        ((10, 183), {"randomness": "computational", "reason": "a virtio device of the host"}, "computational"),
        ((240, 0), {}, "computational"),
        ((240, 0), {"randomness": "quantum", "reason": "vendor's /dev/qrandom0, certified"}, "quantum"),
    ],
)
def test_devices_by_number_and_statement(
    monkeypatch: pytest.MonkeyPatch, number: tuple[int, int], stated: dict[str, str], grade: str
) -> None:
    monkeypatch.setattr(os, "major", lambda _: number[0])
    monkeypatch.setattr(os, "minor", lambda _: number[1])
    source = RandomDevice({"path": "/dev/urandom", **stated}, CONFIG)
    assert source.info.randomness == grade
    assert stated.get("reason", "") in source.info.as_randomness().source
    source.close()


def test_a_class_without_a_reason_is_refused(tmp_path: Path) -> None:
    for wrong in ({"randomness": "quantum"}, {"reason": "because it says so"}):
        with pytest.raises(ConfigurationError, match="together"):
            RandomDevice({"path": "/dev/urandom", **wrong}, CONFIG)


def test_a_recording_is_what_the_operator_states(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "bits").write_bytes(rng.bytes(100))
    for stated, grade in (({}, "computational"), ({"randomness": "quantum", "reason": "Quantis, serial 7"}, "quantum")):
        source = RandomFile({"path": tmp_path / "bits", "origin": "lab 2026", **stated}, CONFIG)
        assert source.info.randomness == grade
        assert "lab 2026" in source.info.as_randomness().source
        source.close()


def test_a_driver_that_states_nothing_counts_as_computational() -> None:
    assert DeviceInfo("random source", "somebody's").as_randomness().grade == "computational"
    assert OperatingSystem().info.as_randomness().grade == "computational"


def test_long_or_unprintable_names_still_fit_the_handshake() -> None:
    said = DeviceInfo("random source", "x\n" * 400).as_randomness()
    assert said.source.isprintable()
    assert len(said.source) == 200


def test_bob_may_do_without_a_source_of_his_own_and_alice_may_not() -> None:
    bob = open_random_source(Config(role="bob"), lambda _: None)
    assert bob.info.randomness == "computational"
    assert bob.read(10).size == 10
    bob.close()
    with pytest.raises(ConfigurationError, match=r"devices\.random_source is missing"):
        open_random_source(CONFIG, lambda _: None)


def test_a_configured_source_is_watched_whatever_its_driver() -> None:
    for driver in ("software-random", "random-device"):
        path = 'path = "/dev/urandom"\n' * (driver == "random-device")
        text = f'role = "bob"\n[devices.random_source]\ndriver = "{driver}"\n{path}'
        source = open_random_source(parse_config(text, Path()), lambda _: None)
        assert isinstance(source, WatchedRandom)
        source.close()


@pytest.mark.parametrize(("random_bits", "per_slot"), [("plentiful", 10.0), ("scarce", 5.5)])
def test_the_rate_is_that_of_the_light(random_bits: str, per_slot: float) -> None:
    text = f'role = "alice"\n[transmitter]\nrandom_bits = "{random_bits}"\n[link]\nclock_rate_hz = 80e6\n'
    assert drawn_bytes_per_s(parse_config(text, Path())) == pytest.approx(80e6 * per_slot / 8.0)


def test_the_tests_are_compiled_before_the_source_has_to_answer(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes longer than a source may be silent: a first start would blame the source."""
    order: list[str] = []
    kinds = set()

    class Asked(Script):
        def read(self, n_bytes: int) -> Any:
            order.append("read")
            return super().read(n_bytes)

    def told(*arguments: Any) -> Any:
        order.append("kernel")
        kinds.add(tuple(numba.typeof(argument) for argument in arguments))
        return scan(*arguments)

    monkeypatch.setattr("hardware.health.scan", told)
    for source in (Asked(rng), OperatingSystem()):
        random = Watch(source).random
        assert random.read(3 * PORTION).size == 3 * PORTION
        random.close()
    assert order[:2] == ["kernel", "read"]
    assert len(kinds) == 1, "each kind of array is compiled for itself"
