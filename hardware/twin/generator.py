"""The twin of a waveform generator: two or more pages of memory before a Pockels cell at the entrance of the fibre.

The cell turns the polarisation by one quarter of a great circle, H R V L, for every ``QUARTER_V``. What leaves is what
the samples say, not what was meant: wrong levels are wrong states. Time is the light's: a burst takes as long as Bob
takes. Every burst comes out of darkness. One output, single photons: intensities and phases are not simulated.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Symbols
from hardware.twin.fibre import FibreEntrance

QUARTER_V = 0.1
#: Levels of H, V, R, L.
LEVELS_V = (0.0, 2 * QUARTER_V, QUARTER_V, -QUARTER_V)
STEP_SLOTS = 1 << 20
#: The source is let through for whole pieces of this size: without the tail of a page.
GATE_SLOTS = 1 << 10
#: Of all pages together; samples are kept as 8 bits, one a slot.
MEMORY_SLOTS = 1 << 30


class GeneratorTwin:
    """Memory, clock and trigger of one generator.

    Parameters
    ----------
    fibre : address that Bob's twin connects to. slot_rate_hz : of the source; the cell is struck once a slot.
    lag : this many readings say "running" after the burst has left (slow settling).
    """

    def __init__(self, fibre: str, slot_rate_hz: float, lag: int = 0) -> None:
        self._fibre, self._slot_rate_hz, self._lag = FibreEntrance(fibre), slot_rate_hz, lag
        self.sample_rate_hz, self.amplitude_v, self.output, self.triggered = 0.0, 0.0, False, False
        self.pages: dict[str, tuple[int, NDArray[np.int8]]] = {}
        self.selected = ""
        self._armed = False
        self._left = 0
        self._next_slot = 0
        self._stopping = threading.Event()
        self._burst: threading.Thread | None = None

    @property
    def samples_per_slot(self) -> int:
        """Of the sample clock that is set; another one than a multiple of the slot rate is refused."""
        ratio = self.sample_rate_hz / self._slot_rate_hz
        if ratio < 1.0 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError("the sample clock is no multiple of the slot rate")
        return round(ratio)

    def define(self, name: str, n_samples: int) -> None:
        """A page of 0 V."""
        n_slots = n_samples // self.samples_per_slot
        if n_samples <= 0 or n_slots + sum(page.size for _, page in self.pages.values()) > MEMORY_SLOTS:
            raise ValueError("out of memory")
        self.pages[name] = (n_samples, np.zeros(n_slots, np.int8))

    def write(self, name: str, start: int, levels: NDArray[np.floating]) -> None:
        """Samples in -1..1 of full scale; the middle one of each slot is what the light meets."""
        per_slot = self.samples_per_slot
        n_samples, page = self.pages.get(name, (0, np.zeros(0, np.int8)))
        if start % per_slot or levels.size % per_slot or start + levels.size > n_samples:
            raise ValueError("outside the page")
        middle = levels[per_slot // 2 :: per_slot]
        page[start // per_slot : start // per_slot + middle.size] = np.rint(127.0 * middle)

    def arm(self) -> None:
        """Wait for a trigger."""
        if self.selected not in self.pages or not self.triggered:
            raise ValueError("nothing to play once")
        self._armed = True

    def trigger(self) -> None:
        """Let the selected page leave, once; the next trigger, from wherever, would do it again."""
        if not self._armed or self.leaving:
            raise ValueError("not waiting for a trigger")
        self._left = self._lag
        levels = self.pages[self.selected][1].copy()
        self._burst = threading.Thread(target=self._play, args=(levels,), name="burst", daemon=True)
        self._burst.start()

    @property
    def leaving(self) -> bool:
        """Whether a burst is on its way; time goes on by one reading."""
        if self._burst is not None and self._burst.is_alive():
            return True
        self._left = max(self._left - 1, -1)
        return self._left >= 0

    @property
    def waiting(self) -> bool:
        """Whether it waits for a trigger."""
        return self._armed

    def _play(self, levels: NDArray[np.int8]) -> None:
        states = self._states()
        n_slots = levels.size // GATE_SLOTS * GATE_SLOTS
        for start in range(0, n_slots, STEP_SLOTS):
            if self._stopping.is_set() or not self.output:
                return
            quarters = states[levels[start : min(start + STEP_SLOTS, n_slots)].view(np.uint8)]
            basis, bit = (np.packbits(half, bitorder="little").view("<u8") for half in (quarters & 1, quarters >> 1))
            none = np.zeros((0, basis.size), np.uint64)
            self._fibre.send(Symbols(self._next_slot, basis, bit, none, none), after_dark=start == 0)
            self._next_slot += 64 * int(basis.size)

    def _states(self) -> NDArray[np.uint8]:
        """*(256,) uint8*: quarter turns of every sample value, viewed without sign."""
        volts = np.arange(256, dtype=np.uint8).view(np.int8) / 127.0 * 0.5 * self.amplitude_v
        return (np.rint(volts / QUARTER_V).astype(np.int64) & 3).astype(np.uint8)

    def stop(self) -> None:
        """No trigger is waited for; a burst that is leaving ends by itself."""
        self._armed = False

    def close(self) -> None:
        """Leave the light dark."""
        self._stopping.set()
        self._fibre.close()
        if self._burst is not None:
            self._burst.join(5.0)
