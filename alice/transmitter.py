"""Symbols from random bits, with the public preamble at every epoch; kept in a bounded ring until their block ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.config import PZ_DENOMINATOR, ProtocolName
from common.datatypes import Symbols
from common.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError
from common.kernels import symbols as kernels
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS, preamble

RandomReader = Callable[[int], NDArray[np.uint8]]
"""``n_bytes -> (n_bytes,) uint8``: fresh random bytes, each handed out once."""

LANES = 64
_WORDS_AT_ONCE = 1 << 15
_PIECE_WORDS = 1 << 13
"""Symbol words drawn at once by the plentiful sampler: with their random words they stay in the processor's cache."""
_SMALLEST_RING_WORDS = 1 << 17


class Transmitter:
    """Draws what Alice prepares.

    Parameters
    ----------
    p_z_numerator : P(Z) = numerator / 2^16.
    protocol : "three-state" sends only R in X; the others R and L with probability 1/2.
    phase_bits : bits of the random phase word of each slot.
    p_intensities : probabilities of signal, decoy and vacuum (multiples of 2^-16); empty for single photons.
    scarce : use the sampler that spends about 1.4 random bits a slot instead of 6.

    Security
    --------
    Random words that were read but not yet used are kept for the next call, so each is used once; :meth:`wipe`
    overwrites them.
    """

    def __init__(
        self,
        p_z_numerator: int,
        protocol: ProtocolName,
        phase_bits: int = 4,
        p_intensities: Sequence[float] = (),
        *,
        scarce: bool = False,
    ) -> None:
        if not 0 < p_z_numerator < PZ_DENOMINATOR:
            raise ConfigurationError(f"p_z numerator {p_z_numerator} is not in 1..{PZ_DENOMINATOR - 1}")
        self._p_z = p_z_numerator
        self._x_random = protocol != "three-state"
        self._phase_bits = phase_bits
        self._thresholds = _thresholds(p_intensities)
        self._scarce = scarce
        self._words = np.zeros(0, np.uint64)
        self._chunks = np.zeros(0, np.uint16)
        self._chunk_at = 0
        self._pool = np.array([0, 1], np.uint64)
        self.random_bits_used = 0
        """Random bits consumed so far (symbols, intensities and phases)."""

    def prepare(self, first_slot: int, n_slots: int, read: RandomReader) -> Symbols:
        """Draw the next ``n_slots`` slots (both multiples of 64) from fresh random bytes.

        Security
        --------
        The result is Alice's raw key. Preamble slots are drawn and then overwritten with the public word.
        """
        if first_slot % 64 or n_slots % 64 or n_slots <= 0 or first_slot < 0:
            raise LocalProtocolError(f"slots {first_slot}+{n_slots} are not whole words of 64")
        n_words = n_slots // 64
        basis, bit = np.empty(n_words, np.uint64), np.empty(n_words, np.uint64)
        if self._scarce:
            self._draw_scarce(basis, bit, read)
        else:
            for at in range(0, n_words, _PIECE_WORDS):
                piece = slice(at, at + _PIECE_WORDS)
                self._draw_plentiful(basis[piece], bit[piece], read)
        intensity = np.zeros((2 if self._thresholds else 0, n_words), np.uint64)
        if self._thresholds:
            signal, not_vacuum = self._thresholds
            self._draw(
                n_words,
                read,
                lambda at, start: kernels.fill_intensities(self._words, start, signal, not_vacuum, intensity, at),
                mean_words_each=8.5,
            )
        phase = _read_words(read, self._phase_bits * n_words).reshape(self._phase_bits, n_words)
        self.random_bits_used += 64 * phase.size
        _overwrite_preamble(first_slot, basis, bit, intensity)
        return Symbols(first_slot, basis, bit, intensity, phase)

    def wipe(self) -> None:
        """Overwrite the random words that were read and not used."""
        for words in (self._words, self._chunks):
            if words.flags.writeable:
                words.fill(0)
        self._words = np.zeros(0, np.uint64)
        self._chunks = np.zeros(0, np.uint16)
        self._chunk_at = 0
        self._pool[:] = (0, 1)

    def _draw_plentiful(self, basis: NDArray[np.uint64], bit: NDArray[np.uint64], read: RandomReader) -> None:
        rows = kernels.LEADING + 1
        words = _read_words(read, rows * basis.size).reshape(rows, basis.size)
        kernels.compare_leading(words, self._p_z, basis, bit)
        self.random_bits_used += 64 * words.size
        done = 0
        while done < basis.size:
            if self._chunks.size - self._chunk_at < LANES:
                self._refill(basis.size - done + LANES, read)
            written, used = kernels.fill_symbols(
                words[-1, done:], self._chunks, self._chunk_at, self._p_z, self._x_random, basis[done:], bit[done:]
            )
            done += written
            self._chunk_at += used
            self.random_bits_used += 16 * used

    def _refill(self, n_words: int, read: RandomReader) -> None:
        """This many fresh random words behind the numbers of 16 bits that are left."""
        fresh = _read_words(read, min(n_words, _WORDS_AT_ONCE)).view(np.uint16)
        self._chunks, self._chunk_at = np.concatenate([self._chunks[self._chunk_at :], fresh]), 0

    def _draw(
        self, n_words: int, read: RandomReader, fill: Callable[[int, int], int], *, mean_words_each: float
    ) -> None:
        done = 0
        while done < n_words:
            missing = int((n_words - done) * mean_words_each) + 2 * kernels.WORST_WORDS
            want = min(missing, _WORDS_AT_ONCE)
            if self._words.size < want:
                self._words = np.concatenate([self._words, _read_words(read, want - self._words.size)])
            written, used = divmod(fill(done, 0), 1 << 32)
            done += written
            self._words = self._words[used:]
            self.random_bits_used += 64 * used

    def _draw_scarce(self, basis: NDArray[np.uint64], bit: NDArray[np.uint64], read: RandomReader) -> None:
        done = 0
        while done < basis.size:
            if self._chunks.size - self._chunk_at < 4 * LANES:
                self._refill(LANES + 2 * (basis.size - done), read)
            written, used = divmod(
                kernels.fill_symbols_scarce(
                    self._chunks, self._chunk_at, self._pool, self._p_z, self._x_random, basis, bit, done
                ),
                1 << 32,
            )
            done += written
            self._chunk_at += used
            self.random_bits_used += 16 * used


