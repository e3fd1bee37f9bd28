"""The random source of a daemon: opened, watched by health tests whichever driver it has, and shared by threads.

What an alarm does, the same for every source: the bytes that were tested are dropped, nothing is drawn for
``PAUSE_S``, then the source must pass its start-up test again; the light and the key wait meanwhile, and the status
shows the cause for an hour. A second alarm within that hour is raised and ends the node. A source that gives nothing,
or fewer bytes than it was asked for, is an alarm like any other.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.errors import DeviceError
from common.randomness import OPERATING_SYSTEM
from hardware.health import HealthTests, RandomAlarm, compile_tests
from hardware.interfaces import DeviceInfo, RandomSource
from hardware.registry import open_device

log = logging.getLogger("qkd.hardware")
ROLE: Final = "random_source"
START_UP_BYTES = 4096
"""Tested before the first byte is used (SP 800-90B, 4.3: at least 1024 samples); they may be used afterwards."""
TIMEOUT_S = 30.0
"""Long for a device, and short for a thread of a machine that compiles in all others."""
CLOSE_S = 1.0
"""A read that is under way may take so long before the device is closed under it."""
SLOWEST = 0.01
"""A read may take ``TIMEOUT_S`` and what it would take at this part of the rate that is needed."""
SLOWEST_BYTES_PER_S = 1000.0
AT_ONCE_S = 0.02
"""Bytes are drawn for so much light at once: a change of thread costs as much as testing 1 MB."""
PAUSE_S = 10.0
SECOND_ALARM_S = 3600.0
COIN_BYTES_PER_S = 1e6
"""More than Bob draws: a byte for eight double clicks, 16 for a nonce of each announcement."""
BITS_PER_SYMBOL = {"plentiful": 6.0, "scarce": 1.5}
BITS_PER_INTENSITY = 8.5
Told = Callable[[str | None], None]


def drawn_bytes_per_s(config: Config) -> float:
    """How fast this role draws random bytes while the light runs in real time, about."""
    if config.role == "bob":
        return COIN_BYTES_PER_S
    bits = BITS_PER_SYMBOL[config.transmitter.random_bits] + config.source.phase_bits
    return (bits + BITS_PER_INTENSITY * bool(config.link.intensities)) * config.link.clock_rate_hz / 8.0


class OperatingSystem:
    """The kernel's generator: what Bob draws from where his configuration names no random source."""

    def __init__(self) -> None:
        self.info = DeviceInfo("random source", OPERATING_SYSTEM.source, randomness=OPERATING_SYSTEM.grade)

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
        return np.frombuffer(os.urandom(n_bytes), np.uint8)

    def close(self) -> None:
        """Do nothing, since nothing is held."""


