"""The life of a block as it is told: one generator, which says what happens in the order in which it happens.

A *tale* is a generator. It yields effects, which are carried out, and wishes, for which it waits::

    tag = yield Do("block", Job(verification_tag, (bits, n_bits, point)))    a job's result
    yield say(Verify(..., tag))                                              an effect
    verdict = yield Await(Verified)                                          a message of the peer
    if verdict.equal != 1:
        raise Refused("verification failed")                                 the block ends here

A :class:`Story` tells the tales of one block, and turns their wishes into the effects of
:mod:`common.protocol.effects`: whoever carries out effects (the node, a recorder, a replay, the tests) knows nothing of
tales.

Notes
-----
*Places.* What a flag would remember is the place at which the tale stands. Chunks are under way side by side, and so
are Bob's judgement of a length and the seed that arrives meanwhile: a tale begins others (``Begin``) or waits for
several (``Together``). Each tale waits for one thing at a time. Frames, hundreds of them under one schedule, are looked
after by :mod:`common.protocol.frames`; their jobs are the story's, and the tale waits until all are told (``Until``).

*The law and the place.* :mod:`common.protocol.transitions` says which message is legal in which state; the place says
which one is waited for. Both are asked before anything has changed, so an illegal message changes nothing.

*Live or durable.* A story is of a live block: it ends with the session in which it began, and what it has not finished
is refused. At Bob's it ends with PREPARED, at Alice's once her key is stored and Bob's promise has come. From there on
an obligation is left, which outlives sessions and processes: the store remembers it, and each COMMIT, COMMITTED and
handshake is a short tale of its own about what the store holds, whether a block is still in memory or not. So a block
whose story is told to its end is never refused here, and that needs no flag either.

*An end at any moment.* :meth:`Story.close` closes every tale where it stands: ``finally`` clauses run, arrays are let
go. A job that is under way cannot be stopped. It owns its arguments as long as it runs, finds zeros where its block has
been wiped, and its result is overwritten and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from common.errors import LocalProtocolError
from common.keybits import overwrite
from common.protocol.effects import Effect, Errand, Job, Lane, Run
from common.protocol.messages import BlockMessage

Tale = Generator[Any, Any, Any]
"""Yields effects and wishes; is sent what it wished for, None after an effect."""


class Refused(Exception):
    """The block produces no key, for a reason that both ends are told: an end of its story."""


@dataclass(frozen=True, slots=True)
class Do:
    """Wait for the result of work in a lane."""

    lane: Lane
    work: Job | Errand


class Await:
    """Wait for the next message of one of these kinds."""

    def __init__(self, *kinds: type[BlockMessage]) -> None:
        self.kinds = kinds


@dataclass(frozen=True, slots=True)
class Until:
    """Wait until this holds; asked again after everything that happens to the block."""

    holds: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin another tale of the block and do not wait for it."""

    tale: Tale


class Together:
    """Begin tales side by side and wait until all have been told: the list of what they return."""

    def __init__(self, *tales: Tale) -> None:
        self.tales = tales


class Strand:
    """One tale of a story, and what it waits for."""

    def __init__(self, tale: Tale, parent: Strand | None = None, number: int = 0) -> None:
        self.tale, self.parent, self.number = tale, parent, number
        self.wish: Any = None
        self.untold = 0
        self.told: list[Any] = []


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """Work that is done unless the story is over by then."""

    story: Story
    work: Callable[[], Any]

    def __call__(self) -> Any:
        """Do it, or nothing."""
        return None if self.story.over else self.work()


_TOLD = object()
"""What a tale waits for that has come to an end."""


def _refuses_nothing(reason: str) -> list[Effect]:
    raise LocalProtocolError(f"there is no block to refuse: {reason}")


