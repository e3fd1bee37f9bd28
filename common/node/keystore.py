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
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from common.config import Config
from common.errors import KeyStoreError, LocalProtocolError, StoreUnavailable
from common.keybits import KeyBits
from common.keys import life
from common.keys.inventory import Owners, Slice
from common.keys.life import Life, Share
from common.node.counter import Counter
from common.node.database import SealedDatabase
from common.node.pages import BEFORE_ALL, Pages
from common.node.rows import Rows
from common.node.schema import SCHEMA, UPGRADES
from common.node.sealing import SEAL_BYTES, Sealing, read_key_file
from common.node.storefile import ANOTHER, StoreFiles, fault_of

VERSION = 3
_ROOM_ROWS = 256
_PAGES_AT_ONCE = 16
"""256 kB of key: 1 ms of a processor."""
_PROBE = "probe"
_ORPHANS = "DELETE FROM settings WHERE name GLOB 'pads/*' AND name NOT IN (SELECT 'pads/' || block_id FROM blocks)"


def new_key_id() -> str:
    """A fresh name for a key of an application: a random UUID (ETSI GS QKD 014 asks for one)."""
    return str(uuid.uuid4())


def open_store(config: Config, *, read_only: bool = False, examined: bool = False) -> KeyStore:
    """The store that a configuration names; see :meth:`KeyStore.open`."""
    keys, least_bytes = config.keys, config.etsi014.min_key_size_bits // 8
    database, key_file = config.path(keys.database), config.path(keys.key_file)
    return KeyStore.open(database, key_file, read_only=read_only, examined=examined, least_bytes=least_bytes)


def examine_store(config: Config) -> str:
    """What there is; raises what opening it for writing would, beside a running daemon or without one, as it is."""
    database = config.path(config.keys.database)
    if database.exists() and database.stat().st_size:
        with open_store(config, read_only=True, examined=True) as store:
            return f"{store.available_bits()} bits for applications"
    read_key_file(config.path(config.keys.key_file))
    StoreFiles(database).examine()
    Counter(database).check(lambda: 0)
    return "not made yet"


