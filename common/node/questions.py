"""Questions to the peer's key manager: each is asked until it is answered, in this session or again in a later one.

A session ends with a process, and what was asked in it may or may not have been heard. So the same question is asked
again, before any new one and in the same order; the other end answers a repetition as it answered first. An answer may
take long: the peer may be away, or its disk full. Nothing is destroyed for that.
"""

from __future__ import annotations

from collections.abc import Callable

from common.protocol.effects import Effect

Then = Callable[[bytes | None], list[Effect]]
Request = Callable[[bytes, Then], list[Effect]]


class Questions:
    """What this end wants to know, oldest first.

    Parameters
    ----------
    request : asks in the present session; its continuation gets None when that session ends, or if there is none.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._open: dict[int, tuple[bytes, Callable[[bytes], None]]] = {}
        self._asked = 0

    def __len__(self) -> int:
        """How many wait for an answer."""
        return len(self._open)

    def ask(self, payload: bytes, answered: Callable[[bytes], None]) -> list[Effect]:
        """A new question; ``answered`` is called once, by whichever session brings the answer."""
        self._asked += 1
        self._open[self._asked] = payload, answered
        return self._send(self._asked)

    def ask_again(self) -> list[Effect]:
        """A new session is ready: what the one before did not answer."""
        return [effect for number in list(self._open) for effect in self._send(number)]

    def _send(self, number: int) -> list[Effect]:
        def then(answer: bytes | None) -> list[Effect]:
            if answer is not None and number in self._open:
                self._open.pop(number)[1](answer)
            return []

        return self._request(self._open[number][0], then)
