"""The bytes of a block in the key store: pages of 16 KiB, each sealed, that lose what is cut out of them.

Runs inside the transactions of :mod:`common.node.keystore`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import KeyStoreError
from common.node.sealing import Sealing
from common.node.storefile import damaged

PAGE_BYTES = 1 << 14
BEFORE_ALL = (-1, -1)


class Pages:
    """The pages of all blocks.

    Parameters
    ----------
    connection : the open database.
    sealing : seals each page under its own name.
    database : its file, for error messages.
    """

    def __init__(self, connection: sqlite3.Connection, sealing: Sealing, database: Path) -> None:
        self._db, self._sealing, self._database = connection, sealing, database

    def fill(self, block_id: int, raw: NDArray[np.uint8]) -> None:
        """Keep a new block's bytes."""
        for number in range(-(-raw.size // PAGE_BYTES)):
            self._write(block_id, number, raw[number * PAGE_BYTES : (number + 1) * PAGE_BYTES].tobytes())

    def take(self, block_id: int, wanted: range, gone: range, kept: range) -> bytes:
        """The bytes of ``wanted``; those of ``gone`` become zero, a page with nothing of ``kept`` is deleted."""
        secret = bytearray()
        for number in _numbers(gone):
            at = number * PAGE_BYTES
            page = self._read(block_id, number)
            if page is None:
                raise damaged(self._database, f"page {number} of block {block_id} is missing")
            secret += page[max(wanted.start - at, 0) : max(wanted.stop - at, 0)]
            if max(kept.start, at) < min(kept.stop, at + len(page)):
                first, last = max(gone.start - at, 0), min(gone.stop - at, len(page))
                page[first:last] = bytes(last - first)
                self._write(block_id, number, bytes(page))
            else:
                self._db.execute("DELETE FROM pages WHERE block_id = ? AND number = ?", (block_id, number))
        return bytes(secret)

    def put_back(self, block_id: int, offset: int, secret: bytes, n_bytes: int) -> None:
        """Bytes that were taken are in their block of ``n_bytes`` again."""
        for number in _numbers(range(offset, offset + len(secret))):
            at = number * PAGE_BYTES
            page = self._read(block_id, number) or bytearray(min(PAGE_BYTES, n_bytes - at))
            first, last = max(offset - at, 0), min(offset + len(secret) - at, len(page))
            page[first:last] = secret[at + first - offset : at + last - offset]
            self._write(block_id, number, bytes(page))

    def reread(self, after: tuple[int, int], most: int) -> tuple[int, int]:
        """Open up to this many pages behind (block, number) ``after``; the last of them, or ``BEFORE_ALL`` at the end.

        Raises
        ------
        KeyStoreError
            A page does not open.
        """
        rows = self._db.execute(
            "SELECT block_id, number, sealed FROM pages WHERE (block_id, number) > (?, ?)"
            " ORDER BY block_id, number LIMIT ?",
            (*after, most),
        ).fetchall()
        for block_id, number, sealed in rows:
            try:
                self._sealing.unseal(f"block/{block_id}/{number}", sealed)
            except KeyStoreError:
                raise damaged(self._database, f"page {number} of block {block_id} is not what was written") from None
        return (rows[-1][0], rows[-1][1]) if len(rows) == most else BEFORE_ALL

    def _read(self, block_id: int, number: int) -> bytearray | None:
        row = self._db.execute(
            "SELECT sealed FROM pages WHERE block_id = ? AND number = ?", (block_id, number)
        ).fetchone()
        return None if row is None else bytearray(self._sealing.unseal(f"block/{block_id}/{number}", row[0]))

    def _write(self, block_id: int, number: int, page: bytes) -> None:
        sealed = self._sealing.seal(f"block/{block_id}/{number}", page)
        self._db.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?)", (block_id, number, sealed))


def _numbers(extent: range) -> range:
    """The pages on which these bytes lie."""
    return range(extent.start // PAGE_BYTES, (extent.stop - 1) // PAGE_BYTES + 1)
