"""What parameter estimation is given and what it answers: the values shared by all protocols."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tallies:
    """Public counts of one block.

    Parameters
    ----------
    slots_sent : key slots between the block's first and last slot.
    n_z : Z sent and Z measured, per intensity.
    n_z_kept : of these, in frames that were reconciled.
    x_counts : [intensity][symbol H, V, R, L][outcome R, L], measured in X.
    """

    slots_sent: int
    n_z: tuple[int, ...]
    n_z_kept: int
    x_counts: tuple[tuple[tuple[int, int], ...], ...]

    def fault(self) -> str | None:
        """Why these counts cannot be, or None."""
        cells = [value for level in self.x_counts for symbol in level for value in symbol]
        if any(value < 0 for value in (*cells, *self.n_z, self.n_z_kept, self.slots_sent)):
            return "a tally is negative"
        if self.slots_sent == 0 or sum(self.n_z) == 0:
            return "the tallies are empty"
        if sum(cells) == 0:
            return "nothing was detected in the check basis"
        if self.n_z_kept > sum(self.n_z):
            return "more bits are kept than were sifted"
        if sum(self.n_z) + sum(cells) > self.slots_sent:
            return "there are more detections than slots"
        return None


@dataclass(frozen=True, slots=True)
class SourceBounds:
    """One-sided bounds of the source (assumption A1)."""

    mean_photon_number_upper: float
    g2_upper: float
    eps: float = 0.0

    @property
    def p_multi(self) -> float:
        """Probability of two or more photons: g2 <n>^2 / 2, exact by the definition of g2."""
        return min(self.g2_upper * self.mean_photon_number_upper**2 / 2.0, 1.0)


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Probabilities that both ends know exactly."""

    protocol: str
    p_z_alice: float
    p_z_bob: float
    intensities: tuple[float, ...] = ()
    p_intensities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the ledger: a bound and the probability that it is wrong."""

    name: str
    value: float
    eps: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Untagged Z events (lower bound), their phase error rate (upper bound), and the terms behind them."""

    n_u_lower: float
    phi_upper: float
    terms: tuple[Term, ...]
