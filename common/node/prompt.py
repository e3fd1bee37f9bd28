"""A call that may never come back, because a disk hangs: made in a thread of its own, and told of while it is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

PATIENCE_S = 3.0
P = ParamSpec("P")
Result = TypeVar("Result")


class Prompt(Generic[P, Result]):
    """Makes one call at a time and waits for it only so long.

    A file system that was frozen for a snapshot, a file server that is away and a disk that dies do not fail: they do
    not answer. Whoever waits for them stands still, and says nothing of it.

    Parameters
    ----------
    call : blocking; it runs in a thread that nothing else needs.
    patience_s : how long :meth:`ask` waits.

    Attributes
    ----------
    silent_s : for how long the call that is out has not come back; 0.0 while none is overdue.
    """

    def __init__(self, call: Callable[P, Result], patience_s: float = PATIENCE_S) -> None:
        self._call, self._patience_s = call, patience_s
        self._thread = ThreadPoolExecutor(1, "prompt")
        self._out: asyncio.Future[Result] | None = None
        self._begun_s = 0.0
        self.silent_s = 0.0

    async def ask(self, *arguments: P.args, **named: P.kwargs) -> Result | None:
        """Make the call, or wait on for the one that is out; its result, or None if it has not come back.

        Raises
        ------
        Exception
            What the call raised.
        """
        loop = asyncio.get_running_loop()
        if self._out is None:
            self._begun_s = loop.time()
            self._out = loop.run_in_executor(self._thread, lambda: self._call(*arguments, **named))
        back, _ = await asyncio.wait([self._out], timeout=self._patience_s)
        if not back:
            self.silent_s = loop.time() - self._begun_s
            return None
        result, self._out, self.silent_s = self._out, None, 0.0
        return result.result()

    def fault(self, who: str) -> str | None:
        """What an alarm says of the one who does not answer; None while nothing is overdue."""
        return f"{who} has not answered for {self.silent_s:.0f} s" if self.silent_s else None

    def close(self) -> None:
        """No further call; one that is out is not waited for."""
        self._thread.shutdown(wait=False)
