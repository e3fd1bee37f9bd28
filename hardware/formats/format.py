"""What every time-tag format provides, and what its reader hands to `files.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from common.datatypes import TimeTags
from common.errors import InputError

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file says about itself.

    Parameters
    ----------
    format : name of the format.
    resolution_ps : width of a time bin in ps.
    metadata : the rest of its header, as text.
    """

    format: str
    resolution_ps: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tags as the file holds them, before their order has been looked at.

    Parameters
    ----------
    times_ps : *(n,) int64*; channels : *(n,) uint8*.
    locate : index of a tag -> where it stands in the file, for people.
    until_ps : how far time had come at the end of the chunk, where the file says so.
    lost : the file says that tags are missing here.
    fault : what is wrong inside the chunk, with the place; empty if nothing is.
    """

    times_ps: Int64s
    channels: Bytes8
    locate: Callable[[int], str]
    until_ps: int | None = None
    lost: bool = False
    fault: str = ""


class TagWriter(Protocol):
    """A file that grows by batches."""

    def append(self, tags: TimeTags) -> None:
        """Write the next batch; what was appended survives a crash of this process where the format allows it."""
        ...

    def close(self) -> None:
        """Finish the file; may be called twice."""
        ...


Reader = Callable[[Path, BinaryIO, int], tuple[FileInfo, Iterator[Chunk]]]
"""``(path, open file, tags in a chunk) -> (header, chunks)``; raises InputError where the header is wrong."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format: how to know it, read it and write it.

    Parameters
    ----------
    name, suffixes : as in `--format`, and file names that mean it.
    magic : bytes at the start of every file, empty if there are none.
    read : see :data:`Reader`.
    write : ``(path, resolution_ps, metadata) -> writer``.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    read: Reader
    write: Callable[[Path, float, Mapping[str, str]], TagWriter]


class PlainWriter:
    """A writer of a format that has no room for flags: a batch with lost tags is refused, not written as if whole."""

    name = "this format"
    first_ps, last_ps = 0, (1 << 62) - 1
    first_channel, last_channel = 0, 255

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def append(self, tags: TimeTags) -> None:
        """Write the next batch."""
        if tags.overflow:
            raise InputError(
                f"{self.name} files cannot say that tags are missing before {tags.until_ps} ps",
                remedy="Write Feather or Parquet, which keep the flag.",
            )
        for what, values, low, high in (
            ("time", tags.times_ps, self.first_ps, self.last_ps),
            ("channel", tags.channels, self.first_channel, self.last_channel),
        ):
            if values.size and (int(values.min()) < low or int(values.max()) > high):
                raise InputError(
                    f"{self.name} files hold a {what} of {low}..{high}, not {int(values.min())}..{int(values.max())}",
                    remedy="Write Feather or Parquet, or map the channels.",
                )
        self._file.write(self.encode(tags))
        self._file.flush()

    def encode(self, tags: TimeTags) -> bytes:
        """The batch as bytes of the file."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the file; may be called twice."""
        self._file.close()
