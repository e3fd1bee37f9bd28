"""Keys in files: text of 0 and 1, packed bytes, or .npy."""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.files import SECRET, decoding, read_file, write_file

Bits = NDArray[np.uint8]
FORMATS = ("auto", "text", "packed", "npy")
_NPY_MAGIC = b"\x93NUMPY"
_SPACE = b" \t\r\n,"
#: No array header is longer; nothing else of a file's size is trusted.
MAX_FILE_BYTES = 1 << 29

format_option = click.option(
    "--format", "file_format", type=click.Choice(FORMATS), default="auto", show_default=True,
    help="text of 0 and 1, packed bytes (bit i is bit i%8 of byte i//8), or .npy of 0 and 1.",
)  # fmt: skip


def read_key(path: Path, file_format: str = "auto") -> tuple[Bits, int]:
    """Packed bits and their number.

    Raises
    ------
    InputError : unreadable, empty, or something other than bits.
    """
    try:
        raw = read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", remedy="Name a file that can be read.") from error
    if not raw:
        raise InputError(f"{path}: the file is empty", remedy="Give a file that holds a sifted key.")
    if file_format == "npy" or (file_format == "auto" and raw.startswith(_NPY_MAGIC)):
        return _from_array(path, raw)
    data = np.frombuffer(raw, np.uint8)
    printable = bool(np.all(((data >= 32) & (data < 127)) | np.isin(data, (9, 10, 13))))
    if file_format == "text" or (file_format == "auto" and printable):
        return _from_text(path, data)
    return data.copy(), 8 * data.size


def _from_text(path: Path, data: Bits) -> tuple[Bits, int]:
    space = np.isin(data, np.frombuffer(_SPACE, np.uint8))
    wrong = np.flatnonzero(~(space | (data == ord("0")) | (data == ord("1"))))
    if wrong.size:
        at = int(wrong[0])
        line = int(np.count_nonzero(data[:at] == ord("\n"))) + 1
        raise InputError(
            f"{path}, line {line}: a character that is neither 0 nor 1",
            remedy="A text key holds 0, 1, white space and commas; for packed bytes use --format packed.",
        )
    bits = data[~space] - ord("0")
    if not bits.size:
        raise InputError(f"{path}: no bits in the file", remedy="Give a file that holds a sifted key.")
    return np.packbits(bits, bitorder="little"), bits.size


def _from_array(path: Path, raw: bytes) -> tuple[Bits, int]:
    with decoding(path, ".npy", "Save it again with numpy.save."):
        array = np.load(io.BytesIO(raw), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "bui" or not array.size:
        raise InputError(f"{path}: a key is a one-dimensional array of integers 0 and 1, not empty")
    if array.dtype.kind != "b" and (array.min() < 0 or array.max() > 1):
        raise InputError(
            f"{path}: values other than 0 and 1", remedy="Unpack the bits before saving (numpy.unpackbits)."
        )
    return np.packbits(array.astype(np.uint8), bitorder="little"), array.size


def write_secret(path: Path, packed: Bits) -> None:
    """Write packed bits, readable by the owner alone."""
    write_file(path, packed.tobytes(), SECRET)