class SymbolRing:
    """Alice's sent symbols until their block ends: bounded, wiped on release, safe for use from several threads.

    Parameters
    ----------
    capacity_slots : at most this many slots are kept; memory grows to it only when needed (2 bits a slot, 4 with
        intensities), in powers of two.
    unsent_from : first slot whose light has not begun to leave; None where no symbol waits in the modulator.

    Security
    --------
    Holds Alice's raw key; released words are overwritten with zeros. Symbols whose light has not left are not looked
    up: what the channel tells of them would be known before their light passes by.
    """

    def __init__(
        self, capacity_slots: int, *, intensity_planes: int = 0, unsent_from: Callable[[], int] | None = None
    ) -> None:
        if capacity_slots < 64:
            raise ConfigurationError(f"a symbol buffer of {capacity_slots} slots is too small")
        self._max_words = 1 << ((capacity_slots // 64).bit_length() - 1)
        self._lock, self._unsent_from = threading.Lock(), unsent_from
        self._first_slot = 0
        self._origin = 0
        self._count = 0
        self._planes = np.zeros((2 + intensity_planes, min(self._max_words, _SMALLEST_RING_WORDS)), np.uint64)

    @property
    def capacity_slots(self) -> int:
        """Slots that fit in all."""
        return 64 * self._max_words

    @property
    def from_slot(self) -> int:
        """First slot still kept."""
        return self._first_slot

    @property
    def to_slot(self) -> int:
        """One past the last slot kept."""
        return self._first_slot + 64 * self._count

    def full(self, n_slots: int) -> bool:
        """True if ``n_slots`` more do not fit: the caller waits for a release."""
        return self._count + n_slots // 64 > self._max_words

    def append(self, symbols: Symbols) -> None:
        """Copy the next consecutive slots in."""
        n_words = int(symbols.basis.size)
        with self._lock:
            if self._count == 0:
                self._first_slot, self._origin = symbols.first_slot, 0
            if symbols.first_slot != self.to_slot:
                raise LocalProtocolError(f"slot {symbols.first_slot} does not follow slot {self.to_slot}")
            if self.full(64 * n_words):
                raise LocalProtocolError("the symbol ring is full: release first")
            self._grow(self._count + n_words)
            self._write(self._origin + self._count, symbols)
            self._count += n_words

    def lookup(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Bases, bits and intensity indices, each *(n,) uint8*, of slots that the peer named.

        Raises
        ------
        RemoteProtocolError
            A slot was never sent, its light has not left yet, or it is released already.
        """
        slots = np.ascontiguousarray(slots, np.int64)
        out = np.empty((3, slots.size), np.uint8)
        with self._lock:
            end = self.to_slot if self._unsent_from is None else min(self.to_slot, self._unsent_from())
            if slots.size and (int(slots.min()) < self.from_slot or int(slots.max()) >= end):
                raise RemoteProtocolError(
                    f"slots {int(slots.min())}..{int(slots.max())} are not in {self.from_slot}..{end}"
                )
            planes = self._planes
            mask = planes.shape[1] - 1
            kernels.lookup_symbols(
                slots, self._first_slot, self._origin, mask, planes[0], planes[1], planes[2:], out[0], out[1], out[2]
            )
        return out[0], out[1], out[2]

    def release_before(self, slot: int) -> None:
        """Overwrite and forget all whole words before ``slot``."""
        with self._lock:
            n_words = min(max(slot - self._first_slot, 0) // 64, self._count)
            self._fill_zero(n_words)
            self._origin = (self._origin + n_words) & (self._planes.shape[1] - 1)
            self._first_slot += 64 * n_words
            self._count -= n_words

    def wipe(self) -> None:
        """Overwrite and forget everything."""
        with self._lock:
            self._planes.fill(0)
            self._first_slot, self._origin, self._count = self.to_slot, 0, 0

    def __repr__(self) -> str:
        return f"SymbolRing(slots {self.from_slot}..{self.to_slot} of {self.capacity_slots})"

    def _pieces(self, at: int, n_words: int) -> list[slice]:
        size = self._planes.shape[1]
        start = at % size
        first = min(n_words, size - start)
        return [slice(start, start + first), slice(0, n_words - first)]

    def _write(self, at: int, symbols: Symbols) -> None:
        done = 0
        for piece in self._pieces(at, int(symbols.basis.size)):
            part = slice(done, done + piece.stop - piece.start)
            self._planes[0, piece] = symbols.basis[part]
            self._planes[1, piece] = symbols.bit[part]
            self._planes[2:, piece] = symbols.intensity[:, part]
            done = part.stop

    def _fill_zero(self, n_words: int) -> None:
        for piece in self._pieces(self._origin, n_words):
            self._planes[:, piece] = 0

    def _grow(self, n_words: int) -> None:
        size = self._planes.shape[1]
        if n_words <= size:
            return
        while size < n_words:
            size *= 2
        grown = np.zeros((self._planes.shape[0], size), np.uint64)
        done = 0
        for piece in self._pieces(self._origin, self._count):
            part = slice(done, done + piece.stop - piece.start)
            grown[:, part] = self._planes[:, piece]
            done = part.stop
        self._planes.fill(0)
        self._planes, self._origin = grown, 0


def _thresholds(p_intensities: Sequence[float]) -> tuple[int, int] | None:
    if not p_intensities:
        return None
    counts = [p * PZ_DENOMINATOR for p in p_intensities]
    if len(counts) != 3 or any(abs(c - round(c)) > 1e-6 for c in counts) or round(sum(counts)) != PZ_DENOMINATOR:
        raise ConfigurationError("link.p_intensities must be three multiples of 2^-16 that sum to 1")
    return round(counts[0]), round(counts[0]) + round(counts[1])


def _read_words(read: RandomReader, n_words: int) -> NDArray[np.uint64]:
    raw = read(8 * n_words)
    if raw.dtype != np.uint8 or raw.size != 8 * n_words:
        raise LocalProtocolError(f"the random source gave {raw.size} bytes of {raw.dtype}, not {8 * n_words} of uint8")
    return raw.view("<u8").astype(np.uint64, copy=False)


def _overwrite_preamble(
    first_slot: int, basis: NDArray[np.uint64], bit: NDArray[np.uint64], intensity: NDArray[np.uint64]
) -> None:
    end = first_slot + 64 * basis.size
    for epoch in range(first_slot // EPOCH_SLOTS, (end - 1) // EPOCH_SLOTS + 1):
        start = epoch * EPOCH_SLOTS
        from_slot, to_slot = max(first_slot, start), min(end, start + PREAMBLE_SLOTS)
        if from_slot >= to_slot:
            continue
        at, count = (from_slot - first_slot) // 64, (to_slot - from_slot) // 64
        kernels.overwrite_words(bit, at, preamble(epoch), (from_slot - start) // 64, count)
        basis[at : at + count] = 0
        intensity[:, at : at + count] = 0
