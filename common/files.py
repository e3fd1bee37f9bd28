"""Files are written as a database writes them: whole or not at all, whatever moment the process or the power dies.

The content goes to a temporary sibling, is made durable, and takes the place of the file in one step. What was there
before stays until then, and stays for good if anything fails.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError

ORDINARY, SECRET = 0o666, 0o600
"""Modes of a new file: what the umask leaves of the first; its owner alone reads the second."""
LONGEST_STEM = 128
"""A sibling's name must fit where the file's own just does (255 bytes)."""


@contextmanager
def replacing(path: Path, mode: int = ORDINARY, *, lasting: bool = True) -> Iterator[Path]:
    """The name of a temporary sibling (same suffix), which replaces ``path`` when the block ends without an exception.

    Parameters
    ----------
    path : the file to be; a symbolic link is followed, so that the link stays. mode : of a new file.
    lasting : False where a power cut may take it: no wait for the disk.

    Raises
    ------
    InputError
        The file cannot be written, with the operating system's reason; ``path`` is as it was.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.stem[:LONGEST_STEM]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        if target.exists() and not target.is_file():
            raise InputError(f"{path}: is no ordinary file and is not replaced", remedy="Give the name of a file.")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        yield temporary
        if lasting:
            _settle(temporary)
        temporary.replace(target)
        if lasting:
            _settle(target.parent)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; it was not written", remedy="Name a file that can be."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes, mode: int = ORDINARY, *, lasting: bool = True) -> None:
    """Write a whole file at once; see :func:`replacing`."""
    with replacing(path, mode, lasting=lasting) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _settle(path: Path) -> None:
    """Return once the content of a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
