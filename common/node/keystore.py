"""The key store: SQLite, encrypted at rest, durable before any call returns.

A key for an application is cut out of the pages of its block (which are written back without it) into a row of its own,
and that row is destroyed in the same transaction that reads it. So a byte that was handed out is nowhere in the
database, whatever moment the process dies.

Every page, key and setting is sealed under a key of its own (:mod:`common.node.sealing`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.errors import KeyStoreError, LocalProtocolError, StoreUnavailable
from common.keybits import KeyBits
from common.keys import life
from common.keys.inventory import Owners, Slice
from common.keys.life import Life, Share
from common.node.counter import Counter
from common.node.pages import Pages
from common.node.schema import SCHEMA, SEALED
from common.node.sealing import Sealing, read_key_file
from common.node.storefile import ANOTHER, StoreFiles, damaged, fault_of

VERSION = 2
_ROOM_ROWS = 256
_PROBE = "probe"
_ROOM, _ROOM_BYTES = "room", 1 << 18
"""What a disk must take before it is believed to take keys again."""
_COUNT = "count"
_AVAILABLE = "SELECT simulated, sum(back - front) FROM blocks WHERE back > front AND state != 'pending' GROUP BY 1"
_ORPHANS = "DELETE FROM settings WHERE name GLOB 'pads/*' AND name NOT IN (SELECT 'pads/' || block_id FROM blocks)"



def new_key_id() -> str:
    """A fresh name for a key of an application: a random UUID (ETSI GS QKD 014 asks for one)."""
    return str(uuid.uuid4())


class KeyStore:
    """Durable memory of one node; made by :meth:`open`. Every method may be called from any thread.

    Attributes
    ----------
    blocks_spent : how many blocks have given key in the life of the link, and the sum of their epsilons.
    unavailable : why the disk took nothing when it was last asked; None while it does.
    """

    def __init__(
        self, connection: sqlite3.Connection, sealing: Sealing, files: StoreFiles, counter: Counter
    ) -> None:
        self._db, self._sealing, self._files, self._counter = connection, sealing, files, counter
        self._pages = Pages(connection, sealing, files.database)
        self._lock = threading.RLock()
        self.unavailable: str | None = None
        self._available = {False: 0, True: 0}
        self.blocks_spent = Share()

    @classmethod
    def open(cls, database: Path, key_file: Path, *, read_only: bool = False) -> KeyStore:
        """Open or make the store.

        Parameters
        ----------
        database : SQLite file, made with mode 0600 if it is not there.
        key_file : 32 secret bytes.
        read_only : look beside a running daemon; otherwise this process is the only one.

        Raises
        ------
        KeyStoreError
            No or wrong key file, store in use, damaged, set back to an earlier state, or of another version.
        """
        sealing = Sealing(read_key_file(key_file))
        files = StoreFiles(database)
        connection = None
        try:
            files.refuse_others()
            if not read_only:
                database.parent.mkdir(parents=True, exist_ok=True)
                files.take()
                os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            uri = f"file:{database.absolute()}?mode={'ro' if read_only else 'rw'}"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
            store = cls(connection, sealing, files, Counter(database))
            with store._reading():
                store._prepare(read_only)
        except BaseException as error:
            if connection is not None:
                connection.close()
            files.release()
            if read_only and not database.exists() and isinstance(error, sqlite3.Error | OSError | StoreUnavailable):
                remedy = "The node's first start makes it; or correct keys.database."
                raise KeyStoreError(f"key store {database}: is not there yet", remedy=remedy) from None
            if isinstance(error, sqlite3.Error):
                raise fault_of(error, database) from None
            if isinstance(error, OSError):
                raise KeyStoreError(f"key store {database}: {error}") from None
            raise
        return store

    def _prepare(self, read_only: bool) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                what = f"the key store has version {version}, this software knows {VERSION}"
                raise KeyStoreError(what, remedy=ANOTHER)
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        probe = self.get_setting(_PROBE)
        if not read_only:
            if probe is None:
                self.put_setting(_PROBE, b"")
            self._examine()
            self._counter.check(self._count())
            with self._transaction():
                # Our own requests whose answer was lost with the last process: nobody's keys.
                self._db.execute("DELETE FROM keys WHERE ours")
                self._db.execute(_ORPHANS)  # killed between a block's pads and its key
            self._files.begin()
        self._available, self.blocks_spent = self._counts()

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

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- blocks -------------------------------------------------------------------------------------------------------

    def store_pending(
        self, block_id: int, key: KeyBits, record: str, simulated: bool, *, authenticated: bool
    ) -> None:
        """Keep a key that is not decided yet; takes it out of ``key``."""
        raw = key.view()  # not taken before it is stored: the disk may refuse it now and take it later
        with self._transaction():
            self._db.execute(
                "INSERT INTO blocks VALUES (?, 'pending', ?, 0, ?, ?, ?, ?)",
                (block_id, raw.size, raw.size, simulated, record, authenticated),
            )
            self._pages.fill(block_id, raw)
        key.wipe()

    def decide(self, block_id: int) -> None:
        """The key is authenticated and good, and will be committed."""
        with self._transaction(recount=True):
            changed = self._db.execute(
                "UPDATE blocks SET state = 'decided', authenticated = 1 WHERE block_id = ? AND state = 'pending'",
                (block_id,),
            )
            if changed.rowcount != 1:
                raise LocalProtocolError(f"block {block_id} is not pending and cannot be decided")
            self._count_block(block_id)

    def commit(self, block_id: int) -> None:
        """The key may be delivered; repeating is harmless."""
        with self._transaction(recount=True):
            if self.state_of(block_id) == "pending":
                self._count_block(block_id)
            changed = self._db.execute(
                "UPDATE blocks SET state = 'committed' WHERE block_id = ? AND authenticated", (block_id,)
            )
            if changed.rowcount != 1:
                raise LocalProtocolError(f"block {block_id} is not in the store, or not authenticated: no commit")

    def _count_block(self, block_id: int) -> None:
        """A key becomes good, once: its epsilon is part of the link's life, in the transaction that makes it so."""
        blocks = Share.decode(self.get_setting(life.BLOCKS))
        self._put(life.BLOCKS, blocks.plus(1, life.eps_of(self.certificate_of(block_id))).encode())

    def destroy(self, block_id: int, state: str = "pending") -> None:
        """Forget a key that is still in this state, which is not `committed`; repeating is harmless."""
        with self._transaction(recount=True):
            self._db.execute(
                "DELETE FROM blocks WHERE block_id = ? AND state = ? AND state != 'committed'", (block_id, state)
            )

    def destroy_unauthenticated(self) -> list[int]:
        """Forget every key that is not authenticated, and its pads; the blocks that were."""
        with self._transaction():
            rows = self._db.execute("DELETE FROM blocks WHERE NOT authenticated RETURNING block_id").fetchall()
            numbers = [int(number) for (number,) in rows]
            self._db.executemany("DELETE FROM settings WHERE name = ?", [(f"pads/{number}",) for number in numbers])
        return numbers

    def unresolved(self) -> list[tuple[int, str]]:
        """(block_id, state) of every block that is not committed."""
        with self._reading():
            rows = self._db.execute("SELECT block_id, state FROM blocks WHERE state != 'committed' ORDER BY block_id")
            return [(int(number), str(state)) for number, state in rows]

    def newest_block(self) -> int:
        """The largest block number here; 0 without any."""
        with self._reading():
            return int(self._db.execute("SELECT coalesce(max(block_id), 0) FROM blocks").fetchone()[0])

    def state_of(self, block_id: int) -> str | None:
        """ "pending", "decided", "committed" or None."""
        with self._reading():
            row = self._db.execute("SELECT state FROM blocks WHERE block_id = ?", (block_id,)).fetchone()
        return None if row is None else str(row[0])

    def is_authenticated(self, block_id: int) -> bool:
        """Whether the block is there and authenticated."""
        with self._reading():
            row = self._db.execute("SELECT authenticated FROM blocks WHERE block_id = ?", (block_id,)).fetchone()
        return row is not None and bool(row[0])

    def certificate_of(self, block_id: int) -> str:
        """The certificate that was kept with a key."""
        with self._reading():
            row = self._db.execute("SELECT record FROM blocks WHERE block_id = ?", (block_id,)).fetchone()
        if row is None:
            raise LocalProtocolError(f"block {block_id} is not in the store")
        return str(row[0])

    def blocks(self) -> list[dict[str, object]]:
        """What operators may see of each block: state, sizes, ledger; no key."""
        with self._reading():
            rows = self._db.execute(
                "SELECT block_id, state, n_bytes, back - front, simulated, record FROM blocks ORDER BY block_id"
            ).fetchall()
        names = ("block_id", "state", "n_bytes", "free_bytes", "simulated", "record")
        return [dict(zip(names, row, strict=True)) for row in rows]

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
        """Read it back."""
        with self._reading():
            row = self._db.execute("SELECT sealed FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._sealing.unseal(f"setting/{name}", row[0])

    def delete_setting(self, name: str) -> None:
        """Forget it."""
        with self._transaction():
            self._db.execute("DELETE FROM settings WHERE name = ?", (name,))

    def pads(self) -> list[tuple[int, str, bytes]]:
        """(block_id, state, authentication key) of every block that brought some, oldest first."""
        found = [(number, self.state_of(number), pads) for number, pads in self.numbered_settings("pads")]
        return [(number, state, pads) for number, state, pads in found if state is not None]

    def numbered_settings(self, kind: str) -> list[tuple[int, bytes]]:
        """(number, value) of every setting named `kind/number`, by number."""
        with self._reading():
            names = self._db.execute("SELECT name FROM settings WHERE name GLOB ?", (f"{kind}/*",)).fetchall()
            numbers = sorted(int(name.removeprefix(f"{kind}/")) for (name,) in names)
            found = [(number, self.get_setting(f"{kind}/{number}")) for number in numbers]
        return [(number, value) for number, value in found if value is not None]

    def cut_to_setting(self, one: Slice, name: str, head: bytes) -> bool:
        """Move bytes from the end of a block to a setting, behind ``head``; False if it has not got them (any more)."""
        with self._transaction(recount=True) as transaction:
            if not self._cut_one(one, Owners("", ""), from_front=False, ours=True, simulated=True):
                transaction.undo()
                return False
            self._put(name, head + self._release_one(one.key_id))
        return True

    def forget_pads(self) -> None:
        """Delete the authentication key that came from blocks: another link secret has come."""
        with self._transaction():
            self._db.execute("DELETE FROM settings WHERE name GLOB 'pads/*' OR name GLOB 'refill/*'")

    # -- keys for applications (the inventory's shelf) ----------------------------------------------------------------

    def available_bits(self, *, simulated: bool = True) -> int:
        """Uncut bits of blocks that are decided or committed; with ``simulated`` False, of real light only."""
        return self._available[False] + (self._available[True] if simulated else 0)

    def room(self, n_bytes: int, *, from_front: bool, simulated: bool) -> list[tuple[int, int, int]]:
        """(block_id, front, back) of committed blocks with room, in the order of cutting; the first 256."""
        order = "ASC" if from_front else "DESC"
        with self._reading():
            rows = self._db.execute(
                "SELECT block_id, front, back FROM blocks WHERE back > front AND back - front >= ?"
                f" AND state = 'committed' AND simulated <= ? ORDER BY block_id {order} LIMIT {_ROOM_ROWS}",
                (n_bytes, simulated),
            ).fetchall()
        return [(int(a), int(b), int(c)) for a, b, c in rows]

    def cut(self, slices: Sequence[Slice], owners: Owners, *, from_front: bool, ours: bool, simulated: bool) -> bool:
        """Move bytes from blocks to keys, all or none. Bytes that the peer has skipped are destroyed."""
        with self._transaction(recount=True) as transaction:
            for one in slices:
                if not self._cut_one(one, owners, from_front, ours, simulated):
                    transaction.undo()
                    return False
        return True

    def _cut_one(self, one: Slice, owners: Owners, from_front: bool, ours: bool, simulated: bool) -> bool:
        row = self._db.execute(
            "SELECT front, back FROM blocks WHERE block_id = ? AND state != 'pending' AND simulated <= ?",
            (one.block_id, simulated),
        ).fetchone()
        end = one.offset + one.n_bytes
        if row is None or one.offset < row[0] or end > row[1]:
            return False
        kept = range(end, row[1]) if from_front else range(row[0], one.offset)
        gone = range(row[0], end) if from_front else range(one.offset, row[1])
        secret = self._pages.take(one.block_id, range(one.offset, end), gone, kept)
        self._move(one.block_id, kept)
        try:
            self._db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?)",
                (one.key_id, owners.master, owners.slave, ours, self._sealing.seal(f"key/{one.key_id}", secret)),
            )
        except sqlite3.IntegrityError:
            return False
        return True

    def _move(self, block_id: int, kept: range) -> None:
        """What is left of a block."""
        where = (kept.start, kept.stop, block_id)
        self._db.execute("UPDATE blocks SET front = ?, back = ? WHERE block_id = ?", where)

    def put_back(self, slices: Sequence[Slice], *, from_front: bool) -> None:
        """Keys that the peer has not cut, in the order of cutting: bytes of their blocks again, the last first.

        Those behind which something else was cut are destroyed.
        """
        with self._transaction(recount=True):
            for one in reversed(slices):
                with contextlib.suppress(KeyError):
                    self._put_back(one, self._release_one(one.key_id), from_front=from_front)

    def put_back_setting(self, one: Slice, name: str) -> None:
        """The same of what :meth:`cut_to_setting` has moved, which is at the end of the value."""
        with self._transaction(recount=True):
            value = self.get_setting(name) or b""
            self._put_back(one, value[len(value) - one.n_bytes :], from_front=False)
            self._db.execute("DELETE FROM settings WHERE name = ?", (name,))

    def _put_back(self, one: Slice, secret: bytes, *, from_front: bool) -> None:
        found = self._db.execute("SELECT front, back, n_bytes FROM blocks WHERE block_id = ?", (one.block_id,))
        front, back, n_bytes = found.fetchone() or (-1, -1, 0)
        end = one.offset + len(secret)
        if len(secret) == one.n_bytes and (end == front if from_front else one.offset == back):
            self._pages.put_back(one.block_id, one.offset, secret, n_bytes)
            self._move(one.block_id, range(one.offset, back) if from_front else range(front, end))

    def owners_of(self, key_ids: Sequence[str]) -> dict[str, tuple[Owners, bool]]:
        """Owners of the keys that are there, and whether our application asked for it."""
        found = {}
        with self._reading():
            for key_id in key_ids:
                row = self._db.execute("SELECT master, slave, ours FROM keys WHERE key_id = ?", (key_id,)).fetchone()
                if row is not None:
                    found[key_id] = (Owners(row[0], row[1]), bool(row[2]))
        return found

    def release(self, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Read keys and destroy them, all or none (KeyError)."""
        with self._transaction():
            return {key_id: self._release_one(key_id) for key_id in key_ids}

    def _release_one(self, key_id: str) -> bytes:
        row = self._db.execute("DELETE FROM keys WHERE key_id = ? RETURNING sealed", (key_id,)).fetchone()
        if row is None:
            raise KeyError(key_id)
        return self._sealing.unseal(f"key/{key_id}", row[0])

    def discard(self, key_ids: Sequence[str]) -> None:
        """Destroy keys; unknown ones are ignored."""
        with self._transaction():
            self._db.executemany("DELETE FROM keys WHERE key_id = ?", [(key_id,) for key_id in key_ids])

    def life(self) -> Life:
        """What the link has spent of its security, as far as it is recorded."""
        blocks, tags = (Share.decode(self.get_setting(name)) for name in (life.BLOCKS, life.TAGS))
        return life.together(blocks, tags)

    def waiting_keys(self) -> int:
        """Number of keys that wait for their slave application."""
        with self._reading():
            return int(self._db.execute("SELECT count(*) FROM keys WHERE NOT ours").fetchone()[0])

    # -- inside -------------------------------------------------------------------------------------------------------

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
                    yield transaction
                    counts = self._counts() if recount else None
                    self._db.execute("ROLLBACK" if transaction.undone else "COMMIT")
                    if counts is not None and not transaction.undone:
                        self._available, self.blocks_spent = counts
                finally:
                    if self._db.in_transaction:  # SQLite may have ended it itself
                        self._db.execute("ROLLBACK")
                    self._files.leave()
        except StoreUnavailable as error:
            self.unavailable = str(error)
            raise
        self.unavailable = None

    def _counts(self) -> tuple[dict[bool, int], Share]:
        found = {bool(simulated): 8 * int(n_bytes) for simulated, n_bytes in self._db.execute(_AVAILABLE)}
        return {real: found.get(real, 0) for real in (False, True)}, Share.decode(self.get_setting(life.BLOCKS))


class _Transaction:
    """Lets the body of a transaction undo it without an exception."""

    undone = False

    def undo(self) -> None:
        """Roll back at the end."""
        self.undone = True