class Story:
    """Tells the tales of one block, or of one session with the peer.

    Parameters
    ----------
    refuse : what to do when a tale ends with :class:`Refused`.

    Attributes
    ----------
    over : closed; nothing that was under way has an effect any more.
    """

    def __init__(self, refuse: Callable[[str], list[Effect]] = _refuses_nothing) -> None:
        self.over = False
        self._refuse = refuse
        self._strands: list[Strand] = []

    # -- what happens to it -------------------------------------------------------------------------------------------

    def begin(self, tale: Tale) -> list[Effect]:
        """Tell a tale, up to where it has to wait."""
        return self._settle(self._start(Strand(tale)))

    def hear(self, message: BlockMessage) -> list[Effect]:
        """A message of the peer, for the tale that has waited for one of its kind longest."""
        strand = self._waiting_for(message)
        assert strand is not None, "asked before whether it is expected"
        return self._settle(self._go_on(strand, message))

    def after(self, effects: list[Effect]) -> list[Effect]:
        """Something has happened to the block, with these effects: a tale may go on that has waited for it."""
        return self._settle(effects)

    def close(self) -> None:
        """End every tale where it stands."""
        self.over = True
        strands, self._strands = self._strands, []
        for strand in strands:
            if strand.wish is not None:  # one that is being told is closed by who tells it
                strand.tale.close()

    # -- what is asked of it ------------------------------------------------------------------------------------------

    @property
    def told(self) -> bool:
        """Whether it has come to its own end."""
        return not self.over and not self._strands

    def expects(self, message: BlockMessage) -> bool:
        """Whether a tale waits for a message of this kind."""
        return self._waiting_for(message) is not None

    def job(self, run: Run) -> Run:
        """The same job of this story: once the story is over nothing is done and nothing comes of it."""
        return Run(run.lane, Wanted(self, run.work), partial(self._heard_of, run.then))

    # -- how it goes on -----------------------------------------------------------------------------------------------

    def _waiting_for(self, message: BlockMessage) -> Strand | None:
        waiting = (strand for strand in self._strands if isinstance(strand.wish, Await))
        return next((strand for strand in waiting if isinstance(message, strand.wish.kinds)), None)

    def _heard_of(self, then: Callable[[Any], list[Effect]], result: Any) -> list[Effect]:
        if self.over:
            overwrite(result)
            return []
        return self._settle(then(result))

    def _settle(self, effects: list[Effect]) -> list[Effect]:
        while (strand := next(filter(_may_go_on, self._strands), None)) is not None:
            effects = [*effects, *self._go_on(strand, None)]
        return effects

    def _start(self, strand: Strand) -> list[Effect]:
        if self.over:
            strand.tale.close()
            return []
        self._strands.append(strand)
        return self._go_on(strand, None)

    def _go_on(self, strand: Strand, value: Any) -> list[Effect]:
        """Tell a tale on to its next wish, or to its end."""
        effects: list[Effect] = []
        strand.wish = None
        try:
            while strand.wish is None and not self.over:
                wish, value = strand.tale.send(value), None
                effects += self._grant(strand, wish)
        except StopIteration as end:
            self._leave(strand)
            effects += self._return(strand, end.value)
        except Refused as refusal:
            effects += self._refuse(str(refusal))
            self._leave(strand)
        except BaseException:
            strand.wish = _TOLD  # and it stays: a story with a fault in it has not come to its own end
            raise
        if self.over:
            strand.tale.close()
        return effects

    def _grant(self, strand: Strand, wish: Any) -> list[Effect]:
        match wish:
            case Do(lane, work):
                strand.wish = lane  # and not the work: its arrays are let go once it has been done
                return [self.job(Run(lane, work, partial(self._go_on, strand)))]
            case Await() | Until():
                strand.wish = wish
                return []
            case Begin(tale):
                return self._start(Strand(tale))
            case Together():
                strand.wish, strand.untold, strand.told = wish, len(wish.tales), [None] * len(wish.tales)
                parts = [Strand(tale, strand, number) for number, tale in enumerate(wish.tales)]
                return [effect for part in parts for effect in self._start(part)]
        effect: Effect = wish
        return [effect]

    def _leave(self, strand: Strand) -> None:
        strand.wish = _TOLD
        if strand in self._strands:
            self._strands.remove(strand)

    def _return(self, strand: Strand, value: Any) -> list[Effect]:
        """What a tale has returned goes to the one that waits for it, once the others beside it have come to an end."""
        parent = strand.parent
        if parent is None or self.over:
            return []
        parent.told[strand.number] = value
        parent.untold -= 1
        if parent.untold:
            return []
        told, parent.told = parent.told, []
        return self._go_on(parent, told)


def _may_go_on(strand: Strand) -> bool:
    return isinstance(strand.wish, Until) and strand.wish.holds()
