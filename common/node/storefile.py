"""The files under the key store: whose they are, whether anybody else wrote them, and what their faults mean.

One process writes them. So whatever changes them between two of its transactions is a fault, and it is seen from what
the operating system says of a file (which one it is, its size, when it was written), which costs microseconds.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from common.errors import KeyStoreError, KeyStoreInUse, StoreUnavailable

_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_PRIMARY = 0xFF
"""The extended result codes of SQLite keep the primary one in their lowest byte."""
_RUNNING = b"in use\n"
Seen = tuple[int, int, int, int] | None

ANEW = (
    "Put the newest copy of the store back, all its files, of a time when the node was stopped in good order. If there "
    "is none, begin anew: move its files away and make a new link secret for both ends (`qkd init`)."
)
ANOTHER = (
    "Another version of this software made it, and its keys are not taken over. Deliver them with that version, or "
    "give them up: move the store's files away and make a new link secret for both ends (`qkd init`)."
)


def fault_of(error: sqlite3.Error, database: Path) -> Exception:
    """What an error of SQLite means for the node; an error of our own statements stays what it is."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY  # none: a text is no text any more
    if code in _PASSING:
        return StoreUnavailable(f"key store {database}: the disk does not take it: {error}")
    if code in _DAMAGED:
        return damaged(database, str(error))
    return KeyStoreError(f"key store {database}: {error}")


def damaged(database: Path, what: str) -> KeyStoreError:
    """The fault of a store whose content is not what was written."""
    return KeyStoreError(f"key store {database} is damaged: {what}", remedy=ANEW)


class StoreFiles:
    """The database, its write-ahead log and its lock, as this process left them.

    Parameters
    ----------
    database : the SQLite file.
    """

    def __init__(self, database: Path) -> None:
        self.database = database.absolute()
        self.log = Path(f"{self.database}-wal")
        self._lock_path = Path(f"{self.database}.lock")
        self._lock: int | None = None
        self._left: tuple[Seen, Seen] | None = None

    # -- one daemon a store: two would use one-time pads twice ---------------------------------------------------------

    def refuse_others(self) -> None:
        """Raise :class:`KeyStoreError` for what is no ordinary file: SQLite would wait for a pipe's writer."""
        for path in (self.database, self.log, self._lock_path):
            if path.exists() and not path.is_file():
                raise KeyStoreError(f"key store {self.database}: {path} is no ordinary file", remedy="Move it away.")

    def take(self) -> None:
        """Be the only process that writes.

        Raises
        ------
        KeyStoreInUse
            Another one is.
        KeyStoreError
            The last one did not end in good order, and its write-ahead log is gone.
        """
        self._lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KeyStoreInUse(
                f"key store {self.database} is in use by another process", remedy="Stop the other daemon."
            ) from None
        self._refuse_lost_log(self._lock)

    def examine(self) -> None:
        """Raise what :meth:`take` would, without keeping anybody from writing; a process that does is no fault."""
        try:
            lock = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for so long as it takes to look at two files
            self._refuse_lost_log(lock)
        except BlockingIOError:
            return
        finally:
            os.close(lock)

    def _refuse_lost_log(self, lock: int) -> None:
        log = _seen(self.log)
        if os.pread(lock, len(_RUNNING), 0) == _RUNNING and (log is None or log[2] == 0):
            raise KeyStoreError(
                f"the write-ahead log {self.log} was deleted: the last process did not end in good order, and what it "
                "stored last stands there and nowhere else",
                remedy=f"Put the log back. If another program opened the store and took the log in, delete "
                f"{self._lock_path}. If the log is lost: {ANEW}",
            )

    def begin(self) -> None:
        """From here on the log holds what the database does not hold yet."""
        self._mark(_RUNNING)
        self._left = _seen(self.database), _seen(self.log)

    def end(self) -> None:
        """The log is about to be taken in and deleted, by this process."""
        if self._left is not None:
            self._mark(b"")
        self._left = None

    def release(self) -> None:
        """Let others write; may be called twice."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _mark(self, content: bytes) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, len(content))
        os.pwrite(self._lock, content, 0)
        os.fsync(self._lock)

    # -- nobody else writes -------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Remember how a transaction of this process has left the files, once it has begun.

        Raises
        ------
        KeyStoreError
            While the transaction ran, one of them was removed, replaced or cut: what it wrote went nowhere.
        """
        if self._left is None:
            return
        now = _seen(self.database), _seen(self.log)
        for path, before, after in zip((self.database, self.log), self._left, now, strict=True):
            what = None if before is None else _difference(before, after)
            if what not in (None, "written"):  # writing is what a transaction does
                raise _touched(path, what)
        self._left = now

    def check(self) -> None:
        """Refuse to go on with files that are not as this process has left them.

        Raises
        ------
        KeyStoreError
            One of them was removed, replaced, cut or written.
        """
        if self._left is None:
            return
        for path, before in zip((self.database, self.log), self._left, strict=True):
            if (what := _difference(before, _seen(path))) is not None:
                raise _touched(path, what)


def _touched(path: Path, what: str) -> KeyStoreError:
    return KeyStoreError(
        f"key store: {path} was {what} by something else while the node ran; nothing is stored or delivered any more",
        remedy="Find out what did it (a backup that restores, a cleaner of old files, a person). Start again: what is "
        f"damaged is told then. {ANEW}",
    )


def _seen(path: Path) -> Seen:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _difference(before: Seen, now: Seen) -> str | None:
    if before == now:
        return None
    if now is None:
        return "removed"
    if before is None or before[:2] != now[:2]:
        return "replaced"
    return "cut" if now[2] < before[2] else "written"
