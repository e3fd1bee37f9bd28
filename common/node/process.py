"""What a process that holds secrets asks of the operating system: no core dumps, and room for connections."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4
"""`prctl(2)`. It also keeps other processes of the same user from tracing this one and from reading its memory."""
OPEN_FILES = 1 << 14
"""Soft limit asked for, where the hard limit allows it: a node opens some fifty files and bounds its connections."""


def keep_secrets_in_memory() -> None:
    """No core dump of this process, whoever asks: its memory holds keys. A system without such means is left as it is.

    A core limit of zero is not enough where a program takes the dumps (`core_pattern` with a pipe): the kernel then
    ignores the limit, but not that the process is not dumpable.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def make_room_for_files(wanted: int = OPEN_FILES) -> int:
    """Raise the soft limit of open files towards ``wanted``; returns the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
