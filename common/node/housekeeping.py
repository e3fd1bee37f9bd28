"""What keeps the key store bounded while the node runs: spent blocks leave it, and keys that nobody fetches."""

from __future__ import annotations

import logging

from common.config import Config
from common.errors import InputError, StoreUnavailable
from common.node.archive import Archive
from common.node.keystore import KeyStore

log = logging.getLogger("qkd.keys")
EVERY = 60
"""Looks between two searches for spent blocks."""
NEARLY = 0.9


class Housekeeping:
    """Looks after the store of one node.

    Parameters
    ----------
    config : of the node. store : open for writing.
    """

    def __init__(self, config: Config, store: KeyStore) -> None:
        keys = config.keys
        self._store, self._kept = store, keys.blocks_kept
        self._archive = Archive(config.path(keys.database), keys.certificates_archived)
        self._key_bytes = config.etsi014.key_size_bits // 8
        self._most_bits = keys.max_stored_bits
        self._most_waiting_bytes = keys.max_stored_bits // 16
        self._looks = self._dropped = 0
        self._faults: dict[str, str | None] = {"unfetched keys": None, "certificates": None}

    def look(self) -> dict[str, str | None]:
        """Once a second, in any thread: alarm -> its text, None where all is well."""
        self._store.look()
        try:
            self._store.scrub()
            self._drop_unfetched()
            if self._looks % EVERY == 0:
                self._move_spent()
        except StoreUnavailable:  # an alarm of its own
            pass
        self._looks += 1
        return self._faults

    def full(self) -> str | None:
        """Why the store takes no more key; None while there is room. It does not wait for the disk."""
        stored, most = self._store.stored_bits(), self._most_bits
        full = stored >= most
        return f"{stored} bits wait for applications, keys.max_stored_bits is {most}: fetch keys" if full else None

    def _drop_unfetched(self) -> None:
        dropped = self._store.drop_oldest_waiting(self._most_waiting_bytes)
        self._dropped += dropped
        if dropped:
            log.warning("%d keys that nobody has fetched were destroyed, the oldest", dropped)
        waiting = self._store.waiting_bytes
        text = (
            f"{waiting * 8} bits wait in keys that the other end's applications have made and ours do not fetch;"
            f" of more than half of keys.max_stored_bits the oldest are destroyed ({self._dropped} so far)"
        )
        self._faults["unfetched keys"] = text if waiting > NEARLY * self._most_waiting_bytes else None

    def _move_spent(self) -> None:
        try:
            while moved := self._archive.take(self._store, self._kept, self._key_bytes):
                log.info("%d blocks without key have left the store", moved)
        except InputError as error:
            self._faults["certificates"] = f"spent blocks stay in the key store: {error}"
        else:
            self._faults["certificates"] = None
