"""What `check` says about the parts that both daemons share."""

from __future__ import annotations

from common.config import Config
from common.errors import QkdError
from common.node.keystore import KeyStore


def check_key_store(config: Config) -> tuple[str, bool, str]:
    """(what, good, finding): does the key file open the store?"""
    database, key_file = config.path(config.keys.database), config.path(config.keys.key_file)
    try:
        if not database.exists():
            return ("key store", key_file.exists(), "not made yet" if key_file.exists() else f"no key file {key_file}")
        with KeyStore.open(database, key_file, read_only=True) as store:
            return ("key store", True, f"{store.available_bits()} bits for applications")
    except QkdError as error:
        return ("key store", False, str(error))
