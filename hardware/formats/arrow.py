"""Arrow files: Feather (Arrow IPC, the live spool) and Parquet (the archive: times delta-packed, then zstd).

Columns `time_ps` (int64) and `channel` (uint8); other integer columns of these meanings are converted. Each batch keeps
its `until_ps` and whether tags were lost. A Feather file is read as the stream that it contains, so a spool that was
never closed (a crash, a run under way) reads up to its last whole batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats.format import Bytes8, Chunk, FileInfo, Format, Int64s

MAGIC = b"ARROW1\0\0"
PARQUET_MAGIC = b"PAR1"
PREFIX = "qkd_node."
TIME_COLUMNS = ("time_ps", "time_tag")
CHANNEL_COLUMNS = ("channel",)
LATEST_PS = 1 << 62
_CUT = "Record again; a spool can be read with faults='void' (`--void`) up to the fault."


def _pyarrow() -> Any:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    return pyarrow


def _schema(resolution_ps: float, metadata: Mapping[str, str]) -> Any:
    pa = _pyarrow()
    notes = {PREFIX + "resolution_ps": repr(float(resolution_ps))}
    notes |= {PREFIX + "meta." + name: value for name, value in metadata.items()}
    return pa.schema([pa.field("time_ps", pa.int64(), False), pa.field("channel", pa.uint8(), False)], notes)


def _info(name: str, schema: Any) -> FileInfo:
    """The header; refuses files whose columns are not time tags."""
    pa = _pyarrow()
    for wanted in (TIME_COLUMNS, CHANNEL_COLUMNS):
        column = next((one for one in wanted if one in schema.names), None)
        if column is None or schema.names.count(column) != 1:
            raise InputError(f"no column {wanted[0]!r} among {schema.names[:8]}", remedy="Is it a time-tag file?")
        if not pa.types.is_integer(schema.field(column).type):
            raise InputError(f"column {column!r} holds {schema.field(column).type}, not whole numbers")
    raw = schema.metadata or {}
    notes = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in raw.items()}
    try:
        resolution_ps = float(notes.get(PREFIX + "resolution_ps", "1.0"))
    except ValueError:
        raise InputError("the header's resolution is no number", remedy="The file is damaged.") from None
    prefix = PREFIX + "meta."
    metadata = {key[len(prefix) :]: value for key, value in notes.items() if key.startswith(prefix)}
    return FileInfo(name, resolution_ps, metadata)


def _columns(batch: Any, place: str) -> tuple[Int64s, Bytes8]:
    """Both columns as arrays, without a copy where the types fit."""
    pa = _pyarrow()
    batch.validate()
    arrays = []
    for wanted, kind in ((TIME_COLUMNS, pa.int64()), (CHANNEL_COLUMNS, pa.uint8())):
        column = batch.column(next(name for name in wanted if name in batch.schema.names))
        if column.null_count:
            raise InputError(f"{place}: {column.null_count} values are missing", remedy="The file is damaged.")
        if column.type != kind:
            column = column.cast(kind)
        arrays.append(column.to_numpy(zero_copy_only=True))
    times, channels = arrays
    if times.size and (int(times[0]) < -LATEST_PS or int(times.max()) > LATEST_PS):
        raise InputError(f"{place}: a time is beyond all measure", remedy="The file is damaged, or not in ps.")
    return times, channels


def _row(first: int, tag: int) -> str:
    return f"row {first + tag}"


def _flags(notes: Any, place: str) -> tuple[int | None, bool]:
    if not notes:
        return None, False
    try:
        until = notes.get(b"until_ps")
        if until is not None and abs(int(until)) >= LATEST_PS:
            raise ValueError
        return (None if until is None else int(until)), notes.get(b"lost") == b"1"
    except ValueError:
        raise InputError(f"{place}: its until_ps is no time", remedy="The file is damaged.") from None


def read_feather(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """See :data:`hardware.formats.format.Reader`; a batch of the file is a chunk."""
    pa = _pyarrow()
    try:
        source = pa.memory_map(str(path))
        source.seek(len(MAGIC))
        stream = pa.ipc.open_stream(source)
        info = _info("feather", stream.schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"not an Arrow file: {_first_line(error)}", remedy="Give a Feather file.") from None
    return info, _feather_chunks(source, stream)


def _feather_chunks(source: Any, stream: Any) -> Iterator[Chunk]:
    pa = _pyarrow()
    row = batch_number = 0
    while True:
        place = f"batch {batch_number} (row {row}, byte {source.tell()})"
        try:
            batch, notes = stream.read_next_batch_with_custom_metadata()
            times, channels = _columns(batch, place)
        except StopIteration:
            return
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise InputError(f"{place} is damaged or cut: {_first_line(error)}", remedy=_CUT) from None
        until_ps, lost = _flags(notes, place)
        yield Chunk(times, channels, partial(_row, row), until_ps, lost)
        row += times.size
        batch_number += 1


class FeatherWriter:
    """The live spool: every batch is on its way to the disk when :meth:`append` returns."""

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str]) -> None:
        pa = _pyarrow()
        self._schema = _schema(resolution_ps, metadata)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)

    def append(self, tags: TimeTags) -> None:
        """Write the next batch."""
        pa = _pyarrow()
        notes = {"until_ps": str(tags.until_ps), "lost": "1" if tags.overflow else "0"}
        columns = [pa.array(np.ascontiguousarray(values)) for values in (tags.times_ps, tags.channels)]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema), custom_metadata=notes)
        self._sink.flush()

    def close(self) -> None:
        """Write the footer; may be called twice."""
        if not self._sink.closed:
            self._writer.close()
            self._sink.close()


def read_parquet(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """See :data:`hardware.formats.format.Reader`; a row group of the file is a batch, cut where it is large."""
    pa = _pyarrow()
    try:
        source = pa.parquet.ParquetFile(str(path), pre_buffer=False)
        info = _info("parquet", source.schema_arrow)
        notes = json.loads((source.metadata.metadata or {}).get((PREFIX + "batches").encode(), b"null"))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise InputError(f"not a Parquet file, or cut: {_first_line(error)}", remedy=_CUT) from None
    sizes = [source.metadata.row_group(group).num_rows for group in range(source.num_row_groups)]
    if notes is None:
        notes = [[size, None, 0] for size in sizes]
    if not _fit(notes, sizes):
        raise InputError("its notes on the batches do not fit them", remedy="The file is damaged.")
    return info, _parquet_chunks(source, notes, chunk_tags)


def _fit(notes: Any, sizes: list[int]) -> bool:
    """Whether the notes are (rows, until_ps or None, lost) of every batch; a batch without rows has no row group."""
    if not isinstance(notes, list) or not all(isinstance(note, list) and len(note) == 3 for note in notes):
        return False
    if not all(isinstance(value, int | None) for note in notes for value in note):
        return False
    return [rows for rows, _, _ in notes if rows] == [size for size in sizes if size]


def _parquet_chunks(source: Any, notes: list[list[int | None]], chunk_tags: int) -> Iterator[Chunk]:
    pa = _pyarrow()
    row = 0
    groups = (group for group in range(source.num_row_groups) if source.metadata.row_group(group).num_rows)
    names = [name for name in source.schema_arrow.names if name in TIME_COLUMNS + CHANNEL_COLUMNS]
    for rows, until, lost in notes:
        place = f"the batch at row {row}"
        until_ps, _ = _flags({b"until_ps": str(until).encode()} if until is not None else None, place)
        batches = source.iter_batches(chunk_tags, [next(groups)], names, use_threads=False) if rows else iter(())
        while True:
            try:
                times, channels = _columns(next(batches), place)
            except StopIteration:
                break
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                raise InputError(f"{place} is damaged: {_first_line(error)}", remedy=_CUT) from None
            yield Chunk(times, channels, partial(_row, row), lost=bool(lost))
            row += times.size
        if until_ps is not None or not rows:
            yield Chunk(np.zeros(0, np.int64), np.zeros(0, np.uint8), str, until_ps, bool(lost) and not rows)


class ParquetWriter:
    """The archive: about 3.3 bytes a tag."""

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str]) -> None:
        pa = _pyarrow()
        self._schema = _schema(resolution_ps, metadata)
        self._notes: list[list[int]] = []
        self._writer = pa.parquet.ParquetWriter(
            str(path),
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["channel"],
            column_encoding={"time_ps": "DELTA_BINARY_PACKED"},
        )

    def append(self, tags: TimeTags) -> None:
        """Write the next batch as a row group."""
        pa = _pyarrow()
        columns = [pa.array(np.ascontiguousarray(values)) for values in (tags.times_ps, tags.channels)]
        if len(tags):
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema), row_group_size=len(tags))
        self._notes.append([len(tags), tags.until_ps, int(tags.overflow)])

    def close(self) -> None:
        """Write the footer with the flags; may be called twice."""
        if self._writer.is_open:
            self._writer.add_key_value_metadata({PREFIX + "batches": json.dumps(self._notes)})
        self._writer.close()


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:200] or type(error).__name__


FEATHER = Format("feather", (".feather", ".arrow"), MAGIC, read_feather, FeatherWriter)
PARQUET = Format("parquet", (".parquet",), PARQUET_MAGIC, read_parquet, ParquetWriter)
