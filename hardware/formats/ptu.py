"""PicoQuant PTU files in T2 mode: PicoHarp 300, HydraHarp V1 and V2, TimeHarp 260 N and P, MultiHarp and PicoHarp 330.

Channels: 0 is the sync input, 1.. the inputs (PicoHarp 300: as recorded). Markers are counted, not given as tags.
Writes the HydraHarp V2 variant with a unit of 1 ps. Source: PicoQuant, "Time-Tagged-File-Format-Demos" (unified TTTR).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.datatypes import TimeTags
from common.errors import InputError
from common.units import PS_PER_S
from hardware.formats import decoders
from hardware.formats.format import Chunk, FileInfo, Format, Int64s, PlainWriter

MAGIC = b"PQTTTR\0\0"
RECORD_BYTES = 4
HYDRAHARP_V2_T2 = 0x01010204
#: Record type -> (name, units of one overflow, whether an overflow record carries a count).
VARIANTS = {
    0x00010203: ("PicoHarp 300 T2", decoders.PICOHARP_WRAP, False),
    0x00010204: ("HydraHarp V1 T2", 33_552_000, False),
    HYDRAHARP_V2_T2: ("HydraHarp V2 T2", 1 << 25, True),
    0x00010205: ("TimeHarp 260 N T2", 1 << 25, True),
    0x00010206: ("TimeHarp 260 P T2", 1 << 25, True),
    0x00010207: ("MultiHarp/PicoHarp 330 T2", 1 << 25, True),
}
PICOHARP_T2 = 0x00010203
T3_BITS, T3_MARK = 0xFF00, 0x0300

HEADER_ENTRY = struct.Struct("<32siI8s")
EMPTY, BOOL, INTEGER, BITS, COLOUR, FLOAT, DATE = (
    0xFFFF0008,
    0x00000008,
    0x10000008,
    0x11000008,
    0x12000008,
    0x20000008,
    0x21000008,
)
FLOATS, TEXT, WIDE_TEXT, BLOB = 0x2001FFFF, 0x4001FFFF, 0x4002FFFF, 0xFFFFFFFF
MOST_ENTRIES = 4096
MOST_BYTES_OF_AN_ENTRY = 1 << 24


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Every entry of the header by its name; the file stands at the first record afterwards."""
    if file.read(len(MAGIC)) != MAGIC:
        raise InputError("not a PTU file: it does not begin with PQTTTR", remedy="Give a PicoQuant .ptu file.")
    header: dict[str, Any] = {"version": file.read(8).rstrip(b"\0").decode("latin-1")}
    for _ in range(MOST_ENTRIES):
        at = file.tell()
        raw = file.read(HEADER_ENTRY.size)
        if len(raw) < HEADER_ENTRY.size:
            raise InputError(f"the header ends in the middle of an entry at byte {at}", remedy="The file is truncated.")
        ident, index, kind, value = HEADER_ENTRY.unpack(raw)
        name = ident.split(b"\0")[0].decode("latin-1")
        if name == "Header_End":
            return header
        header[name if index < 0 else f"{name}[{index}]"] = _value(file, at, name, kind, value)
    raise InputError(f"more than {MOST_ENTRIES} header entries", remedy="The file is damaged.")


def _value(file: BinaryIO, at: int, name: str, kind: int, raw: bytes) -> Any:
    if kind in (TEXT, WIDE_TEXT, BLOB, FLOATS):
        n_bytes = int.from_bytes(raw, "little")
        body = file.read(n_bytes) if n_bytes <= MOST_BYTES_OF_AN_ENTRY else b""
        if len(body) < n_bytes:
            raise InputError(
                f"header entry {name!r} at byte {at} claims {n_bytes} bytes that are not there",
                remedy="The file is truncated or damaged.",
            )
        encoding = "utf-16-le" if kind == WIDE_TEXT else "latin-1"
        return body.decode(encoding, errors="replace").rstrip("\0") if kind in (TEXT, WIDE_TEXT) else f"{n_bytes} bytes"
    if kind in (FLOAT, DATE):
        return struct.unpack("<d", raw)[0]
    if kind in (EMPTY, BOOL, INTEGER, BITS, COLOUR):
        return None if kind == EMPTY else int.from_bytes(raw, "little", signed=True)
    raise InputError(f"header entry {name!r} at byte {at} has the unknown type 0x{kind:08x}", remedy="Is it damaged?")


def _need(header: Mapping[str, Any], name: str, kind: type) -> Any:
    value = header.get(name)
    if not isinstance(value, kind):
        raise InputError(f"the header has no usable {name}", remedy="The file is damaged, or not a TTTR recording.")
    return value


def read(path: Path, file: BinaryIO, chunk_tags: int) -> tuple[FileInfo, Iterator[Chunk]]:
    """Read a file as :data:`hardware.formats.format.Reader` says."""
    header = read_header(file)
    kind = _need(header, "TTResultFormat_TTTRRecType", int)
    if kind not in VARIANTS:
        t3 = kind & T3_BITS == T3_MARK
        raise InputError(
            f"record type 0x{kind:08x} is not read" + (" (T3 mode: times count from the last sync)" if t3 else ""),
            remedy="Record in T2 mode: " + ", ".join(name for name, _, _ in VARIANTS.values()),
        )
    resolution_ps = PS_PER_S * _need(header, "MeasDesc_GlobalResolution", float)
    scale_ps = round(resolution_ps) if 0.5 < resolution_ps < 1e9 else 0
    if scale_ps == 0 or abs(resolution_ps - scale_ps) > 1e-4 * scale_ps:
        raise InputError(f"a time unit of {resolution_ps} ps is no whole number of ps", remedy="Is the header damaged?")
    metadata = {name: str(value) for name, value in header.items()} | {"variant": VARIANTS[kind][0]}
    declared = _need(header, "TTResult_NumberOfRecords", int)
    info = FileInfo("ptu", float(scale_ps), metadata)
    return info, _chunks(file, kind, scale_ps, declared, chunk_tags)


