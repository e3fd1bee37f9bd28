"""What a trial is: a generator of verdicts over one link in one folder, known by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    """One line of the table.

    Attributes
    ----------
    what : was done to the link. expected, seen : in words. good : whether they agree.
    """

    what: str
    expected: str
    seen: str
    good: bool


Trial = Callable[[Path, bool], Iterator[Verdict]]
"""(an empty folder, whether it must be quick) -> verdicts, as they come."""
TRIALS: dict[str, Trial] = {}


def trial(name: str) -> Callable[[Trial], Trial]:
    """Register a trial; the module must be imported by ``__main__``."""

    def register(function: Trial) -> Trial:
        TRIALS[name] = function
        return function

    return register
