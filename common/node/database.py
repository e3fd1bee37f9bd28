"""A SQLite file that one process writes, with sealed settings: a transaction is durable when it returns."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from common.errors import StoreUnavailable
from common.node.counter import Counter
from common.node.schema import SEALED
from common.node.sealing import Sealing
from common.node.storefile import StoreFiles, damaged, fault_of

_ROOM, _ROOM_BYTES = "room", 1 << 18
"""What a disk must take before it is believed to take keys again."""
_COUNT = "count"


class SealedDatabase:
    """What the key store stands on. Every method may be called from any thread.

    Attributes
    ----------
    unavailable : why the disk took nothing when it was last asked; None while it does.
    """

    def __init__(
        self, connection: sqlite3.Connection, sealing: Sealing, files: StoreFiles, counter: Counter
    ) -> None:
        self._db, self._sealing, self._files, self._counter = connection, sealing, files, counter
        self._lock = threading.RLock()
        self.unavailable: str | None = None

    def _examine(self) -> None:
        """Look at all that is stored, once: what is damaged is told before anything rests on it."""
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(self._files.database, str(found))
        bad = self._db.execute("SELECT block_id FROM blocks WHERE NOT json_valid(record)").fetchone()
        if bad is not None:
            raise damaged(self._files.database, f"the record of block {bad[0]} cannot be read")
        for table, name in SEALED:
            for item, sealed in self._db.execute(f"SELECT {name}, sealed FROM {table}"):
                self._sealing.unseal(item, sealed)

    def look(self) -> None:
        """Once a second: the files are as this process left them; a disk that took nothing is tried again.

        Raises
        ------
        KeyStoreError
            Something else has removed, replaced, cut or written them.
        """
        with self._lock:
            self._files.check()
        if self.unavailable is not None:
            with contextlib.suppress(StoreUnavailable):
                self.put_setting(_ROOM, bytes(_ROOM_BYTES))
                self.delete_setting(_ROOM)

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._files.end()
            self._db.close()
            self._files.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- settings -----------------------------------------------------------------------------------------------------

    def put_setting(self, name: str, value: bytes) -> None:
        """Keep a small named value."""
        with self._transaction():
            self._put(name, value)

    def advance(self, values: Mapping[str, bytes]) -> None:
        """Keep values that must never go back, all or none: once it returns, no earlier copy of the store opens."""
        with self._reading():
            count = self._count() + 1
            with self._transaction():
                for name, value in {**values, _COUNT: b"%d" % count}.items():
                    self._put(name, value)
            self._counter.write(count)

    def _put(self, name: str, value: bytes) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, self._sealing.seal(f"setting/{name}", value))
        )

    def _count(self) -> int:
        return int(self.get_setting(_COUNT) or b"0")

    def get_setting(self, name: str) -> bytes | None:
        """Read a setting that was stored."""
        with self._reading():
            row = self._db.execute("SELECT sealed FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._sealing.unseal(f"setting/{name}", row[0])

    def delete_setting(self, name: str) -> None:
        """Forget a setting that was stored."""
        with self._transaction():
            self._db.execute("DELETE FROM settings WHERE name = ?", (name,))

    def numbered_settings(self, kind: str) -> list[tuple[int, bytes]]:
        """(number, value) of every setting named `kind/number`, by number."""
        with self._reading():
            names = self._db.execute("SELECT name FROM settings WHERE name GLOB ?", (f"{kind}/*",)).fetchall()
            numbers = sorted(int(name.removeprefix(f"{kind}/")) for (name,) in names)
            found = [(number, self.get_setting(f"{kind}/{number}")) for number in numbers]
        return [(number, value) for number, value in found if value is not None]

    # -- transactions -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise fault_of(error, self._files.database) from None

    @contextlib.contextmanager
    def _transaction(self, *, recount: bool = False) -> Iterator[_Transaction]:
        """All or nothing, also where the disk refuses; the files are ours before it and remembered after it."""
        transaction = _Transaction()
        try:
            with self._reading():
                self._files.check()
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    committed = self._begun()
                    yield transaction
                    if recount:
                        committed = self._recounted()
                    self._db.execute("ROLLBACK" if transaction.undone else "COMMIT")
                    if not transaction.undone:
                        committed()
                finally:
                    if self._db.in_transaction:  # SQLite may have ended it itself
                        self._db.execute("ROLLBACK")
                    self._files.leave()
        except StoreUnavailable as error:
            self.unavailable = str(error)
            raise
        self.unavailable = None

    def _begun(self) -> Callable[[], None]:
        """A transaction has begun; what to do once it is committed."""
        return lambda: None

    def _recounted(self) -> Callable[[], None]:
        """The same, at the end of a transaction that changed what is counted."""
        return lambda: None


class _Transaction:
    """Lets the body of a transaction undo it without an exception."""

    undone = False

    def undo(self) -> None:
        """Roll back at the end."""
        self.undone = True