def _chunks(file: BinaryIO, kind: int, scale_ps: int, declared: int, chunk_tags: int) -> Iterator[Chunk]:
    _, wrap, counted = VARIANTS[kind]
    limit = (1 << 62) // scale_ps
    state = np.zeros(decoders.T2_STATE_SIZE, np.int64)
    records = np.empty(chunk_tags, "<u4")
    start, done = file.tell(), 0
    left = 0
    while n_bytes := _fill(file, records.view(np.uint8)):
        n, left = divmod(n_bytes, RECORD_BYTES)
        part, times, channels = records[:n], np.empty(n, np.int64), np.empty(n, np.uint8)
        state[decoders.FIRST_ILLEGAL] = -1
        if kind == PICOHARP_T2:
            written = decoders.decode_picoharp_t2(part, scale_ps, limit, state, times, channels)
        else:
            written = decoders.decode_hydraharp_t2(part, wrap, counted, scale_ps, limit, state, times, channels)
        fault, bad = "", int(state[decoders.FIRST_ILLEGAL])
        if bad >= 0:
            what = f"record {done + bad} (byte {start + RECORD_BYTES * (done + bad)}) is 0x{int(part[bad]):08x}"
            fault = f"{what}: no event of this format, or time beyond all measure"
        until_ps = scale_ps * int(state[decoders.WRAPPED])
        yield Chunk(times[:written], channels[:written], _locator(part, kind, start, done), until_ps, fault=fault)
        done += n
    if left or (declared > 0 and done != declared):
        rest = f" and {left} bytes of another" if left else ""
        place = f"record {done}{rest} (byte {start + RECORD_BYTES * done + left})"
        raise InputError(
            f"the file ends after {place}, its header says {declared} records",
            remedy="The recording was cut or damaged: record again, or read with faults='void' (`--void`).",
        )


def _fill(file: BinaryIO, buffer: Any) -> int:
    """Read until the buffer is full or the file ends; returns the bytes read."""
    done = 0
    while done < buffer.size:
        n = file.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not n:
            break
        done += n
    return done


def _locator(records: Any, kind: int, start: int, first: int) -> Any:
    def locate(tag: int) -> str:
        if kind == PICOHARP_T2:
            is_tag = records >> 28 <= decoders.PICOHARP_LAST_CHANNEL
        else:
            is_tag = records >> decoders.TIME_BITS <= 64
        record = first + int(np.flatnonzero(is_tag)[tag])
        return f"record {record} (byte {start + RECORD_BYTES * record})"

    return locate


class Writer(PlainWriter):
    """HydraHarp V2 T2 records; the number of records is entered on closing (0 before: "read to the end")."""

    name = "PTU"
    last_channel = 64

    def __init__(self, path: Path, resolution_ps: float, metadata: Mapping[str, str]) -> None:
        super().__init__(path)
        self._wrapped = self._records = 0
        comment = metadata.get("comment", "").encode("latin-1", errors="replace")
        entries = [
            ("CreatorSW_Name", TEXT, b"qkd-node"),
            ("File_Comment", TEXT, comment),
            ("Measurement_Mode", INTEGER, 2),
            ("TTResultFormat_TTTRRecType", INTEGER, HYDRAHARP_V2_T2),
            ("TTResultFormat_BitsPerRecord", INTEGER, 8 * RECORD_BYTES),
            ("MeasDesc_BinningFactor", INTEGER, 1),
            ("MeasDesc_GlobalResolution", FLOAT, 1.0 / PS_PER_S),
            ("MeasDesc_Resolution", FLOAT, resolution_ps / PS_PER_S),
            ("TTResult_SyncRate", INTEGER, 0),
            ("TTResult_NumberOfRecords", INTEGER, 0),
            ("Header_End", EMPTY, 0),
        ]
        self._file.write(MAGIC + b"1.0.00".ljust(8, b"\0"))
        for ident, kind, value in entries:
            if ident == "TTResult_NumberOfRecords":
                self._count_at = self._file.tell() + HEADER_ENTRY.size - 8
            self._file.write(_entry(ident, kind, value))

    def encode(self, tags: TimeTags) -> bytes:
        """The batch as records."""
        times: Int64s = np.ascontiguousarray(tags.times_ps)
        floor = self._wrapped if self._records else 0
        at = decoders.first_descent(times, floor)
        if at >= 0:
            raise InputError(f"PTU files hold ascending times, not {int(times[at])} ps after later ones")
        out = np.empty(decoders.records_needed(times, self._wrapped), "<u4")
        n, self._wrapped = decoders.encode_hydraharp_t2(times, tags.channels, self._wrapped, out)
        self._records += int(n)
        return out.tobytes()

    def close(self) -> None:
        """Enter the number of records and close."""
        if not self._file.closed:
            self._file.seek(self._count_at)
            self._file.write(struct.pack("<q", self._records))
        super().close()


def _entry(ident: str, kind: int, value: Any) -> bytes:
    if kind == TEXT:
        body: bytes = value + b"\0" * (8 - len(value) % 8)
        return HEADER_ENTRY.pack(ident.encode(), -1, kind, struct.pack("<q", len(body))) + body
    packed = struct.pack("<d" if kind == FLOAT else "<q", value)
    return HEADER_ENTRY.pack(ident.encode(), -1, kind, packed)


PTU = Format("ptu", (".ptu",), MAGIC, read, Writer)