class KeyStore(SealedDatabase):
    """Durable memory of one node; made by :meth:`open`. Every method may be called from any thread.

    Attributes
    ----------
    blocks_spent : how many blocks have given key in the life of the link, and the sum of their epsilons.
    least_bytes : what is left of a block and less than this is no key for anybody.
    waiting_bytes : of keys that wait for our application.
    """

    def __init__(
        self, connection: sqlite3.Connection, sealing: Sealing, files: StoreFiles, counter: Counter
    ) -> None:
        super().__init__(connection, sealing, files, counter)
        self._pages, self._rows = Pages(connection, sealing, files.database), Rows(connection)
        self._available = {False: 0, True: 0}
        self.least_bytes = 1
        self.waiting_bytes = self._change = 0
        self.blocks_spent = Share()
        self._scrubbed = BEFORE_ALL

    @classmethod
    def open(
        cls,
        database: Path,
        key_file: Path,
        *,
        read_only: bool = False,
        examined: bool = False,
        least_bytes: int = 1,
    ) -> KeyStore:
        """Open or make the store.

        Parameters
        ----------
        database : SQLite file, made with mode 0600 if it is not there.
        key_file : 32 secret bytes.
        read_only : look beside a running daemon; otherwise this process is the only one.
        examined : with ``read_only``, refuse all that is refused otherwise too.
        least_bytes : the smallest key.

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
            elif examined:
                files.examine()
            uri = f"file:{database.absolute()}?mode={'ro' if read_only else 'rw'}"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
            store = cls(connection, sealing, files, Counter(database))
            store.least_bytes = least_bytes
            with store._reading():
                store._prepare(read_only, examined or not read_only)
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

    def _prepare(self, read_only: bool, examined: bool) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if examined and version not in (0, VERSION, *UPGRADES):
            what = f"the key store has version {version}, this software knows {VERSION}"
            raise KeyStoreError(what, remedy=ANOTHER)
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")
            if version in UPGRADES:
                self._db.execute(UPGRADES[version])
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        probe = self.get_setting(_PROBE)
        if probe is None and not read_only:
            self.put_setting(_PROBE, b"")
        if examined:
            self._examine()
            self._counter.check(self._count)
        if not read_only:
            with self._transaction():
                # Our own requests whose answer was lost with the last process: nobody's keys.
                self._db.execute("DELETE FROM keys WHERE ours")
                self._db.execute(_ORPHANS)  # killed between a block's pads and its key
            self._files.begin()
        self._available, self.blocks_spent = self._counts()
        count, sealed_bytes = self._rows.waiting()
        self.waiting_bytes = sealed_bytes - count * SEAL_BYTES

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

    def blocks(self, newest: int = -1) -> list[dict[str, object]]:
        """What operators may see of each block, or of the newest: state, sizes, certificate; no key."""
        with self._reading():
            return self._rows.listed(newest)

    def count_blocks(self) -> int:
        """How many there are."""
        with self._reading():
            return int(self._db.execute("SELECT count(*) FROM blocks").fetchone()[0])

    def spent_blocks(self, kept: int, least_bytes: int, most: int) -> list[tuple[int, str]]:
        """(block_id, certificate) of up to this many old blocks that have less than ``least_bytes`` left."""
        with self._reading():
            return self._rows.spent(kept, least_bytes, most)

    def drop_blocks(self, block_ids: list[int]) -> None:
        """Forget committed blocks, with what is left of them."""
        with self._transaction(recount=True):
            self._rows.drop(block_ids)

    def scrub(self) -> None:
        """Read the next few pages of keys again, round and round.

        Raises
        ------
        KeyStoreError
            One is not what was written: the medium has changed under a node that runs.
        """
        try:
            with self._reading():
                self._scrubbed = self._pages.reread(self._scrubbed, _PAGES_AT_ONCE)
        except StoreUnavailable as error:
            self.unavailable = str(error)
            raise

    # -- authentication key -------------------------------------------------------------------------------------------

    def pads(self) -> list[tuple[int, str, bytes]]:
        """(block_id, state, authentication key) of every block that brought some, oldest first."""
        found = [(number, self.state_of(number), pads) for number, pads in self.numbered_settings("pads")]
        return [(number, state, pads) for number, state, pads in found if state is not None]

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
        """Uncut bits of blocks that are decided or committed, without ends that are too short for a key."""
        return self._available[False] + (self._available[True] if simulated else 0)

    def stored_bits(self) -> int:
        """All that waits for applications: in blocks, and in keys that the peer's application has made for ours."""
        return self.available_bits() + 8 * self.waiting_bytes

    def count_keys(self, n_bytes: int, *, simulated: bool) -> int:
        """How many keys of this size there are."""
        with self._reading():
            return self._rows.count_keys(n_bytes, simulated=simulated)

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
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(age), 0) + 1 FROM keys WHERE NOT ours))",
                (one.key_id, owners.master, owners.slave, ours, self._sealing.seal(f"key/{one.key_id}", secret)),
            )
        except sqlite3.IntegrityError:
            return False
        self._change += 0 if ours else one.n_bytes
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
        row = self._db.execute("DELETE FROM keys WHERE key_id = ? RETURNING sealed, ours", (key_id,)).fetchone()
        if row is None:
            raise KeyError(key_id)
        secret = self._sealing.unseal(f"key/{key_id}", row[0])
        self._change -= 0 if row[1] else len(secret)
        return secret

    def discard(self, key_ids: Sequence[str]) -> None:
        """Destroy keys; unknown ones are ignored."""
        with self._transaction():
            for key_id in key_ids:
                with contextlib.suppress(KeyError):
                    self._release_one(key_id)

    def drop_oldest_waiting(self, most_bytes: int) -> int:
        """Destroy keys that nobody fetches, oldest first, until at most this many bytes wait; how many."""
        count = 0
        gone = [0]
        while gone and self.waiting_bytes > most_bytes:
            with self._transaction():
                gone = self._rows.drop_oldest_waiting(_ROOM_ROWS)
                self._change -= sum(gone) - len(gone) * SEAL_BYTES
            count += len(gone)
        return count

    def life(self) -> Life:
        """What the link has spent of its security, as far as it is recorded."""
        blocks, tags = (Share.decode(self.get_setting(name)) for name in (life.BLOCKS, life.TAGS))
        return life.together(blocks, tags)

    def waiting_keys(self) -> int:
        """Number of keys that wait for their slave application."""
        with self._reading():
            return self._rows.waiting()[0]

    # -- counting ------------------------------------------------------------------------------------------------------

    def _begun(self) -> Callable[[], None]:
        self._change = 0

        def committed() -> None:
            self.waiting_bytes += self._change

        return committed

    def _recounted(self) -> Callable[[], None]:
        counts = self._counts()

        def committed() -> None:
            self.waiting_bytes += self._change
            self._available, self.blocks_spent = counts

        return committed

    def _counts(self) -> tuple[dict[bool, int], Share]:
        found = self._rows.available_bytes(self.least_bytes)
        bits = {simulated: 8 * n_bytes for simulated, n_bytes in found.items()}
        return bits, Share.decode(self.get_setting(life.BLOCKS))
