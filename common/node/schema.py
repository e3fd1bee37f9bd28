"""The tables of the key store, and the name under which each item of them is sealed."""

from __future__ import annotations

SEALED = (
    ("settings", "'setting/' || name"),
    ("pages", "'block/' || block_id || '/' || number"),
    ("keys", "'key/' || key_id"),
)

UPGRADES = {2: "ALTER TABLE keys ADD COLUMN age INTEGER NOT NULL DEFAULT 0"}
"""From an earlier version to the next."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    block_id INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('pending', 'decided', 'committed')),
    n_bytes INTEGER NOT NULL,
    front INTEGER NOT NULL,
    back INTEGER NOT NULL CHECK (0 <= front AND front <= back AND back <= n_bytes),
    simulated INTEGER NOT NULL,
    record TEXT NOT NULL,
    authenticated INTEGER NOT NULL CHECK (authenticated OR state = 'pending')
);
CREATE INDEX IF NOT EXISTS blocks_with_room ON blocks (block_id) WHERE back > front;
CREATE INDEX IF NOT EXISTS room ON blocks (simulated, state, front, back) WHERE back > front;
CREATE TABLE IF NOT EXISTS pages (
    block_id INTEGER NOT NULL REFERENCES blocks ON DELETE CASCADE,
    number INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (block_id, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY,
    master TEXT NOT NULL,
    slave TEXT NOT NULL,
    ours INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    age INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON keys (age) WHERE NOT ours;
"""
