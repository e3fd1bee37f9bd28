"""What `run` asks of the classical channel before it opens it, and `check` tells: its secrets and keys."""

from __future__ import annotations

from classical_channel.keypool import KeyPool
from classical_channel.link import read_curve_keys, read_link_secret, refuse_used, require_eps_auth
from common.config import Config
from common.node.check import Step
from common.node.keystore import KeyStore


def _link_secret(config: Config) -> str:
    secret = read_link_secret(config)
    pool = KeyPool(secret, alice=config.role == "alice")
    database, key_file = config.path(config.keys.database), config.path(config.keys.key_file)
    if database.exists():
        with KeyStore.open(database, key_file, read_only=True) as store:
            refuse_used(secret, store)
    return f"{pool.bits_left // 128} tags in this direction"


def _curve_keys(config: Config) -> str:
    read_curve_keys(config)
    return "40 Z85 characters each"


def _eps_auth(config: Config) -> None:
    require_eps_auth(config)


CHANNEL: tuple[Step, ...] = (
    ("link secret", _link_secret),
    ("CURVE keys", _curve_keys),
    ("security.eps_auth", _eps_auth),
)
