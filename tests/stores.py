"""Two key stores that hold the same blocks, as after a run of the link."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.keybits import KeyBits
from common.keys.inventory import Inventory
from common.node.keystore import KeyStore, new_key_id

SAES = {"sae-a": "kme-alice", "sae-a2": "kme-alice", "sae-b": "kme-bob", "sae-b2": "kme-bob"}


def open_store(directory: Path, name: str) -> KeyStore:
    """The store of one end; made on first use."""
    key_file = directory / f"{name}.key"
    if not key_file.exists():
        key_file.write_bytes(name.encode().ljust(32, b"."))
    return KeyStore.open(directory / f"{name}.sqlite", key_file)


def add_block(store: KeyStore, block_id: int, n_bytes: int, *, simulated: bool = False, commit: bool = True) -> bytes:
    """A block whose bytes depend on its number alone."""
    raw = np.random.default_rng(block_id).integers(0, 256, n_bytes, dtype=np.uint8).tobytes()
    store.store_pending(block_id, KeyBits.from_bytes(raw), "{}", simulated, authenticated=False)
    if commit:
        store.decide(block_id)
        store.commit(block_id)
    return raw


def inventory(store: KeyStore, role: str, *, deliver_simulated: bool = False) -> Inventory:
    """The key manager of one end."""
    peer = {"alice": "bob", "bob": "alice"}[role]
    return Inventory(
        store,
        alice=role == "alice",
        saes=SAES,
        kme_id=f"kme-{role}",
        peer_kme_id=f"kme-{peer}",
        deliver_simulated=deliver_simulated,
        new_id=new_key_id,
    )
