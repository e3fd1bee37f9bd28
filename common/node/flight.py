"""The file of a flight recording: records in one order, sealed as they come, bounded on disk.

A recording holds what a key is made of (tags, symbols, random bits), so all of it is encrypted: AES-256-GCM under a
key that is derived (HKDF-SHA-256) from the key file and the file's random salt. The file is a header (magic, salt) and
chunks: four bytes of length, then the sealed chunk. The nonce is the chunk's number and the header is authenticated
with each, so chunks can be neither changed, exchanged nor moved to another file. A chunk holds records: length of the
facts, length of the bytes, the facts (JSON, with their ``kind``), the bytes. The last record of a whole recording is of
the kind ``end``.

Security
--------
Whoever has a recording and its key file can compute the keys of that run. Keep the two apart; delete recordings.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import ConfigurationError, InputError
from common.files import open_file, read_file
from common.node.credentials import write_secret

MAGIC = b"QKDFLT01"
SUFFIX = ".flight"
SALT_BYTES = 32
KEY_FILE_BYTES = 32
CHUNK_BYTES = 1 << 20
MOST_CHUNK_BYTES = 1 << 31
FLUSH_S = 0.5
MOST_WAITING_BYTES = 1 << 28
"""A disk that falls this far behind ends the recording."""
ROOM_FOR_THE_END = 1 << 12
END = "end"
_LENGTHS = struct.Struct("<II")
_CHUNK = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened: its kind, small facts, and bytes (never printed)."""

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    raw: bytes = field(default=b"", repr=False)


def read_key_file(path: Path, *, make: bool = False) -> bytes:
    """32 secret bytes; with ``make`` a missing file is made with mode 0600."""
    try:
        if make and not path.exists():
            write_secret(path, os.urandom(KEY_FILE_BYTES))
        key = read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"the recording's key file {path} cannot be read: {error.strerror}",
            remedy="Give the file that `record.key_file` named when the run was recorded.",
        ) from None
    if len(key) != KEY_FILE_BYTES:
        raise ConfigurationError(f"the recording's key file {path} has {len(key)} bytes instead of {KEY_FILE_BYTES}")
    return key


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, b"qkd-node flight recording 1").derive(key))


class FlightWriter:
    """Appends records from any thread; one thread of its own seals and writes.

    Parameters
    ----------
    path : a new file, made with mode 0600.
    key : 32 bytes.
    max_bytes : the file stays below this.
    ended_early : told once, from the writer's thread, why recording has ended although the run goes on.
    """

    def __init__(self, path: Path, key: bytes, max_bytes: int, ended_early: Callable[[str], None]) -> None:
        salt = os.urandom(SALT_BYTES)
        self._header = MAGIC + salt
        self._cipher = _cipher(key, salt)
        self._max_bytes, self._ended_early = max_bytes, ended_early
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(handle, "wb", buffering=0)
        self._file.write(self._header)
        self.bytes_written = len(self._header)
        self._chunks = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self.recording = True
        self._thread = threading.Thread(target=self._run, name="flight recorder", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Queue a record; never waits. The order of calls is the order in the file."""
        if not self.recording:
            return
        with self._lock:
            self._waiting += len(record.raw)
        if self._waiting > MOST_WAITING_BYTES:
            self._stop("the disk is too slow: recording has ended, the run goes on")
            return
        self._queue.put(record)

    def close(self) -> None:
        """Write what is queued and the end; may be called twice."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _stop(self, reason: str) -> None:
        with self._lock:
            if not self.recording:
                return
            self.recording = False
        self._ended_early(reason)
        self._queue.put(Record(END, {"reason": reason}))
        self._queue.put(None)

    def _run(self) -> None:
        chunk = bytearray()
        going = True
        try:
            while going:
                going = self._gather(chunk)
                if chunk:
                    self._write(chunk)
                    chunk.clear()
        except OSError as error:
            self._stop(f"the disk refuses ({error.strerror}): recording has ended, the run goes on")
        finally:
            self.recording = False
            self._file.close()

    def _gather(self, chunk: bytearray) -> bool:
        """Take records until a chunk is full or nothing has come for a while; False at the end."""
        while len(chunk) < CHUNK_BYTES:
            try:
                record = self._queue.get(timeout=FLUSH_S)
            except queue.Empty:
                break
            if record is None:
                if self.recording:
                    chunk += _pack(Record(END, {"reason": "closed"}))
                return False
            with self._lock:
                self._waiting -= len(record.raw)
            chunk += _pack(record)
            if record.kind == END:
                return False
        return True

    def _write(self, chunk: bytearray) -> None:
        if self.bytes_written + len(chunk) + ROOM_FOR_THE_END > self._max_bytes and self.recording:
            self._stop(f"the recording is full ({self.bytes_written} bytes): recording has ended, the run goes on")
            while (record := self._queue.get()) is None or record.kind != END:
                pass
            chunk = bytearray(_pack(record))
        sealed = self._cipher.encrypt(self._chunks.to_bytes(12, "little"), bytes(chunk), self._header)
        self._file.write(_CHUNK.pack(len(sealed)) + sealed)
        self._chunks += 1
        self.bytes_written += _CHUNK.size + len(sealed)


def _pack(record: Record) -> bytes:
    facts = json.dumps({"kind": record.kind, **record.facts}).encode()
    return _LENGTHS.pack(len(facts), len(record.raw)) + facts + record.raw


def read_flight(path: Path, key: bytes) -> Iterator[Record]:
    """The records in their order; a recording that was cut (a crash) ends without the kind ``end``.

    Raises
    ------
    InputError
        Not a recording, another key, or damaged: names the chunk and the byte.
    """
    try:
        with open_file(path) as file:
            yield from _records(file, path.name, key)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", remedy="Give a .flight file.") from None


def _records(file: Any, name: str, key: bytes) -> Iterator[Record]:
    header = file.read(len(MAGIC) + SALT_BYTES)
    if not header.startswith(MAGIC) or len(header) < len(MAGIC) + SALT_BYTES:
        raise InputError(f"{name} is no flight recording", remedy="Give a .flight file.")
    cipher = _cipher(key, header[len(MAGIC) :])
    number = 0
    while True:
        at = file.tell()
        length = file.read(_CHUNK.size)
        size = int.from_bytes(length, "little")
        sealed = file.read(size) if len(length) == _CHUNK.size and size <= MOST_CHUNK_BYTES else b""
        if len(sealed) < size or not sealed:
            return
        try:
            chunk = cipher.decrypt(number.to_bytes(12, "little"), sealed, header)
        except InvalidTag:
            raise InputError(
                f"{name}: chunk {number} (byte {at}) cannot be opened",
                remedy="Give the key file of this run; if it is right, the recording is damaged.",
            ) from None
        yield from _unpack(chunk)
        number += 1


def _unpack(chunk: bytes) -> Iterator[Record]:
    at = 0
    while at < len(chunk):
        n_facts, n_raw = _LENGTHS.unpack_from(chunk, at)
        at += _LENGTHS.size
        facts = json.loads(chunk[at : at + n_facts])
        at += n_facts
        yield Record(facts.pop("kind"), facts, chunk[at : at + n_raw])
        at += n_raw
