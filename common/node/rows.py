"""What the key store's table of blocks tells: how much is there, for whom, and which rows have served.

Runs inside the transactions of :mod:`common.node.keystore`.
"""

from __future__ import annotations

import sqlite3

_AVAILABLE = (
    "SELECT simulated, sum(back - front) FROM blocks WHERE back > front AND back - front >= ? AND state != 'pending'"
    " GROUP BY 1"
)
_KEYS = (
    "SELECT coalesce(sum((back - front) / ?), 0) FROM blocks WHERE back > front AND state = 'committed'"
    " AND simulated <= ?"
)
_LISTED = (
    "block_id, state, n_bytes, back - front, simulated, record, coalesce(json_valid(record), 0)"
    " AND typeof(n_bytes) = 'integer' AND typeof(front) = 'integer' AND typeof(back) = 'integer'"
)
_NAMES = ("block_id", "state", "n_bytes", "free_bytes", "simulated", "record", "readable")
_SPENT = (
    "SELECT block_id, record FROM blocks WHERE block_id < (SELECT block_id FROM blocks ORDER BY block_id DESC LIMIT 1"
    " OFFSET ?) AND state = 'committed' AND back - front < ?"
    " AND NOT EXISTS (SELECT 1 FROM settings WHERE name = 'pads/' || block_id) ORDER BY block_id LIMIT ?"
)
_WAITING = "SELECT count(*), coalesce(sum(length(sealed)), 0) FROM keys WHERE NOT ours"
_OLDEST_WAITING = (
    "DELETE FROM keys WHERE key_id IN (SELECT key_id FROM keys WHERE NOT ours ORDER BY age LIMIT ?)"
    " RETURNING length(sealed)"
)


class Rows:
    """The rows of blocks and keys.

    Parameters
    ----------
    connection : the open database.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def available_bytes(self, least_bytes: int) -> dict[bool, int]:
        """Simulated or not -> uncut bytes of decided and committed blocks that have at least this many."""
        found = {bool(simulated): int(n) for simulated, n in self._db.execute(_AVAILABLE, (least_bytes,))}
        return {simulated: found.get(simulated, 0) for simulated in (False, True)}

    def count_keys(self, n_bytes: int, *, simulated: bool) -> int:
        """Keys of this size that can be cut; none spans two blocks."""
        return int(self._db.execute(_KEYS, (n_bytes, simulated)).fetchone()[0])

    def listed(self, newest: int) -> list[dict[str, object]]:
        """State, sizes and certificate of the newest blocks, oldest first; -1 for all."""
        rows = self._db.execute(f"SELECT {_LISTED} FROM blocks ORDER BY block_id DESC LIMIT ?", (newest,)).fetchall()
        return [dict(zip(_NAMES, row, strict=True)) for row in reversed(rows)]

    def spent(self, kept: int, least_bytes: int, most: int) -> list[tuple[int, str]]:
        """(block_id, certificate) of the oldest blocks that have nothing more to give, but for the newest of all.

        A block whose pads are still in use is not among them.
        """
        rows = self._db.execute(_SPENT, (kept - 1, least_bytes, most)).fetchall()
        return [(int(number), str(record)) for number, record in rows]

    def drop(self, block_ids: list[int]) -> None:
        """Forget these blocks, with what is left of them."""
        self._db.executemany(
            "DELETE FROM blocks WHERE block_id = ? AND state = 'committed'", [(number,) for number in block_ids]
        )

    def waiting(self) -> tuple[int, int]:
        """(keys that wait for our application, their bytes sealed)."""
        count, n_bytes = self._db.execute(_WAITING).fetchone()
        return int(count), int(n_bytes)

    def drop_oldest_waiting(self, most: int) -> list[int]:
        """Destroy this many of them, the oldest; the bytes of each, sealed."""
        return [int(n_bytes) for (n_bytes,) in self._db.execute(_OLDEST_WAITING, (most,))]
