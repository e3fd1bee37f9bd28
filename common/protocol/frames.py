"""The words of a block's error correction as messages of the protocol, and its jobs in the lane of the frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.postprocessing.reconciliation.interface import Parities, Result
from common.protocol.effects import Effect, Job, Run
from common.protocol.messages import BlockMessage, FrameResult, Syndrome


class MessageOutlet:
    """What :class:`common.postprocessing.reconciliation.interface.Outlet` asks for, of one block.

    Parameters
    ----------
    say : moves the block along the table and makes the Send effect.
    guard : keeps a continuation from running after the block has ended.
    """

    def __init__(self, block_id: int, say: Callable[[BlockMessage], Effect], guard: Callable[[Run], Effect]) -> None:
        self._block_id, self._say, self._guard = block_id, say, guard

    def say(self, word: Parities | Result) -> Effect:
        """Turn a word into its message."""
        if isinstance(word, Result):
            return self._say(FrameResult(self._block_id, word.frame, word.round, word.status, word.qber_steps))
        agreed = word.code_id, word.n_bits, word.first_units, word.second_units
        return self._say(Syndrome(self._block_id, word.frame, word.round, *agreed, word.payload))

    def job(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], then: Callable[[Any], list[Effect]]
    ) -> Effect:
        """A job that runs beside those of other frames."""
        return self._guard(Run("frames", Job(function, arguments), then))


def parities_of(message: Syndrome) -> Parities:
    """The word that a message brings."""
    agreed = message.code_id, message.n_bits, message.first_units, message.second_units
    return Parities(message.frame, message.round, *agreed, message.payload)


def result_of(message: FrameResult) -> Result:
    """The word that a message brings."""
    return Result(message.frame, message.round, message.status, message.qber_steps)
