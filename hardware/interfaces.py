"""What each kind of device promises. The twin, replays and real drivers are equal siblings behind these Protocols.

All calls may block and are made from worker threads, one thread per device; none touches the event loop. Every device
raises :class:`common.errors.DeviceError` on failure, leaves itself in its safe state in ``close()`` (idempotent), and
says in ``info`` whether anything it produces is simulated.

Timing: no call outlasts the driver's own time-outs; a setter returns when the read-back agrees, never on an echo.
Errors: a DeviceError names the device, the fault and a remedy; a device that was closed raises on use. A setting out of
range raises and changes nothing. Closing: a safe state that could not be reached raises once, after the connection was
released. A driver class says ``tried = False`` until it has met a real instrument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Symbols, TimeTags
from common.errors import DeviceError
from common.randomness import MAX_SOURCE_CHARACTERS, Randomness, RandomnessClass

#: Serial numbers of wire-level twins start so: a driver that reads one marks its device as simulated.
TWIN_SERIAL = "TWIN"


#: ``Modulator.unsent_from_slot`` of a device that holds no symbols back.
NONE_HELD = 1 << 62


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Who a device is. ``simulated`` marks twins, replays and software randomness: their keys are not for use.

    ``randomness`` is the class of a random source; one whose driver states none counts as computational.
    """

    kind: str
    model: str
    serial: str = ""
    firmware: str = ""
    simulated: bool = False
    randomness: RandomnessClass | None = None

    def as_randomness(self) -> Randomness:
        """Class and identity of a random source, as the handshake says them."""
        name = " ".join(word for word in (self.model, self.serial) if word)
        text = "".join(letter if letter.isprintable() else "?" for letter in name + " (simulated)" * self.simulated)
        return Randomness(self.randomness or "computational", text[:MAX_SOURCE_CHARACTERS] or "unnamed")


class Device(Protocol):
    """What all devices share."""

    @property
    def info(self) -> DeviceInfo:
        """Identity; valid after construction."""
        ...

    def close(self) -> None:
        """Go to the safe state and release the device; may be called twice."""
        ...


class RandomSource(Device, Protocol):
    """Random bits, each handed out once; ``info.randomness`` says of which class they are.

    Health tests are no driver's business: `hardware/randomness.py` applies them to every source. A driver that can
    read the noise before any conditioning has ``raw_noise()``, *(n,) uint8* samples behind the bytes handed out since
    its last call, and ``raw_entropy_bits``, their min-entropy a byte: the tests then see both.
    """

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh random bytes; blocks until they are there."""
        ...


class Modulator(Device, Protocol):
    """Turns symbols into light, slot by slot, at the configured rate.

    Every symbol leaves at most once. A device with a pattern memory may hold symbols back and let them leave as
    bursts, each played once: when nothing follows it goes dark, never into repetition. Between two bursts any time may
    pass, so a burst is whole epochs (Bob finds its slots from the preambles) and at least two of them. Light that
    repeats a pattern serves adjustment, never keys: such a device says ``simulated``.

    A driver that puts the phase word of every slot onto the light says ``applies_phase = True``; any other serves only
    a source whose pulses have a random phase of their own.
    """

    @property
    def unsent_from_slot(self) -> int:
        """First slot whose light has not begun to leave; Alice answers for none from here on.

        ``NONE_HELD`` where every slot leaves within :meth:`send`.
        """
        ...

    def send(self, symbols: Symbols) -> None:
        """Queue the next consecutive slots; blocks while the device's buffer is full (this is the back-pressure)."""
        ...


class TimeTagger(Device, Protocol):
    """Delivers the clicks of the four detectors; lost, damaged or reversed tags set ``overflow``, never vanish.

    A driver that knows about its reference clock also has ``reference_locked``: True, False (tags made so are void),
    or None where no reference is in use. One whose light stops while nobody reads says ``can_wait``; one that counts
    what went wrong has ``counters``, name -> number, shown in Bob's status.
    """

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        ...

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next batch, in order; an empty batch when nothing clicked for ``timeout_s``; None once it has ended."""
        ...


class Attenuator(Device, Protocol):
    """A variable optical attenuator; safe state: shutter closed (where there is one) and largest attenuation."""

    def set_attenuation_db(self, attenuation_db: float) -> None:
        """Set and wait until settled; out of range raises."""
        ...

    def attenuation_db(self) -> float:
        """The present setting in dB."""
        ...


class PolarisationController(Device, Protocol):
    """A controller of ``n_axes`` retarders; safe state: standing still, or 0 V."""

    @property
    def n_axes(self) -> int:
        """The number of its retarders."""
        ...

    def set_axes(self, positions: NDArray[np.float64]) -> None:
        """*(n_axes,) float64* in 0..1 of each axis's range; returns when settled."""
        ...


class DetectorBias(Device, Protocol):
    """Bias supply of the single-photon detectors, counted from 0; safe state: every bias off."""

    def set_bias(self, channel: int, on: bool) -> None:
        """Switch one detector's bias."""
        ...

    def count_rates_cps(self) -> NDArray[np.float64]:
        """*(n_channels,) float64* count rates in counts per second."""
        ...


class PowerMeter(Device, Protocol):
    """Optical power at Alice's exit or monitor port; it has no unsafe state."""

    def power_w(self) -> float:
        """Average power in W."""
        ...


class SlotOrder:
    """Refuses symbols that do not follow those before: none is sent twice, none is left out."""

    def __init__(self) -> None:
        self.next_slot: int | None = None

    def check(self, symbols: Symbols) -> None:
        """Take the next slots; the first may have any number."""
        if self.next_slot is not None and symbols.first_slot != self.next_slot:
            raise DeviceError(
                f"slot {symbols.first_slot} does not follow slot {self.next_slot - 1}: "
                "no symbol is sent twice or left out",
                remedy="Open the modulator again and begin anew.",
            )
        self.next_slot = symbols.first_slot + symbols.n_slots


def check_axes(positions: NDArray[np.float64], n_axes: int) -> list[float]:
    """The positions as a list, or a DeviceError that names what is wrong."""
    array = np.asarray(positions, np.float64)
    if array.shape != (n_axes,) or not bool(np.all((array >= 0.0) & (array <= 1.0))):
        raise DeviceError(f"axes {array.tolist()} are not {n_axes} numbers in 0..1", remedy="Give fractions of range.")
    return [float(value) for value in array]
