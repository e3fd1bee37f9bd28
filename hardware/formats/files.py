"""Read and write time-tag files of every format through one pair of functions.

Every reader streams; time is checked to ascend; what is wrong with a file is named with its place. By default a fault
is an error. With ``faults="void"`` whole tags go on, and the batch with the fault says ``overflow``, which voids the
block that it falls into: a recording with a gap never becomes a key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from common.files import open_file, replacing
from hardware.formats import arrow, ptu, qutag, sfifteen, text
from hardware.formats.decoders import first_descent, keep_ascending
from hardware.formats.format import Bytes8, Chunk, Format, Int64s, TagWriter

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (arrow.FEATHER, arrow.PARQUET, ptu.PTU, sfifteen.A1, sfifteen.A1_LEGACY, qutag.QUTAG, text.TEXT)
}
CHUNK_TAGS = 1 << 17
HEAD_BYTES = 16
EARLIEST_PS = -(1 << 62)
NO_TAGS = np.zeros(0, np.int64), np.zeros(0, np.uint8)
VOID_REMEDY = "Record again, or read with faults='void' (`--void`), which marks what the fault touches as void."
Faults = Literal["raise", "void"]


class TagFile:
    """An open time-tag file: its header, and its tags batch by batch (once). Made by :func:`read_tags`."""

    def __init__(self, path: Path, kind: Format, faults: Faults, chunk_tags: int) -> None:
        self._path, self._faults = path, faults
        self._file = open_tags(path)
        try:
            self.info, self._chunks = kind.read(path, self._file, chunk_tags)
        except InputError as error:
            self.close()
            raise InputError(f"{path.name}: {error}", remedy=error.remedy) from None
        self._batches = self._in_order()

    def __iter__(self) -> Iterator[TimeTags]:
        return self._batches

    def __next__(self) -> TimeTags:
        return next(self._batches)

    def __enter__(self) -> TagFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def _in_order(self) -> Iterator[TimeTags]:
        until_ps: int | None = None
        last_ps: int | None = None
        try:
            for chunk in self._to_the_fault():
                batch = self._ordered(chunk, until_ps)
                until_ps = batch.until_ps
                last_ps = int(batch.times_ps[-1]) if len(batch) else last_ps
                yield batch
            if last_ps is not None and until_ps == last_ps:
                yield TimeTags(*NO_TAGS, last_ps + 1)
        finally:
            self.close()

    def _to_the_fault(self) -> Iterator[Chunk]:
        """The chunks; an error of the reader ends them as a chunk without tags."""
        try:
            yield from self._chunks
        except InputError as error:
            self._judge(str(error), error.remedy)
            yield Chunk(*NO_TAGS, str, fault=str(error))

    def _judge(self, fault: str, remedy: str = VOID_REMEDY) -> None:
        if self._faults == "raise":
            raise InputError(f"{self._path.name}: {fault}", remedy=remedy)

    def _ordered(self, chunk: Chunk, until_ps: int | None) -> TimeTags:
        """The chunk as a batch: nothing in it lies before what was said to be complete."""
        if chunk.fault:
            self._judge(chunk.fault)
        times, channels, lost = chunk.times_ps, chunk.channels, chunk.lost or bool(chunk.fault)
        floor_ps = EARLIEST_PS if until_ps is None else until_ps
        at = first_descent(times, floor_ps)
        if at >= 0:
            before = int(times[at - 1]) if at else floor_ps
            self._judge(f"time goes back from {before} ps to {int(times[at])} ps at {chunk.locate(at)}")
            kept = np.empty_like(times), np.empty_like(channels)
            n = keep_ascending(times, channels, floor_ps, *kept)
            times, channels, lost = kept[0][:n], kept[1][:n], True
        marks = [until_ps, chunk.until_ps, int(times[-1]) if times.size else None]
        return TimeTags(times, channels, max((mark for mark in marks if mark is not None), default=0), lost)


def read_tags(
    path: Path | str, format: str | Format | None = None, *, faults: Faults = "raise", chunk_tags: int = CHUNK_TAGS
) -> TagFile:
    """Open a time-tag file and stream its tags.

    Parameters
    ----------
    path : the file.
    format : one of :data:`FORMATS`, or a description of its own (:class:`hardware.formats.text.Layout`); None finds it
        out from the first bytes, then from the name.
    faults : "raise", or "void": go on and mark the batch ``overflow``.
    chunk_tags : about how many tags a batch holds.

    Returns
    -------
    TagFile : iterate over it for :class:`common.datatypes.TimeTags` (ps, ascending, channels as the file numbers them);
        its ``info`` is the header.

    Raises
    ------
    InputError
        Names the fault and the record, row or byte where it stands.
    """
    path = Path(path)
    kind = format if isinstance(format, Format) else FORMATS[known(format)] if format is not None else detect(path)
    return TagFile(path, kind, faults, chunk_tags)


def open_writer(
    path: Path | str,
    format: str | None = None,
    *,
    resolution_ps: float = 1.0,
    metadata: Mapping[str, str] | None = None,
) -> TagWriter:
    """A file to append batches to (the live spool is Feather); the format follows from the name unless given."""
    path = Path(path)
    kind = FORMATS[known(format)] if format is not None else by_name(path)
    try:
        return kind.write(path, resolution_ps, metadata or {})
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}", remedy="Give a path that can.") from None


def write_tags(
    path: Path | str,
    batches: Iterable[TimeTags],
    format: str | None = None,
    *,
    resolution_ps: float = 1.0,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write batches to a file, whole or not at all; returns the number of tags."""
    path = Path(path)
    kind = FORMATS[known(format)] if format is not None else by_name(path)
    written = 0
    with replacing(path) as new, closing(kind.write(new, resolution_ps, metadata or {})) as writer:
        for batch in batches:
            try:
                writer.append(batch)
            except InputError as error:
                raise InputError(f"{path.name}: {error}", remedy=error.remedy) from None
            written += len(batch)
    return written


def load(path: Path | str, format: str | None = None) -> tuple[Int64s, Bytes8]:
    """The whole file at once: *(n,) int64* ps, *(n,) uint8* channels. Entry points of `qkd_node.tag_readers`."""
    batches = [(batch.times_ps, batch.channels) for batch in read_tags(path, format)]
    if not batches:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    times, channels = zip(*batches, strict=True)
    return np.concatenate(times), np.concatenate(channels)


def detect(path: Path) -> Format:
    """The format by its first bytes, else by the name; a1 files are read for the order of their words."""
    with open_tags(path) as file:
        head = file.read(HEAD_BYTES)
    for kind in FORMATS.values():
        if kind.magic and head.startswith(kind.magic):
            return kind
    return by_name(path)


def by_name(path: Path) -> Format:
    """The format by the end of the file's name."""
    name = path.name.lower()
    for kind in FORMATS.values():
        if name.endswith(kind.suffixes):
            return kind
    raise InputError(
        f"{path.name}: neither its first bytes nor its name tell the format",
        remedy="Give the format: " + ", ".join(FORMATS),
    )


def known(name: str) -> str:
    """The name of a format, or an error with the nearest."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.3)
        raise InputError(
            f"unknown time-tag format {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
            remedy="Formats: " + ", ".join(FORMATS),
        )
    return name


def open_tags(path: Path) -> BinaryIO:
    """Open for reading, or say why not."""
    try:
        return open_file(path, buffered=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", remedy="Give an existing file.") from None
