"""What parameter estimation is given and what it answers: the values shared by all protocols."""

from __future__ import annotations

from dataclasses import dataclass

SYMBOLS = 4
H, V, R, L = range(SYMBOLS)
"""What Alice prepares, as the index of a tally."""
LARGEST_COUNT = 2**63
LARGEST_BOUND = 1e6
"""Of a mean photon number or a g2; more means nothing, and its square may be more than a float can hold."""
CROSS_BASIS = ("discard", "random")
SMALLEST_PROBABILITY = 2.0**-32
ONES_STEPS = 2**16
"""A share is published in steps of 1 / ONES_STEPS."""


@dataclass(frozen=True, slots=True)
class Tallies:
    """Public counts of one block.

    Parameters
    ----------
    slots_sent : key slots between the block's first and last slot.
    n_z : Z sent and Z measured, per intensity.
    n_z_kept : of these, in frames that were reconciled.
    x_counts : [intensity][symbol H, V, R, L][outcome R, L], measured in X.
    z_detections, x_detections : announced detections measured in Z, in X, whatever Alice sent.
    cross_clicks : slots in which detectors of both bases clicked, whatever became of them.
    double_clicks : slots in which both detectors of one basis clicked.
    z_ones_steps : share of outcome V among Bob's sifted Z bits, before error correction, in steps of 2^-16.
    """

    slots_sent: int
    n_z: tuple[int, ...]
    n_z_kept: int
    x_counts: tuple[tuple[tuple[int, int], ...], ...]
    z_detections: int
    x_detections: int
    cross_clicks: int
    double_clicks: int
    z_ones_steps: int

    def fault(self) -> str | None:
        """Why no key can be made of these counts, whatever the bounds are, or None."""
        return self.impossible() or (None if self.x_detections else "nothing was detected in the check basis")

    def impossible(self) -> str | None:
        """Why these counts cannot be, or None."""
        if not self.n_z or len(self.n_z) != len(self.x_counts) or any(len(level) != SYMBOLS for level in self.x_counts):
            return "the tallies have not the shape of intensities, four symbols and two outcomes"
        cells = [value for level in self.x_counts for symbol in level for value in symbol]
        seen = (self.cross_clicks, self.double_clicks, self.z_ones_steps)
        counts = (*cells, *self.n_z, self.n_z_kept, self.slots_sent, self.z_detections, self.x_detections, *seen)
        if not all(value <= LARGEST_COUNT for value in counts):
            return "a tally is not finite"
        if any(value < 0 for value in counts):
            return "a tally is negative"
        if self.slots_sent == 0 or sum(self.n_z) == 0:
            return "the tallies are empty"
        if self.n_z_kept > sum(self.n_z):
            return "more bits are kept than were sifted"
        if sum(self.n_z) > self.z_detections or sum(cells) != self.x_detections:
            return "the counts of a basis are not those of its detections"
        if self.z_detections + self.x_detections > self.slots_sent:
            return "there are more detections than slots"
        if max(seen[:2]) > self.slots_sent or seen[2] >= ONES_STEPS:
            return "there are more double or cross-basis clicks than slots, or a share above 1"
        return None

    def one_intensity_fault(self) -> str | None:
        """Why these cannot be counts of a source without decoy intensities, or None."""
        return None if len(self.n_z) == 1 else f"there are counts of {len(self.n_z)} intensities, not of one"


@dataclass(frozen=True, slots=True)
class SourceBounds:
    """One-sided bounds of the source (assumption A1); ``phase_bits``: of the random phase word of each slot."""

    mean_photon_number_upper: float
    g2_upper: float
    eps: float = 0.0
    phase_bits: int = 0

    @property
    def p_multi(self) -> float:
        """Probability of two or more photons: g2 <n>^2 / 2, exact by the definition of g2."""
        return min(self.g2_upper * self.mean_photon_number_upper**2 / 2.0, 1.0)

    def fault(self) -> str | None:
        """Why these cannot be bounds of a single-photon source, or None."""
        values = (self.mean_photon_number_upper, self.g2_upper)
        if not all(0.0 <= value <= LARGEST_BOUND for value in values):
            return f"a source bound is negative, not finite or above {LARGEST_BOUND:g}"
        if self.mean_photon_number_upper == 0.0:
            return "the source's mean photon number is 0"
        if self.g2_upper == 0.0:
            return "an upper bound of 0 on g2 is more than any measurement can tell"
        return None


@dataclass(frozen=True, slots=True)
class ReceiverBounds:
    """Bounds of Bob's receiver (assumption A3).

    Parameters
    ----------
    p_z_lower, p_z_upper : interval of the probability that he measures Z.
    mismatch : largest relative difference of the efficiencies of any two of the four detectors.
    eps : probability that one of these is wrong.
    cross_basis : "discard" or "random", what becomes of slots with clicks in both bases.
    """

    p_z_lower: float
    p_z_upper: float
    mismatch: float = 0.0
    eps: float = 0.0
    cross_basis: str = "discard"

    def fault(self) -> str | None:
        """Why these cannot be bounds of a receiver, or None."""
        if not all(SMALLEST_PROBABILITY <= p <= 1.0 - SMALLEST_PROBABILITY for p in (self.p_z_lower, self.p_z_upper)):
            return "a probability is not strictly between 0 and 1"
        if not 0.0 <= self.mismatch < 1.0:
            return "the mismatch of the detectors is not in 0 .. 1"
        if not 0.0 <= self.eps <= 1.0:
            return "the probability that a receiver bound is wrong is not in 0 .. 1"
        if self.cross_basis not in CROSS_BASIS:
            return f"there is no rule {self.cross_basis!r} for clicks in both bases"
        return None


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """Probabilities that both ends know exactly; Bob's is nominal, its interval is in :class:`ReceiverBounds`.

    Parameters
    ----------
    p_z_alice, p_z_bob : that Alice prepares, that Bob measures, the key basis Z.
    intensities, p_intensities : mean photon numbers of signal, decoy, vacuum and their probabilities; empty for a
        single-photon source.
    """

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
class Monitor:
    """One line of the ledger: what was observed of the devices, what was expected, how far it may be off."""

    name: str
    observed: float
    expected: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Untagged Z events (lower bound), their phase error rate (upper bound), and the terms behind them."""

    n_u_lower: float
    phi_upper: float
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, n_u_lower: float, n_ph_upper: float, terms: tuple[Term, ...]) -> Estimate:
        """From counts: the rate is their ratio, 1/2 where nothing is untagged."""
        return cls(n_u_lower, n_ph_upper / n_u_lower if n_u_lower > 0 else 0.5, terms)
