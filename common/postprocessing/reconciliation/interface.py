"""What the reconciliation of a block needs, and what it returns: the seam between a block and its error correction.

A block hands sifted bits in and closes; from then on both ends talk, in words of two kinds. :class:`Parities` of the
end whose bits are right, and a :class:`Result` of the end that corrects. When every piece has its result, the block
takes the bits that are left. What an end does with a word (a message of the protocol, a queue of a test) and how it
carries out jobs is its own matter: ``E`` is what it calls an effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.keybits import KeyBits
from common.postprocessing.reconciliation.fitted import Efficiency

Packed = NDArray[np.uint8]
"""*(ceil(n / 8),) uint8*: bits in the order of the key, bit i is bit ``i % 8`` of byte ``i // 8``. Secret."""
Side = Literal["alice", "bob"]
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Parities:
    """The reference end's word on one piece of the block.

    Parameters
    ----------
    frame : number of the piece in its block.
    round : 1 for the first word on it.
    code_id, n_bits, first_units, second_units : what both ends must agree on, see
        :class:`common.postprocessing.reconciliation.frame.FrameSpec`; the same in every round.
    payload : the parities.
    """

    frame: int
    round: int
    code_id: int
    n_bits: int
    first_units: int
    second_units: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """The correcting end's word after a round.

    Parameters
    ----------
    frame, round : of the word that it answers.
    status : see ``STATUS`` of the exchange.
    qber_steps : error rate of a decoded piece, in steps of ``QBER_STEP``; else 0.
    """

    frame: int
    round: int
    status: int
    qber_steps: int


class Outlet(Protocol[E]):
    """What a reconciliation needs of the end at which it runs."""

    def say(self, word: Parities | Result) -> E:
        """Send a word to the other end."""
        ...

    def job(self, function: Callable[..., Any], arguments: tuple[Any, ...], then: Callable[[Any], list[E]]) -> E:
        """Call a pure function of a module off the event loop; its result goes to ``then`` if the block lives."""
        ...


class Turns(Protocol[E]):
    """Whose frames go to the decoder next, and how much time they have; one for all blocks of an end."""

    @property
    def now_ns(self) -> Callable[[], int]:
        """Time of the event at hand."""
        ...

    def close(self, block: Any) -> list[E]:
        """A block is closed and waits for its turn."""
        ...

    def go_on(self) -> list[E]:
        """Begin as many pieces as may begin, of all blocks."""
        ...

    def efficiency(self, block: Any) -> Efficiency:
        """What the next piece of a block is made for."""
        ...

    def begins(self) -> None:
        """A piece is about to begin."""
        ...

    def ended(self, work: float) -> None:
        """A piece has its result, which took the decoder this much work."""
        ...


class Reconciliation(Protocol[E]):
    """Error correction of one block at one end, whichever code it uses.

    Attributes
    ----------
    open_bits : in pieces without a result: the backlog.
    """

    open_bits: int

    def add(self, bits: KeyBits) -> list[E]:
        """Take more sifted bits of the block, in order. Nothing is said before :meth:`close`."""
        ...

    def close(self) -> list[E]:
        """No more bits come: the block is corrected when it is its turn."""
        ...

    def on_parities(self, word: Parities) -> list[E]:
        """Take a word of the reference end; ``RemoteProtocolError`` if it cannot be true."""
        ...

    def on_result(self, word: Result) -> list[E]:
        """Take a word of the correcting end; ``RemoteProtocolError`` if it cannot be true."""
        ...

    @property
    def complete(self) -> bool:
        """The block is closed and every piece has its result."""
        ...

    @property
    def leak_ec_bits(self) -> int:
        """Every bit disclosed; a piece that failed counts in full."""
        ...

    @property
    def frames_kept(self) -> int:
        """Pieces that were corrected."""
        ...

    @property
    def frames_failed(self) -> int:
        """Pieces that never were."""
        ...

    @property
    def rounds_max(self) -> int:
        """Most rounds that a piece took."""
        ...

    @property
    def kept_bits(self) -> int:
        """Bits in the pieces that were corrected."""
        ...

    @property
    def errors(self) -> int:
        """Errors in these bits by what was said; the same at both ends."""
        ...

    def parts(self) -> tuple[Packed, ...]:
        """The corrected bits in order; only the last part may be no whole number of bytes."""
        ...

    def wipe(self) -> None:
        """Overwrite all bits; nothing is said any more."""
        ...
