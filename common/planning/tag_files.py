"""Reading time-tag files of a source measurement: by entry point, so that other packages bring their formats.

Group ``qkd_node.tag_readers``: name = file suffix without the dot, value = ``callable(path) -> (times, channels)`` with
times *(n,) int64* in ps, ascending, and channels *(n,) uint8*. A bad file is an `InputError` (or `OSError`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.files import decoding, open_file

GROUP = "qkd_node.tag_readers"
Tags = tuple[NDArray[np.int64], NDArray[np.uint8]]
Reader = Callable[[Path], Tags]


def readers() -> list[str]:
    """Names of all installed readers."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def read_tags(path: Path, file_format: str | None = None) -> Tags:
    """Times in ps (ascending) and channels of a file.

    Parameters
    ----------
    path : of the file. file_format : a reader's name; None: the file's suffix.

    Raises
    ------
    InputError
        No reader, no file, or nonsense in it.
    """
    name = file_format or path.suffix.lstrip(".").lower()
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise InputError(
            f"{path}: there is no reader for format {name!r}", remedy="Give --format, one of: " + ", ".join(readers())
        )
    reader: Reader = points[name].load()
    with decoding(path, name, "Give a file of that format."):
        times, channels = reader(path)
    return checked(path, times, channels)


def checked(path: Path, times: object, channels: object) -> Tags:
    """Refuse arrays that are not tags."""
    t, c = np.asarray(times), np.asarray(channels)
    if t.ndim != 1 or t.shape != c.shape:
        raise InputError(f"{path}: {t.shape} times and {c.shape} channels", remedy="Give one channel for each time.")
    if t.dtype.kind not in "iu" or c.dtype.kind not in "iu":
        raise InputError(f"{path}: times and channels must be whole numbers", remedy="Give times in whole ps.")
    if t.size and (int(c.min()) < 0 or int(c.max()) > 255 or int(t.max()) > np.iinfo(np.int64).max):
        raise InputError(f"{path}: a channel or a time is out of range", remedy="Channels 0..255, times below 2^63 ps.")
    t = t.astype(np.int64)
    if np.any(np.diff(t) < 0):
        raise InputError(f"{path}: the times go back", remedy="Sort the tags by time.")
    return t, c.astype(np.uint8)


def read_npz(path: Path) -> Tags:
    """Arrays ``times_ps`` and ``channels`` of one .npz file."""
    with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["times_ps"], arrays["channels"]


def read_npy_pair(path: Path) -> Tags:
    """``NAME.times.npy`` and, beside it, ``NAME.channels.npy``."""
    stem = path.name.removesuffix(".npy").removesuffix(".times").removesuffix(".channels")
    both = [path.with_name(f"{stem}.{part}.npy") for part in ("times", "channels")]
    times, channels = (_array(one) for one in both)
    return times, channels


def _array(path: Path) -> Any:
    with open_file(path) as file:
        return np.load(file, allow_pickle=False)


def read_text(path: Path) -> Tags:
    """Lines of ``time_ps channel``, separated by blanks, tabs, commas or semicolons; # starts a comment."""
    with io.TextIOWrapper(open_file(path), encoding="utf-8") as lines:
        rows = (line.replace(",", " ").replace(";", " ") for line in lines)
        table = np.loadtxt(rows, dtype=np.int64, ndmin=2)
    if table.size and table.shape[1] != 2:
        raise ValueError(f"{table.shape[1]} columns instead of time and channel")
    table = table.reshape(-1, 2)
    return table[:, 0], table[:, 1]  # type: ignore[return-value]
