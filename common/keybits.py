"""Secret bits: wipeable, unprintable, unpicklable, taken once."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from common.errors import LocalProtocolError


class KeyBits:
    """A packed string of secret bits with exactly one owner.

    Parameters
    ----------
    packed : *(ceil(n_bits / 8),) uint8*, bit i is bit ``i % 8`` of byte ``i // 8``; bits beyond ``n_bits`` are zero.
        Ownership passes to this object: the caller keeps no reference.
    n_bits : number of bits.

    Security
    --------
    ``repr`` shows only the length; pickling and copying are refused; :meth:`wipe` overwrites the memory (Python and
    the operating system may still hold copies: see docs/limits.md).
    """

    __slots__ = ("_packed", "n_bits")

    def __init__(self, packed: NDArray[np.uint8], n_bits: int) -> None:
        if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != (n_bits + 7) // 8:
            raise LocalProtocolError(f"{n_bits} bits need a one-dimensional uint8 array of {(n_bits + 7) // 8} bytes")
        self._packed: NDArray[np.uint8] | None = packed
        self.n_bits = n_bits

    @classmethod
    def from_bytes(cls, raw: bytes | bytearray | memoryview) -> KeyBits:
        """Copy whole bytes into a new key."""
        return cls(np.frombuffer(raw, dtype=np.uint8).copy(), 8 * len(raw))

    def view(self) -> NDArray[np.uint8]:
        """The packed bytes, read-only, while the key is alive. Do not keep them."""
        if self._packed is None:
            raise LocalProtocolError("secret bits were used after they were taken or wiped")
        view = self._packed.view()
        view.flags.writeable = False
        return view

    def words(self) -> NDArray[np.uint64]:
        """A zero-padded uint64 copy, 64 bits a word (little-endian)."""
        words = np.zeros((self.n_bits + 63) // 64, dtype="<u8")
        words.view(np.uint8)[: self.view().size] = self.view()
        return words.astype(np.uint64, copy=False)

    def take(self) -> NDArray[np.uint8]:
        """Hand the array to the next stage; this object is empty afterwards."""
        packed = self._packed
        if packed is None:
            raise LocalProtocolError("secret bits were taken twice")
        self._packed = None
        return packed

    def wipe(self) -> None:
        """Overwrite the bits and forget them."""
        if self._packed is not None and self._packed.flags.writeable:
            self._packed.fill(0)
        self._packed = None

    @property
    def alive(self) -> bool:
        """False once taken or wiped."""
        return self._packed is not None

    def __len__(self) -> int:
        return self.n_bits

    def __repr__(self) -> str:
        return f"KeyBits({self.n_bits} bits{'' if self.alive else ', gone'})"

    def __eq__(self, other: object) -> NoReturn:
        raise LocalProtocolError("secret bits are not compared in the clear; use verification")

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError("secret bits are never pickled or copied")


def overwrite(secret: object) -> None:
    """Overwrite the arrays of a result that nobody wants any more; of anything else nothing."""
    if isinstance(secret, np.ndarray):
        if secret.flags.writeable:
            secret.fill(0)
    elif isinstance(secret, tuple):
        for part in secret:
            overwrite(part)
