"""What can be said about a configuration without light: files, secrets, permissions, endpoints."""

from __future__ import annotations

import stat
from pathlib import Path

from classical_channel.keypool import KeyPool
from classical_channel.link import read_link_secret, read_secret
from classical_channel.zmq_transport import is_curve_key
from common.config import Config
from common.errors import QkdError

Finding = tuple[str, bool, str]
"""(what was looked at, whether it is good, what was found)."""


def check_channel(config: Config) -> list[Finding]:
    """The classical channel's files and endpoint."""
    channel = config.channel
    return [
        _judge("link secret", lambda: _link_secret(config)),
        _judge("CURVE key", lambda: _curve(config.path(channel.curve_secret_file), "channel.curve_secret_file")),
        _judge(
            "peer's CURVE key",
            lambda: _curve(config.path(channel.peer_curve_public_file), "channel.peer_curve_public_file"),
        ),
        *[private_file(config.path(path)) for path in (channel.link_secret_file, channel.curve_secret_file)],
        ("endpoint", "://" in channel.endpoint, channel.endpoint),
    ]


def private_file(path: Path) -> Finding:
    """Whether only its owner may read a secret file."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return (path.name, False, f"{error.strerror}")
    good = mode & 0o077 == 0
    return (path.name, good, f"mode {mode:04o}" + ("" if good else ": run chmod 600 on it"))


def _link_secret(config: Config) -> str:
    pool = KeyPool(read_link_secret(config), alice=config.role == "alice")
    return f"{pool.bits_left // 128} tags in this direction"


def _curve(path: Path, what: str) -> str:
    raw = read_secret(path, what).strip()
    if not is_curve_key(raw):
        raise QkdError("does not hold 40 Z85 characters")
    return "40 Z85 characters"


def _judge(what: str, look: object) -> Finding:
    try:
        assert callable(look)
        return (what, True, str(look()))
    except QkdError as error:
        return (what, False, f"{error} ({error.remedy})")
