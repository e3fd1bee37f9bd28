"""How the key store seals what it keeps: AES-256-GCM, with a key of its own for every item.

The item's key is derived (HKDF-SHA-256) from the key file and the item's name, which is authenticated too: items cannot
be exchanged for one another.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import KeyStoreError
from common.files import read_file

KEY_FILE_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16
SEAL_BYTES = NONCE_BYTES + TAG_BYTES
"""So much longer is what is sealed than what is plain."""


class Sealing:
    """Seals and opens items by name.

    Parameters
    ----------
    master : content of the key file (secret).
    """

    def __init__(self, master: bytes) -> None:
        self._master = master

    def _cipher(self, name: str) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, None, b"qkd-node key store 1/" + name.encode()).derive(self._master))

    def seal(self, name: str, plain: bytes) -> bytes:
        """A fresh nonce, the ciphertext and its tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher(name).encrypt(nonce, plain, None)

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """The plain item.

        Raises
        ------
        KeyStoreError
            Another key file, another item, or damage.
        """
        try:
            return self._cipher(name).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except (InvalidTag, ValueError, TypeError):
            raise KeyStoreError(
                f"{name.split('/')[0]} cannot be decrypted: the key file is not this store's, or the store is damaged",
                remedy="Install the key file that was made with this store (`keys.key_file`).",
            ) from None


def read_key_file(path: Path) -> bytes:
    """The 32 secret bytes.

    Raises
    ------
    KeyStoreError
        Not there, not readable, or of another length.
    """
    try:
        master = read_file(path)
    except OSError as error:
        raise KeyStoreError(
            f"keys.key_file {path} cannot be read: {error.strerror}", remedy="Make the node's secrets with `qkd init`."
        ) from None
    if len(master) != KEY_FILE_BYTES:
        raise KeyStoreError(f"keys.key_file {path} has {len(master)} bytes instead of {KEY_FILE_BYTES}")
    return master
