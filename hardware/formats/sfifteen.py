"""S-Fifteen "a1" files: two little-endian words of 32 bits an event, 54 bits of time in 1/256 ns, four detectors.

One event may carry several detectors (a double click): it becomes one tag for each. Dummy events are not clicks. In
files named `a1` the lower word comes first, in "legacy" ones (`-X`, `a1X`) the upper. Source: fpfind's description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats import decoders
from hardware.formats.format import Chunk, FileInfo, Format, PlainWriter, Words

EVENT_BYTES = 8
RESOLUTION_PS = 1000 / 256
PROBE_EVENTS = 4096


def read(path: Path, file: BinaryIO, chunk_tags: int, *, high_first: bool | None) -> tuple[FileInfo, Iterator[Chunk]]:
    """See :data:`hardware.formats.format.Reader`; the order of the words is found from the data where it is None."""
    if high_first is None:
        high_first = upper_word_first(file.read(EVENT_BYTES * PROBE_EVENTS))
        file.seek(0)
    info = FileInfo("a1-legacy" if high_first else "a1", RESOLUTION_PS)
    return info, _chunks(file, high_first, max(chunk_tags // 2, 1))


def upper_word_first(head: bytes) -> bool:
    """Which of the two words hardly ever falls? That is the upper one. Few events: as newer files have it."""
    words = np.frombuffer(head[: len(head) // EVENT_BYTES * EVENT_BYTES], "<u4").reshape(-1, 2).astype(np.int64)
    falls = (np.diff(words, axis=0) < 0).sum(axis=0)
    return bool(falls[0] < falls[1])


def _chunks(file: BinaryIO, high_first: bool, events: int) -> Iterator[Chunk]:
    state = np.zeros(decoders.A1_STATE_SIZE, np.int64)
    times, channels = np.empty(4 * events + 4, np.int64), np.empty(4 * events + 4, np.uint8)
    done = 0
    left = b""
    while raw := left + file.read(EVENT_BYTES * events):
        n = len(raw) // EVENT_BYTES
        if n == 0:
            raise InputError(
                f"the file ends in the middle of event {done} (byte {EVENT_BYTES * done + len(raw)})",
                remedy="It was cut: record again, or read with faults='void' (`--void`).",
            )
        words = np.frombuffer(raw, "<u4", 2 * n)
        written = decoders.decode_a1(words, high_first, state, times, channels)
        yield Chunk(times[:written].copy(), channels[:written].copy(), partial(_place, words, high_first, done))
        done += n
        left = raw[EVENT_BYTES * n :]


def _place(words: Words, high_first: bool, first: int, tag: int) -> str:
    low = words.reshape(-1, 2)[:, 1 if high_first else 0]
    clicks = np.where(low & decoders.A1_DUMMY_BIT, 0, np.bitwise_count(low & 15)).astype(np.int64)
    number = first + int(np.searchsorted(np.cumsum(clicks), tag, side="right"))
    return f"event {number} (byte {EVENT_BYTES * number})"


class Writer(PlainWriter):
    """Simultaneous clicks of several detectors become one event; times are rounded to 1/256 ns."""

    name = "a1"
    last_channel = 3
    last_ps = (1 << 54) * 125 // 32 - 4

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str], *, high_first: bool) -> None:
        super().__init__(path)
        self._high_first = high_first

    def encode(self, tags: TimeTags) -> bytes:
        """The batch as events."""
        units = (tags.times_ps * 32 + 62) // 125
        pattern = np.left_shift(np.uint8(1), tags.channels)
        unique, start = np.unique(units, return_index=True)
        if units.size and np.any(np.diff(units) < 0):
            raise InputError("a1 files hold ascending times")
        merged = np.bitwise_or.reduceat(pattern, start) if start.size else pattern
        word = unique.astype(np.uint64) << np.uint64(10) | merged.astype(np.uint64)
        pairs = word.astype("<u8").view("<u4").reshape(-1, 2)
        return (pairs[:, ::-1] if self._high_first else pairs).tobytes()


_SUFFIXES = (".a1", ".a1.dat", ".a1x", ".a1x.dat")
A1 = Format("a1", _SUFFIXES, b"", partial(read, high_first=None), partial(Writer, high_first=False))
A1_LEGACY = Format("a1-legacy", (), b"", partial(read, high_first=True), partial(Writer, high_first=True))
