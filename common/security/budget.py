"""The epsilon budget of one block and its shares. Source: `README.md`, section The epsilon ledger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from common.security import anytime, bounds

ACCOUNTINGS = ("composable", "paper")
ESTIMATION_SHARE = 0.1
"""sqrt of the sum of all estimation eps, as a part of eps_total: 2 sqrt(sum) takes a fifth of the budget."""
AMPLIFICATION_SHARE = 0.25
HASH_BYTES = 16
LARGEST_TRANSCRIPT_BYTES = 2**36
"""More than both ends say about any block (about 1e9 bytes for 1e8 detections), whatever else they say meanwhile."""
MOST_TAGS_PER_BLOCK = 8
"""More than the sealed messages of a block and of the handshake before it."""
PAPER_EPS_TERM = 1e-10 / 12.0
PAPER_EPS_PA = 1e-10 / 24.0


def eps_hash(n_bytes: int) -> float:
    """Poly1305: that two messages of at most this many bytes differ by a given value, 8 ceil(L / 16) / 2^106."""
    return 8 * -(-n_bytes // HASH_BYTES) / 2.0**106


def eps_verify(n_bits: int) -> float:
    """That different keys of this length pass verification; their length is hashed with them, in 8 bytes."""
    return eps_hash(8 + (n_bits + 7) // 8)


EPS_AUTH_LEAST = MOST_TAGS_PER_BLOCK * eps_hash(LARGEST_TRANSCRIPT_BYTES)
"""What authentication of a block surely reaches: no smaller eps_auth is accepted."""


class Tails(NamedTuple):
    """One form of the four bounds."""

    binomial_upper: Callable[[float, float, float], float]
    sample_upper: Callable[[float, float, float], float]
    mean_upper: Callable[[float, float, float], float]
    mean_lower: Callable[[float, float, float], float]


TAILS = {
    "chernoff": Tails(
        bounds.binomial_upper, bounds.sample_upper, bounds.mean_upper, bounds.mean_lower
    ),
    "exact": Tails(
        bounds.exact_binomial_upper,
        bounds.exact_sample_upper,
        bounds.mean_upper,
        bounds.mean_lower,
    ),
    "anytime": Tails(
        anytime.anytime_binomial_upper,
        anytime.anytime_sample_upper,
        anytime.anytime_mean_upper,
        anytime.anytime_mean_lower,
    ),
}
"""By name: the closed form of the literature, the tighter tail itself, and one that holds wherever a block ends."""


@dataclass(frozen=True, slots=True)
class EpsilonBudget:
    """The agreed budget, shared out.

    Parameters
    ----------
    accounting : "composable" (default) or "paper" (each bound at 1e-10/12, no square root; for comparison only).
    eps_total, eps_cor, eps_auth : totals of the configuration.
    tails : "anytime" (default: hold wherever a block is stopped); to compare with, "chernoff" (the closed form of the
        literature) and "exact" (incomplete beta). The phase errors are bounded wherever a block is stopped in any case.
    """

    accounting: str = "composable"
    eps_total: float = 1e-14
    eps_cor: float = 1e-15
    eps_auth: float = 1e-15
    tails: str = "anytime"

    @property
    def bounds(self) -> Tails:
        """The chosen form of the tail bounds."""
        return TAILS[self.tails]

    @property
    def eps_pa(self) -> float:
        """The share of leftover hashing."""
        return PAPER_EPS_PA if self.accounting == "paper" else AMPLIFICATION_SHARE * self.eps_total

    @property
    def pa_cost_bits(self) -> float:
        """What leftover hashing costs: 2 log2(1 / (2 eps_PA)) bits."""
        return 2.0 * math.log2(1.0 / (2.0 * self.eps_pa))

    def eps_term(self, terms: int) -> float:
        """Each estimation bound's share."""
        if self.accounting == "paper":
            return PAPER_EPS_TERM
        return (ESTIMATION_SHARE * self.eps_total) ** 2 / terms

    def eps_spent(self, estimation: float, source: float) -> float:
        """eps_total as spent: 2 sqrt(sum of estimation eps) + eps_PA + eps_cor + eps_auth + source bounds."""
        smoothing = estimation if self.accounting == "paper" else 2.0 * math.sqrt(estimation)
        return smoothing + self.eps_pa + self.eps_cor + self.eps_auth + source

    def fault(self) -> str | None:
        """Why no key can come of this budget, or None."""
        if self.accounting not in ACCOUNTINGS:
            return f"there is no accounting {self.accounting!r}"
        if self.tails not in TAILS:
            return f"there are no bounds {self.tails!r}"
        values = (self.eps_total, self.eps_cor, self.eps_auth)
        if not all(0.0 < value < 1.0 for value in values):
            return "an epsilon is not between 0 and 1"
        if self.eps_auth < EPS_AUTH_LEAST:
            return f"eps_auth is below {EPS_AUTH_LEAST:.1e}, what authentication of a block reaches"
        if self.eps_cor + self.eps_auth > 0.5 * self.eps_total:
            return "eps_cor and eps_auth leave too little of eps_total"
        return None
