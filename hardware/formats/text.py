"""Text files: one tag a line, `time_ps channel`, separated by blanks, comma or semicolon; `#` begins a comment.

For eyes and small files. Lines `#! until_ps=N` and `#! lost until_ps=N` end a batch, so flags survive.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats.format import Chunk, FileInfo, Format

TITLE = "time_ps channel"
_MARK = re.compile(r"#!(?P<lost> lost)? until_ps=(?P<until>-?\d{1,19})\s*$")
_LINE = re.compile(r"\s*([+-]?\d{1,19})(?:\s*[,;]\s*|\s+)(\d{1,3})\s*$")
_TITLE = re.compile(r"\s*[\"']?[A-Za-z]")
LONGEST_LINE = 1 << 12


def read(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """See :data:`hardware.formats.format.Reader`."""
    return FileInfo("text", 1.0), _chunks(file, chunk_tags)


def _chunks(file: BinaryIO, chunk_tags: int) -> Iterator[Chunk]:
    tags: list[tuple[int, int]] = []
    lines: list[int] = []
    with io.BufferedReader(file) as lines_of_file:  # type: ignore[type-var]
        number = 0
        while raw := lines_of_file.readline(LONGEST_LINE):
            number += 1
            line = raw.decode("latin-1")
            if found := _LINE.match(line):
                tags.append(_tag(found, number))
                lines.append(number)
                if len(tags) >= chunk_tags:
                    yield _chunk(tags, lines)
                    tags, lines = [], []
            elif found := _MARK.match(line):
                yield _chunk(tags, lines, _whole(found["until"], number), found["lost"] is not None)
                tags, lines = [], []
            elif line.strip() and not line.startswith("#") and not (number == 1 and _TITLE.match(line)):
                raise InputError(
                    f"line {number} is not a time in ps and a channel: {line.strip()[:40]!r}",
                    remedy=f"Give lines of the form {TITLE!r}.",
                )
    if tags:
        yield _chunk(tags, lines)


def _whole(digits: str, number: int) -> int:
    value = int(digits)
    if abs(value) >= 1 << 62:
        raise InputError(f"line {number}: the time {value} ps is beyond all measure", remedy="Give times in ps.")
    return value


def _tag(found: re.Match[str], number: int) -> tuple[int, int]:
    channel = int(found[2])
    if channel > 255:
        raise InputError(f"line {number}: channel {channel} is not in 0..255", remedy="Give the channel second.")
    return _whole(found[1], number), channel


def _chunk(tags: list[tuple[int, int]], lines: list[int], until_ps: int | None = None, lost: bool = False) -> Chunk:
    times = np.array([time for time, _ in tags], np.int64)
    channels = np.array([channel for _, channel in tags], np.uint8)
    return Chunk(times, channels, partial(_place, lines), until_ps, lost)


def _place(lines: list[int], tag: int) -> str:
    return f"line {lines[tag]}"


class Writer:
    """Lines."""

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str]) -> None:
        self._file = path.open("w", encoding="ascii", errors="backslashreplace", newline="\n")
        self._file.write(f"# {TITLE}\n")
        for name, value in metadata.items():
            self._file.write("# " + f"{name}: {value}".replace("\n", " ") + "\n")

    def append(self, tags: TimeTags) -> None:
        """Write the next batch and its mark."""
        for time, channel in zip(tags.times_ps.tolist(), tags.channels.tolist(), strict=True):
            self._file.write(f"{time} {channel}\n")
        self._file.write(f"#!{' lost' if tags.overflow else ''} until_ps={tags.until_ps}\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


TEXT = Format("text", (".txt", ".csv", ".tsv"), b"", read, Writer)
