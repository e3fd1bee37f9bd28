"""The table of error-correcting codes that both ends hold, and its fingerprint for the handshake.

The data file is made by :mod:`common.planning.ldpc_design`; a code is a base matrix at one lifting size. Its first rows
come in pairs: at first only the sum of a pair is sent, one check, and every bit revealed later splits one check in two
(the rate adaption of blind reconciliation, Martinez-Mateo et al. 2012, with a check's halves in the place of punctured
bits).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigurationError

DATA_FILE = "ldpc_codes.npz"
#: From this share of checks on, 2^18 and 2^20 are lifted from 2^16; below, 2^18 has codes of its own.
LIFTED_FROM_RATE = 0.12


@dataclass(frozen=True, eq=False)
class Code:
    """One quasi-cyclic code.

    Parameters
    ----------
    code_id : index into the table.
    lifting : circulant size, a multiple of 64.
    payload_columns, rows, merged : base columns, base rows, pairs of rows (``2 i`` and ``2 i + 1``, from the start).
    columns, shifts : *(edges,) int64*, in row order.
    row_start : *(rows + 1,) int64*.
    """

    code_id: int
    lifting: int
    payload_columns: int
    rows: int
    merged: int
    columns: NDArray[np.int64]
    shifts: NDArray[np.int64]
    row_start: NDArray[np.int64]

    @property
    def capacity_bits(self) -> int:
        """The longest payload of a frame."""
        return self.payload_columns * self.lifting

    @property
    def merged_bits(self) -> int:
        """Bits that can be held back in the first message."""
        return self.merged * self.lifting

    @property
    def syndrome_bits(self) -> int:
        """Size of the whole syndrome, nothing held back."""
        return self.rows * self.lifting


class CodeTable:
    """All codes, in ascending order of capacity and syndrome."""

    def __init__(self, codes: tuple[Code, ...]) -> None:
        self.codes = codes
        self._fingerprint = _fingerprint(codes)

    def fingerprint(self) -> str:
        """SHA-256 of every code's structure, in hexadecimal: equal at both ends or no link."""
        return self._fingerprint

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray[np.int64]]) -> CodeTable:
        """The table from the arrays of the data file, with the lifted sizes."""
        codes: list[Code] = []
        columns = np.split(arrays["column_steps"].astype(np.int64), np.cumsum(arrays["heads"][:, 4])[:-1])
        shifts = np.split(arrays["shifts"].astype(np.int64), np.cumsum(arrays["heads"][:, 4])[:-1])
        degrees = np.split(arrays["row_degrees"].astype(np.int64), np.cumsum(arrays["heads"][:, 2])[:-1])
        for i, (lifting, payload_columns, rows, merged, _) in enumerate(arrays["heads"].tolist()):
            row_start = np.concatenate([[0], np.cumsum(degrees[i])])
            code = Code(i, lifting, payload_columns, rows, merged, np.cumsum(columns[i]), shifts[i], row_start)
            codes += [code, *(_lift(code, factor) for factor in _factors(code))]
        codes.sort(key=lambda code: (code.capacity_bits, code.syndrome_bits))
        return CodeTable(tuple(replace(code, code_id=i) for i, code in enumerate(codes)))


def _factors(code: Code) -> tuple[int, ...]:
    """By how much a code of the file is lifted on loading: to 2^17, 2^18 and 2^20."""
    if code.capacity_bits == 1 << 18:
        return (4,)
    if code.capacity_bits == 1 << 16:
        return (2, 4, 16) if code.rows - code.merged >= LIFTED_FROM_RATE * code.payload_columns else (2,)
    return ()


def _lift(code: Code, factor: int) -> Code:
    """The same graph with larger circulants: no cycle becomes shorter, most become longer."""
    # Knuth's multiplicative hash spreads the copies: any fixed scatter does.
    copies = (np.arange(1, len(code.shifts) + 1) * 2654435761 >> 16) % factor
    return replace(code, lifting=factor * code.lifting, shifts=code.shifts + code.lifting * copies)


def _fingerprint(codes: tuple[Code, ...]) -> str:
    digest = hashlib.sha256(b"qkd-node codes 4")
    for code in codes:
        head = np.array([code.lifting, code.payload_columns, code.rows, code.merged], dtype="<i8")
        for array in (head, code.columns, code.shifts, code.row_start):
            digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


@cache
def code_table() -> CodeTable:
    """The table that ships with the software."""
    try:
        with resources.files("common.postprocessing").joinpath(DATA_FILE).open("rb") as file, np.load(file) as data:
            return CodeTable.from_arrays({name: data[name] for name in data.files})
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"the table of error-correcting codes cannot be read: {error}") from error
