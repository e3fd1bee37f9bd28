"""Network addresses as configurations write them: one reading, one wording of every fault, whoever asks."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
