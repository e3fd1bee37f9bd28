"""quTAG binary files: records of 10 bytes, `<i8` time in ps and `<u2` channel, after 40 bytes of header or none.

The vendor's library reads both; the header's content is not published, so it is recognised by not being records, and
files are written without one. The vendor's "compressed" format drops the upper bits of time and is not read. Source:
the parser of the ETA project; qutools' tdcbase documentation of TDC_readTimestamps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats.format import Chunk, FileInfo, Format, PlainWriter

RECORD = np.dtype([("time", "<i8"), ("channel", "<u2")])
HEADER_BYTES = 40
LAST_CHANNEL = 255


def read(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """Read a file as :data:`hardware.formats.format.Reader` says."""
    head = file.read(HEADER_BYTES)
    start = HEADER_BYTES if has_header(head) else 0
    file.seek(start)
    return FileInfo("qutag", 1.0, {"header_bytes": str(start)}), _chunks(file, start, chunk_tags)


def has_header(head: bytes) -> bool:
    """True where the first 40 bytes cannot be four records (channels up to 255, times from 0 on, ascending)."""
    if len(head) < HEADER_BYTES:
        return False
    records = np.frombuffer(head, RECORD)
    times = records["time"]
    return bool((records["channel"] > LAST_CHANNEL).any() or times[0] < 0 or (times[1:] < times[:-1]).any())


def _chunks(file: BinaryIO, start: int, chunk_tags: int) -> Iterator[Chunk]:
    done = 0
    left = b""

    def place(first: int, tag: int) -> str:
        return f"record {first + tag} (byte {start + RECORD.itemsize * (first + tag)})"

    while raw := left + file.read(RECORD.itemsize * chunk_tags):
        n = len(raw) // RECORD.itemsize
        if n == 0:
            raise InputError(
                f"the file ends in the middle of {place(done, 0)}",
                remedy="It was cut: record again, or read with faults='void' (`--void`).",
            )
        records = np.frombuffer(raw, RECORD, n)
        times, channels = records["time"].astype(np.int64), records["channel"]
        fault, bad = "", np.flatnonzero(channels > LAST_CHANNEL)
        if bad.size:
            at = int(bad[0])
            fault = f"{place(done, at)} has channel {int(channels[at])}: damaged, or not a quTAG binary file"
            good = channels <= LAST_CHANNEL
            times, channels = times[good], channels[good]
        first = done
        yield Chunk(times, channels.astype(np.uint8), lambda tag, first=first: place(first, tag), fault=fault)  # type: ignore[misc]
        done += n
        left = raw[RECORD.itemsize * n :]


class Writer(PlainWriter):
    """Records without a header."""

    name = "quTAG"

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str]) -> None:
        super().__init__(path)

    def encode(self, tags: TimeTags) -> bytes:
        """The batch as records."""
        records = np.empty(len(tags), RECORD)
        records["time"], records["channel"] = tags.times_ps, tags.channels
        return records.tobytes()


QUTAG = Format("qutag", (".qutag", ".bin"), b"", read, Writer)