class TestedRandom:
    """A source whose every byte passed the health tests; a failed one is raised.

    Parameters
    ----------
    source : the driver; what its ``raw_noise`` gives is tested too (see :class:`hardware.interfaces.RandomSource`).
    bytes_per_s : rate at which bytes are drawn: it sets the tests' cutoffs.
    """

    __test__ = False  # no test case, whatever its name says

    def __init__(self, source: RandomSource, bytes_per_s: float) -> None:
        self.info = source.info
        self._source, self._tests = source, HealthTests(bytes_per_s)
        self._raw_noise: Callable[[], NDArray[np.uint8]] | None = getattr(source, "raw_noise", None)
        self._raw_tests = HealthTests(bytes_per_s, getattr(source, "raw_entropy_bits", 8.0))

    @property
    def tested(self) -> str:
        """What the tests see, for the status."""
        return "output" if self._raw_noise is None else "raw noise and output"

    def restart(self) -> None:
        """Begin the tests anew."""
        self._tests.restart()
        self._raw_tests.restart()

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes.

        Raises
        ------
        RandomAlarm
            They are not to be used.
        """
        data = self._source.read(n_bytes)
        if data.dtype != np.uint8 or data.shape != (n_bytes,):
            raise RandomAlarm(f"random source: it gave {data.size} of {n_bytes} bytes")
        if self._raw_noise is not None:
            self._raw_tests.check(self._raw_noise())
        self._tests.check(data)
        return data

    def close(self) -> None:
        """Release the device; may be called twice."""
        self._source.close()


class WatchedRandom:
    """A tested source in a thread of its own, with the rule for alarms (module text). For one caller at a time.

    The thread draws one portion ahead, so that source and tests work while the caller uses the portion before.

    Parameters
    ----------
    source : the driver.
    bytes_per_s : rate at which bytes are drawn.
    told : gets the text of an alarm, and None once an hour went by without another.
    clock, timeout_s, pause_s : for tests.
    """

    def __init__(
        self,
        source: RandomSource,
        bytes_per_s: float,
        told: Told,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.info = source.info
        self._tested, self._told, self._clock = TestedRandom(source, bytes_per_s), told, clock
        self._timeout_s, self._pause_s = timeout_s, pause_s
        self._slowest = max(SLOWEST * bytes_per_s, SLOWEST_BYTES_PER_S)
        self._at_once = round(AT_ONCE_S * bytes_per_s)
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._given: SimpleQueue[NDArray[np.uint8] | BaseException] = SimpleQueue()
        self._unanswered = False
        self._closed = threading.Event()
        self._alarm_s: float | None = None
        compile_tests()
        self._thread = threading.Thread(target=self._serve, name="random", daemon=True)
        self._thread.start()
        try:
            self._ask(START_UP_BYTES)
            self._left = self._answer(START_UP_BYTES)
        except BaseException:
            self.close()
            raise

    @property
    def tested(self) -> str:
        """What the health tests see: the output, or the raw noise as well."""
        return self._tested.tested

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes that passed the tests; waits while the source recovers from an alarm.

        Raises
        ------
        RandomAlarm
            The second within an hour.
        """
        if self._alarm_s is not None and self._clock() - self._alarm_s >= SECOND_ALARM_S:
            self._alarm_s = None
            self._told(None)
        parts: list[NDArray[np.uint8]] = []
        missing = n_bytes
        while missing > self._left.size:
            parts.append(self._left)
            missing -= self._left.size
            self._left = self._left[:0]
            try:
                self._left = self._next()
            except RandomAlarm as alarm:
                parts, missing = [], n_bytes
                self._recover(alarm)
        parts.append(self._left[:missing])
        self._left = self._left[missing:]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _recover(self, alarm: RandomAlarm) -> None:
        """Pause, then the start-up test; what it draws is dropped with the rest."""
        if self._alarm_s is not None or self._closed.is_set():
            raise RandomAlarm(
                f"{alarm}, the second alarm within an hour",
                remedy="Do not use this source until its fault is found; no key was made with what it gave.",
            ) from None
        self._alarm_s = self._clock()
        text = f"{alarm}; dropped, waiting {self._pause_s:g} s: a second alarm within an hour ends the node"
        log.error("%s", text)
        self._told(text)
        self._closed.wait(self._pause_s)
        try:
            if self._unanswered:
                self._answer(0)
            self._tested.restart()
            self._ask(START_UP_BYTES)
            self._answer(START_UP_BYTES)
        except RandomAlarm as again:
            self._recover(again)

    def _next(self) -> NDArray[np.uint8]:
        """The next portion; the one behind it is asked for."""
        if not self._unanswered:
            self._ask(self._at_once)
        portion = self._answer(self._at_once)
        self._ask(self._at_once)
        return portion

    def _ask(self, n_bytes: int) -> None:
        if self._closed.is_set():
            raise self._is_closed()
        self._unanswered = True
        self._asked.put(n_bytes)

    def _answer(self, n_bytes: int) -> NDArray[np.uint8]:
        wait_s = self._timeout_s + n_bytes / self._slowest
        try:
            answer = self._given.get(timeout=wait_s)
        except Empty:
            raise RandomAlarm(f"random source: nothing came for {wait_s:.0f} s") from None
        self._unanswered = False
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _is_closed(self) -> DeviceError:
        return DeviceError(f"random source {self.info.model} is closed", remedy="Open the device again.")

    def _serve(self) -> None:
        while (n_bytes := self._asked.get()) is not None:
            try:
                self._given.put(self._tested.read(n_bytes))
            except BaseException as error:
                self._given.put(error)

    def close(self) -> None:
        """Release the device; may be called twice. Who waits for bytes is told that it is closed."""
        self._closed.set()
        self._asked.put(None)
        self._given.put(self._is_closed())
        self._thread.join(CLOSE_S)
        self._tested.close()


class LockedRandom:
    """One random source for several threads: every byte goes to exactly one of them."""

    def __init__(self, source: RandomSource) -> None:
        self._source, self._lock = source, threading.Lock()

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh random bytes."""
        with self._lock:
            return self._source.read(n_bytes)

    def bits(self, n: int) -> NDArray[np.uint8]:
        """*(n,) uint8* fair bits."""
        return np.unpackbits(self.read(-(-n // 8)), count=n)


class Ahead:
    """Bytes drawn before they are wanted, for a caller that must not wait: the event loop.

    Parameters
    ----------
    read : the shared source; called in a thread of this object's own.
    capacity_bytes : drawn ahead; at half of it more is drawn.
    failed : gets the error with which the source ended.
    """

    def __init__(
        self, read: Callable[[int], NDArray[np.uint8]], failed: Callable[[BaseException], None], capacity_bytes: int
    ) -> None:
        self._read, self._failed, self._capacity = read, failed, capacity_bytes
        self._bytes = read(capacity_bytes)
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._fill, name="random ahead", daemon=True).start()

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes at once.

        Raises
        ------
        DeviceError
            The source has given nothing for so long that none are left.
        """
        with self._changed:
            if self._bytes.size < n_bytes:
                raise DeviceError("random source: it gives nothing, and what was drawn ahead is used up")
            data, self._bytes = self._bytes[:n_bytes], self._bytes[n_bytes:]
            self._changed.notify()
        return data

    def _fill(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._bytes.size <= self._capacity // 2)
                if self._closed:
                    return
            try:
                fresh = self._read(self._capacity // 2)
            except BaseException as error:
                if not self._closed:
                    self._failed(error)
                return
            with self._changed:
                self._bytes = np.concatenate([self._bytes, fresh])

    def close(self) -> None:
        """Draw no more; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def open_random_source(config: Config, told: Told) -> WatchedRandom:
    """The configured random source, watched; Bob may do without one."""
    section = config.devices.get(ROLE)
    source: RandomSource
    if section is None and config.role == "bob":
        source = OperatingSystem()
    else:
        source = open_device(ROLE, section, config)
    try:
        return WatchedRandom(source, drawn_bytes_per_s(config), told)
    except BaseException:
        source.close()
        raise
