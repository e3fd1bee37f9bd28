"""The table of error-correcting codes that both ends hold, and its fingerprint for the handshake.

The data file is made by :mod:`common.planning.ldpc_design`; a code is a base matrix at one lifting size. Pairs of rows
are joined by auxiliary columns: as long as the auxiliary bits are hidden, the two checks act as one, and every hidden
bit that is revealed later splits one check into two (rate adaption by fixed-order puncturing; Elkouss et al. 2009).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigurationError

DATA_FILE = "ldpc_codes.npz"


@dataclass(frozen=True, eq=False)
class Code:
    """One quasi-cyclic code.

    Parameters
    ----------
    code_id : index into the table.
    lifting : circulant size, a multiple of 32.
    payload_columns, rows, merged : base columns that carry key bits, base rows, auxiliary columns (the last ones;
        column ``payload_columns + i`` joins rows ``2 i`` and ``2 i + 1``).
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
        """Longest payload."""
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
    """All codes, in ascending order of lifting and rows."""

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
        """The table from the arrays of the data file."""
        codes = []
        for i, head in enumerate(arrays["heads"].tolist()):
            lifting, payload_columns, rows, merged, edge, edges, row = head
            codes.append(
                Code(
                    i,
                    lifting,
                    payload_columns,
                    rows,
                    merged,
                    arrays["columns"][edge : edge + edges].astype(np.int64),
                    arrays["shifts"][edge : edge + edges].astype(np.int64),
                    arrays["row_start"][row : row + rows + 1].astype(np.int64),
                )
            )
        return CodeTable(tuple(codes))


def _fingerprint(codes: tuple[Code, ...]) -> str:
    digest = hashlib.sha256(b"qkd-node codes 1")
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
