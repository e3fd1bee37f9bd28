"""Files are written as a database writes them: whole or not at all, whatever moment the process or the power dies.

The content goes to a temporary sibling, is made durable, and takes the place of the file in one step. What was there
before stays until then, and stays for good if anything fails. They are read for what they are: a device or a pipe in
the place of a file has no end, and is refused.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.errors import InputError, QkdError

ORDINARY, SECRET = 0o666, 0o600
"""Modes of a new file: what the umask leaves of the first; its owner alone reads the second."""
LONGEST_STEM = 128
"""A sibling's name must fit where the file's own just does (255 bytes)."""

MOST_BYTES = 64 << 20
"""Of a file that is read whole: configurations, secrets and documents are far shorter."""
PIECE_BYTES = 1 << 24
"""Read at once."""


def open_handle(path: Path) -> int:
    """Open an ordinary file for reading: its descriptor.

    Raises
    ------
    OSError
        It cannot be opened, or is something else; ``strerror`` says what. Nothing ever waits, as for a pipe's writer.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if stat.S_ISDIR(mode) else "is no ordinary file", str(path))
    return handle


def open_file(path: Path, *, buffered: bool = True) -> BinaryIO:
    """Open an ordinary file for reading; OSError as :func:`open_handle`."""
    return os.fdopen(open_handle(path), "rb", buffering=-1 if buffered else 0)


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read the whole content of an ordinary file; OSError as :func:`open_file`, and for more than ``most`` bytes."""
    pieces, left = [], most
    with open_file(path) as file:
        while piece := file.read(min(left + 1, PIECE_BYTES)):  # a reader that asks for all sets all of it aside
            left -= len(piece)
            if left < 0:
                raise OSError(errno.EFBIG, f"holds more than {most} bytes", str(path))
            pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def decoding(path: Path, form: str, remedy: str) -> Iterator[None]:
    """Whatever a decoder raises over bytes that are not of its form is a fault of the file, and names it.

    Libraries document few of the errors that damaged files make them raise (a damaged .npz alone: eight kinds).

    Raises
    ------
    InputError
        For any exception but our own, which say more.
    """
    try:
        yield
    except QkdError:
        raise
    except Exception as error:
        why = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as {form}: {why}", remedy=remedy) from None


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, unless it is there.

    Raises
    ------
    InputError
        It cannot be made, with the operating system's reason.
    """
    try:
        path.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: no folder can be made there: {error.strerror}", remedy="Name a folder that can be."
        ) from None


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
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a symbolic link that leads to itself
        raise InputError(f"{path}: {error}; it was not written", remedy="Name a file that can be.") from None
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
