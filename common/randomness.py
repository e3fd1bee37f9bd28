"""Where random bits come from: the class and the source of every kind of randomness that a key depends on.

The proof needs true random numbers in four places. What each end uses is said in the handshake and stands in the
ledger's assumptions and in the certificate of every key. Source: `common/security/README.md`, assumption A4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

RandomnessClass = Literal["computational", "physical", "quantum"]
"""`computational`: a deterministic generator, unpredictable only as long as nobody can break it; `physical`: noise of a
process that is not analysed as a quantum measurement; `quantum`: outcomes of one."""
CLASSES: tuple[str, ...] = get_args(RandomnessClass)
"""From the weakest to the strongest."""

USES = {
    "alice": {
        "symbols": "Alice's symbols, intensities and phases",
        "seeds": "the seeds of privacy amplification and the points of verification",
        "start": "the start secret of authentication (as Alice states it)",
    },
    "bob": {
        "coins": "Bob's coins for double clicks and his nonces",
        "start": "the start secret of authentication (as Bob states it)",
    },
}
"""What each role draws, by its name in the handshake."""
MAX_SOURCE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Randomness:
    """One source: its class, and what it is."""

    grade: RandomnessClass
    source: str

    def document(self) -> dict[str, str]:
        """As the handshake and the certificate say it."""
        return {"class": self.grade, "source": self.source}


OPERATING_SYSTEM = Randomness("computational", "the operating system's generator")
"""The kernel's: a deterministic generator that is seeded anew from time to time."""

Uses = Mapping[str, Randomness]
"""Use -> source, of one role."""


def documents(uses: Uses) -> dict[str, dict[str, str]]:
    """All uses of one role as the handshake says them."""
    return {name: one.document() for name, one in sorted(uses.items())}


def read_uses(said: Any, role: str) -> dict[str, Randomness]:
    """What the handshake says about a role's sources.

    Raises
    ------
    ValueError
        A use is missing or unknown, or an entry is not a known class and a short printable text.
    """
    if not isinstance(said, dict) or set(said) != set(USES[role]):
        raise ValueError(f"randomness must name {', '.join(sorted(USES[role]))}")
    return {name: _read(name, one) for name, one in said.items()}


def _read(name: str, said: Any) -> Randomness:
    if not isinstance(said, dict) or set(said) != {"class", "source"} or said["class"] not in CLASSES:
        raise ValueError(f"randomness.{name} must have a class ({', '.join(CLASSES)}) and a source")
    source = said["source"]
    if not isinstance(source, str) or not 0 < len(source) <= MAX_SOURCE_CHARACTERS or not source.isprintable():
        raise ValueError(f"randomness.{name}.source must be a printable text of at most {MAX_SOURCE_CHARACTERS}")
    return Randomness(cast(RandomnessClass, said["class"]), source)


def shortfall(uses: Uses, least: str) -> str | None:
    """The first use whose source is of a weaker class than ``least``, in words; None if there is none."""
    for name, one in sorted(uses.items()):
        if CLASSES.index(one.grade) < CLASSES.index(least):
            return f"{name} are {one.grade} ({one.source})" if name != "start" else f"start is {one.grade}"
    return None


def assumptions(randomness: Mapping[str, Uses]) -> tuple[str, ...]:
    """One sentence a use of both roles: equal at both ends, in the order of ``USES``."""
    return tuple(
        _sentence(words, randomness[role][name])
        for role, names in USES.items()
        for name, words in names.items()
        if role in randomness
    )


def _sentence(words: str, one: Randomness) -> str:
    text = f"{words}: {one.grade} randomness from {one.source}"
    return text + "; secret only as long as nobody predicts that generator" * (one.grade == "computational")
