"""Text files: one tag a line, `time_ps channel`, separated by blanks, comma or semicolon; `#` begins a comment.

For eyes and small files; those of other programs are read by a :class:`Layout`. Lines `#! until_ps=N` and
`#! lost until_ps=N` end a batch, so flags survive.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
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
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
_NUMBER = re.compile(r"[+-]?\d{1,19}(?:\.\d{1,19})?")
_TICK = re.compile(r"[0-9./]{1,40}(?:e[+-]?[0-9]{1,2})?")
LONGEST_LINE = 1 << 12
LONGEST_TICK_PS = 10**12


def read(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """Read a file as :data:`hardware.formats.format.Reader` says."""
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
    return _whole(found[1], number), _channel(int(found[2]), number)


def _channel(channel: int, number: int) -> int:
    if not 0 <= channel <= 255:
        raise InputError(f"line {number}: channel {channel} is not in 0..255", remedy="Give the channel second.")
    return channel


def _chunk(tags: list[tuple[int, int]], lines: list[int], until_ps: int | None = None, lost: bool = False) -> Chunk:
    times = np.array([time for time, _ in tags], np.int64)
    channels = np.array([channel for _, channel in tags], np.uint8)
    return Chunk(times, channels, partial(_place, lines), until_ps, lost)


def _place(lines: list[int], tag: int) -> str:
    return f"line {lines[tag]}"


@dataclass(frozen=True, slots=True)
class Layout:
    """How somebody else's text file is to be read.

    Parameters
    ----------
    time, channel : number of the column, from 0.
    tick_ps : what the times count, exactly. skip_lines : at the beginning.
    """

    time: int
    channel: int
    tick_ps: Fraction
    skip_lines: int

    @classmethod
    def described(cls, columns: str, tick_ps: str, skip_lines: int) -> Layout:
        """From words: ``columns`` names them in their order (`channel,time`; `-` for one that is of no interest)."""
        names = [name.strip() for name in columns.split(",")]
        if sorted(name for name in names if name != "-") != ["channel", "time"]:
            raise InputError(
                f"the columns {columns!r} do not name one time and one channel",
                remedy="Name the columns in their order, as `channel,time` or `-,time,channel`.",
            )
        try:
            tick = Fraction(tick_ps if _TICK.fullmatch(tick_ps) else 0)
        except (ValueError, ZeroDivisionError):
            tick = Fraction(0)
        if not 0 < tick < LONGEST_TICK_PS:
            raise InputError(f"a tick of {tick_ps!r} ps is none", remedy="Give ps, such as 81 or 0.5 or 1000000/81.")
        return cls(names.index("time"), names.index("channel"), tick, skip_lines)

    def format(self) -> Format:
        """The format that reads such files; nothing is written so."""

        def read(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
            return FileInfo("text", float(self.tick_ps)), self._chunks(file, chunk_tags)

        return Format("text", (), b"", read, Writer)

    def _chunks(self, file: BinaryIO, chunk_tags: int) -> Iterator[Chunk]:
        tags: list[tuple[int, int]] = []
        lines: list[int] = []
        with io.BufferedReader(file) as lines_of_file:  # type: ignore[type-var]
            number = 0
            while raw := lines_of_file.readline(LONGEST_LINE):
                number += 1
                line = raw.decode("latin-1").strip()
                if number <= self.skip_lines or not line or line.startswith("#"):
                    continue
                tags.append(self._tag(line, number))
                lines.append(number)
                if len(tags) >= chunk_tags:
                    yield _chunk(tags, lines)
                    tags, lines = [], []
        if tags:
            yield _chunk(tags, lines)

    def _tag(self, line: str, number: int) -> tuple[int, int]:
        cells = _SEPARATOR.split(line)
        try:
            time, channel = (_NUMBER.fullmatch(cells[at])[0] for at in (self.time, self.channel))  # type: ignore[index]
            return self._time(time, number), _channel(int(channel), number)
        except (IndexError, TypeError, ValueError):
            raise InputError(
                f"line {number} has no channel in column {self.channel + 1} or no time in column {self.time + 1}: "
                f"{line[:40]!r}",
                remedy="Correct --columns or --skip-lines.",
            ) from None

    def _time(self, text: str, number: int) -> int:
        value = round(Fraction(text) * self.tick_ps)
        if abs(value) >= 1 << 62:
            raise InputError(f"line {number}: the time {value} ps is beyond all measure", remedy="Correct --tick-ps.")
        return value


class Writer:
    """Write a line for each tag."""

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
