"""Addresses that this machine listens at: whether one is free, and what a fault of listening means."""

from __future__ import annotations

import errno
import socket
from typing import NoReturn

from common.addresses import Address
from common.errors import ConfigurationError, PeerUnreachable


def require_free(key: str, value: str, address: Address) -> None:
    """Refuse an address that this machine cannot listen at now.

    Parameters
    ----------
    key, value : of the configuration, for the message.
    """
    host = "" if address.host == "*" else address.host
    if host in (name for _, name in socket.if_nameindex()):
        return  # ZeroMQ takes interfaces by name, and knows their addresses when it binds
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        refuse(key, value, error)


def refuse(key: str, value: str, error: Exception) -> NoReturn:
    """Raise what a fault of listening means: another program's address may become free, one of this machine may come
    up; everything else is the configuration."""
    reason = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    if number in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
        # asyncio's own words hold the address again; the operating system's do not
        reason = {errno.EADDRINUSE: "address already in use"}.get(number, "no address of this machine")
        raise PeerUnreachable(
            f"{key} {value!r}: {reason}", remedy=f"Stop the other program or choose another {key}."
        ) from None
    raise ConfigurationError(f"{key} {value!r}: {reason}", remedy=f"Choose a free host:port for {key}.") from None
