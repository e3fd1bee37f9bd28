"""Network addresses as configurations write them: one reading, one wording of every fault, whoever asks."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass
from typing import NoReturn

from common.errors import ConfigurationError, PeerUnreachable

LONGEST_HOST = 253
LONGEST_IPC = 100
"""Bytes of a local socket's path, less than the operating system's 107."""
_HOST = re.compile(r"\*|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4, IPv6 without brackets, `*` or empty for every one of this machine) and a port."""

    host: str
    port: int


def read_host(text: str) -> str:
    """A host name or address.

    Raises
    ------
    ValueError
        It cannot be one; the reason is named.
    """
    if not text.isascii():
        raise ValueError(f"host {text!r} is not ASCII: write an international name as the resolver asks it (xn--...)")
    if len(text) > LONGEST_HOST or not _HOST.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no host name or address")
    return text


def read_address(text: str) -> Address:
    """`host:port` or `[IPv6]:port`; an empty host means all of this machine's addresses. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("host:port is needed")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise ValueError("an IPv6 address stands in brackets: [::1]:port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port[:20]!r} is not in 1 .. 65535")
    host = host[1:-1] if bracketed else host
    return Address(read_host(host) if host else "", int(port))


def read_endpoint(text: str) -> Address | None:
    """The address of `tcp://host:port`; None for `ipc://path`, which has none. Raises ValueError."""
    scheme, slashes, rest = text.partition("://")
    if slashes and scheme == "ipc":
        if not 0 < len(rest.encode()) <= LONGEST_IPC or "\0" in rest:
            raise ValueError(f"the path of an ipc endpoint has 1 to {LONGEST_IPC} bytes")
        return None
    if not slashes or scheme != "tcp":
        raise ValueError("tcp://host:port or ipc://path is needed")
    address = read_address(rest)
    if not address.host:
        raise ValueError("a host is needed (* for all of this machine's addresses)")
    return address


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
