"""What a session asks its shell to do. Effects are values; the shell carries them out in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from common.protocol.messages import Message

if TYPE_CHECKING:
    from common.protocol.block import BlockFacts

Lane = Literal["sift", "frames", "block", "store"]
"""`sift`, `block` and `store` run one job at a time in order; `frames` runs jobs side by side."""


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a message to the peer (sealed if its type says so)."""

    message: Message


@dataclass(frozen=True, slots=True, repr=False)
class Job:
    """A pure function and its arguments: anybody who has both can do it, in this process or on another machine.

    Parameters
    ----------
    function : of a module, so that it has a name there; it keeps nothing and reads nothing but its arguments.
    arguments : arrays and plain values, which can be copied.

    Security
    --------
    Arguments and result may be secret, and a copy of them is secret as well. Whoever made the job overwrites its
    arrays; nothing of them is printed.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        """Do the work in this process."""
        return self.function(*self.arguments)


@dataclass(frozen=True, slots=True, repr=False)
class Errand:
    """Work that only this end can do: its store, its random source and its symbols are here.

    A function that answers with a :class:`Job` has fetched the job's arguments; the job is done next, in the same lane.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        """Run it, and the job that it leads to."""
        result = self.function(*self.arguments)
        return result() if isinstance(result, Job) else result


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """Do ``work`` off the event loop, then hand its result to ``then`` and carry out what that returns."""

    lane: Lane
    work: Callable[[], Any]
    then: Callable[[Any], list[Effect]]


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block ended: its facts for operators (never secret), see :class:`common.protocol.block.BlockFacts`."""

    facts: BlockFacts


@dataclass(frozen=True, slots=True)
class Ready:
    """The handshake agreed: blocks may flow."""


@dataclass(frozen=True, slots=True, repr=False)
class AddPads:
    """Authentication key for the pool; ``sendable`` once the peer surely holds it too."""

    segment_id: int
    secret: bytes
    sendable: bool


@dataclass(frozen=True, slots=True)
class DropPads:
    """Authentication key that the peer will never hold: the pool forgets it."""

    segment_id: int


@dataclass(frozen=True, slots=True)
class PeerStopped:
    """The peer said goodbye."""


Effect = Send | Run | BlockDone | Ready | AddPads | DropPads | PeerStopped
