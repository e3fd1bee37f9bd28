"""Alice's optical power, read all the time and compared with the window for which the source was calibrated.

The bounds of the source hold at the power at which they were measured (assumption A1): outside the window no block
produces key. A meter that fails, hangs or is missing counts as outside: what the ledger says was watched, was.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from common.config import Config
from common.errors import ConfigurationError, DeviceError, QkdError
from hardware.slow_control import SlowControl

POLL_S = 0.25
STALE_S = 3.0
"""A reading that is older says nothing about the light that leaves now."""


class PowerWatch(threading.Thread):
    """Reads the meter until told to stop.

    Parameters
    ----------
    read_w : the meter; may block and may fail.
    lower_w, upper_w : window.
    clock : seconds, monotonic.
    """

    def __init__(
        self, read_w: Callable[[], float], lower_w: float, upper_w: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name="power", daemon=True)
        self._read_w, self._lower_w, self._upper_w, self._clock = read_w, lower_w, upper_w, clock
        self._stop_asked = threading.Event()
        self._good_s: float | None = None
        self._fault: str | None = None
        self.power_w: float | None = None

    def run(self) -> None:
        """Watch until :meth:`stop` is called."""
        while not self._stop_asked.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Judge one reading of the meter."""
        try:
            power_w = self._read_w()
        except QkdError as error:
            self._fault = f"the power meter fails: {error}"
            return
        self.power_w = power_w
        if math.isfinite(power_w) and self._lower_w <= power_w <= self._upper_w:
            self._good_s = self._clock()
        else:
            self._fault = f"the power is {power_w:.4g} W, not {self._lower_w:.4g} .. {self._upper_w:.4g} W"

    def judge(self) -> str | None:
        """Why no block may produce key now: a reading outside since the last call, or none of late."""
        fault, self._fault = self._fault, None
        if fault is not None:
            return fault
        if self._good_s is None or self._clock() - self._good_s > STALE_S:
            return "the power meter gives no reading"
        return None

    def stop(self) -> None:
        """Ask it to end after the present reading."""
        self._stop_asked.set()


def power_watch(config: Config, slow: SlowControl) -> PowerWatch | None:
    """The watch that the configuration asks for.

    Raises
    ------
    ConfigurationError
        There is a window and no meter.
    """
    lower_w, upper_w = config.source.power_lower_w, config.source.power_upper_w
    if lower_w is None or upper_w is None:
        return None
    if "power_meter" not in slow.devices:
        raise ConfigurationError(
            "source.power_lower_w and power_upper_w need a power meter at Alice",
            remedy="Name it in [devices.power_meter], or leave the window out at both ends: then nobody watches.",
        )

    def read_w() -> float:
        reading = slow.reading("power_meter")
        if not reading["ok"]:
            raise DeviceError(str(reading["reason"]))
        return float(reading["power_w"])

    return PowerWatch(read_w, lower_w, upper_w)
