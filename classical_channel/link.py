"""From a configuration to an open channel: link secret, pool of pads, CURVE keys, ZeroMQ. Both daemons start here."""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from classical_channel.channel import Channel
from classical_channel.keypool import NOTHING_USED, KeyPool, Pointers
from classical_channel.stream import ReliableStream
from classical_channel.zmq_transport import ZmqTransport, is_curve_key
from common.config import Config
from common.errors import ConfigurationError
from common.files import read_file
from common.security.budget import EPS_AUTH_LEAST
from common.units import ns_from_seconds

log = logging.getLogger("qkd.channel")

LEAST_ENTROPY = 15 / 16
"""A link secret that a general compressor makes shorter than this share of itself does not hold random bytes. Of n
random bytes at most 256^-(n/16) can be made so short by whatever compressor; base64 comes out at 3/4."""
_COMPRESSOR = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
INSTANCE = "instance"
POINTERS = "auth/pointers"
LINK_SECRETS = "auth/link secrets"


class Settings(Protocol):
    """The part of the key store that the channel needs."""

    def advance(self, values: Mapping[str, bytes]) -> None:
        """Keep values durably that must never go back."""
        ...

    def forget_pads(self) -> None:
        """Delete what blocks have given to the pool."""
        ...

    def get_setting(self, name: str) -> bytes | None:
        """Read a setting of the store."""
        ...


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end's channel with its parts."""

    channel: Channel
    transport: ZmqTransport
    pool: KeyPool
    instance: int


def read_secret(path: Path, what: str) -> bytes:
    """The content of a secret file; a missing or unreadable one is a configuration error that names it."""
    try:
        return read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f"{what} {path} cannot be read: {error.strerror}", remedy="Make the link's files with `qkd init`."
        ) from None


def read_link_secret(config: Config) -> bytes:
    """The link secret; one that is plainly not random (zeros of a failed copy, text) is a configuration error."""
    path = config.path(config.channel.link_secret_file)
    secret = read_secret(path, "channel.link_secret_file")
    if len(lzma.compress(secret, lzma.FORMAT_RAW, filters=_COMPRESSOR)) < LEAST_ENTROPY * len(secret):
        raise ConfigurationError(
            f"channel.link_secret_file {path} does not hold random bytes",
            remedy="Make the link's files with `qkd init`.",
        )
    return secret


def read_curve_keys(config: Config) -> tuple[bytes, bytes]:
    """(own secret, the peer's public) CURVE key; a missing or malformed one is a configuration error that names it."""
    keys = []
    for field in ("curve_secret_file", "peer_curve_public_file"):
        path = config.path(getattr(config.channel, field))
        key = read_secret(path, f"channel.{field}").strip()
        if not is_curve_key(key):
            raise ConfigurationError(
                f"channel.{field} {path} does not hold 40 Z85 characters",
                remedy="Make the link's files with `qkd init`.",
            )
        keys.append(key)
    return keys[0], keys[1]


def require_eps_auth(config: Config) -> None:
    """Refuse a failure probability of authentication that the tags of one block may exceed."""
    if config.security.eps_auth < EPS_AUTH_LEAST:
        raise ConfigurationError(
            f"security.eps_auth = {config.security.eps_auth} is less than the tags of a block may spend"
            f" ({EPS_AUTH_LEAST:.1e})",
            remedy="State a larger security.eps_auth at both ends.",
        )


def next_instance(settings: Settings) -> int:
    """This process's start counter: durable, larger at every start."""
    instance = int.from_bytes(settings.get_setting(INSTANCE) or b"\x00", "little") + 1
    settings.advance({INSTANCE: instance.to_bytes(8, "little")})
    return instance


def read_pointers(raw: bytes | None) -> Pointers:
    """The pool's pointers as they were made durable (`POINTERS`); without any, nothing has been used."""
    stored = json.loads(raw) if raw is not None else NOTHING_USED
    return {name: (int(segment), int(offset)) for name, (segment, offset) in stored.items()}


def open_pool(config: Config, settings: Settings) -> KeyPool:
    """The pool of pads with the pointers that were last made durable; a new link secret begins a new pool.

    Raises
    ------
    ConfigurationError
        The link secret is too short, or was in use before another one.
    """
    secret = read_link_secret(config)
    begin_anew_with(secret, settings)
    pointers = read_pointers(settings.get_setting(POINTERS))
    target_bits = config.keys.auth_pool_target_bits
    return KeyPool(secret, alice=config.role == "alice", pointers=pointers, target_bits=target_bits)


def begin_anew_with(secret: bytes, settings: Settings) -> None:
    """If this link secret is new here, nothing of the pool before it is used again: its segment 0 counts from 0.

    Every secret that was ever in use is remembered by its digest: one that comes back would be used twice.
    """
    known, digest = _link_secrets(settings), _digest(secret)
    refuse_used(secret, settings)
    if known[-1:] == [digest]:
        return
    log.warning(
        "this key store uses the link secret for the first time: it must never have been used before. If another store "
        "used it and is gone, stop, and make a new link secret for both ends (`qkd init`)"
    )
    settings.forget_pads()
    settings.advance({LINK_SECRETS: json.dumps([*known, digest]).encode(), POINTERS: json.dumps(NOTHING_USED).encode()})


class Readable(Protocol):
    """A key store that is only looked at."""

    def get_setting(self, name: str) -> bytes | None:
        """Read a setting of the store."""
        ...


def refuse_used(secret: bytes, settings: Readable) -> None:
    """Refuse a link secret that was in use before another one."""
    if _digest(secret) in _link_secrets(settings)[:-1]:
        raise ConfigurationError(
            "channel.link_secret_file holds a link secret that was in use before another one",
            remedy="Make a new one with `qkd init` and install it at both ends.",
        )


def _digest(secret: bytes) -> str:
    return hashlib.sha256(b"qkd-node link secret" + secret).hexdigest()


def _link_secrets(settings: Readable) -> list[str]:
    known: list[str] = json.loads(settings.get_setting(LINK_SECRETS) or b"[]")
    return known


def open_link(config: Config, settings: Settings) -> LinkEnd:
    """Everything between the session and the wire."""
    require_eps_auth(config)
    alice = config.role == "alice"
    pool = open_pool(config, settings)
    secret, peer = read_curve_keys(config)
    transport = ZmqTransport(config.channel.endpoint, bind=alice, secret=secret, peer_public=peer)
    instance = next_instance(settings)
    process = instance << 32 | secrets.randbits(32)  # a store that was set back counts the same number again
    stream = ReliableStream(process, ns_from_seconds(config.channel.heartbeat_s))
    return LinkEnd(Channel(stream, pool, alice=alice), transport, pool, instance)
