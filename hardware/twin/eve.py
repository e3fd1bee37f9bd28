"""Attacks on the simulated light, off by default. Pure: planes of symbols in, planes out, with an explicit generator.

Intercept and resend: Eve sits at Alice's exit, measures pulses in Z and sends Bob pulses of her own without loss. She
knows Alice's bit of every Z pulse that she measured, and disturbs X pulses. With one photon a pulse half of Bob's X
outcomes of X pulses become wrong. With many photons Bob's passive receiver hides them: a bright Z pulse clicks in both
bases, and what is not discarded is in Z nearly always.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint64]
Floats = NDArray[np.float64]
MOST_PHOTONS = 15


@dataclass(frozen=True, slots=True)
class Resend:
    """What Eve does.

    Parameters
    ----------
    photons : of each pulse that she sends, 1 .. 15. share : of Alice's pulses that she measures.
    """

    photons: int
    share: float = 1.0


class Eve:
    """An eavesdropper who measures in Z and resends; the same seed makes the same choices.

    Parameters
    ----------
    attack : what she does. rng : her random numbers.
    """

    def __init__(self, attack: Resend, rng: np.random.Generator) -> None:
        self.attack, self._rng = attack, rng

    def intercept(self, basis: Planes, bit: Planes, intensity: Planes) -> tuple[Planes, Planes, Planes]:
        """What travels on: measured pulses become the Z symbols that she saw.

        Returns
        -------
        (basis, bit, intensity) : with one more plane of intensity, the highest: which pulses she measured.
        """
        taken = self._coins(basis.size, self.attack.share)
        guess = self._coins(basis.size, 0.5)
        seen = (bit & ~basis) | (guess & basis)
        return basis & ~taken, (bit & ~taken) | (seen & taken), np.vstack([intensity, taken])

    def numbers(self, honest: Floats, lit: Floats, efficiency: float) -> Floats:
        """*(levels, photons) float64*: probability that at least 1, 2, ... photons of a pulse are detected.

        Parameters
        ----------
        honest : *(levels, k)*, without her, see :func:`hardware.twin.physics.poisson_table`.
        lit : *(levels,)*, probability that a pulse of each level holds a photon for her to measure.
        efficiency : of Bob's receiver for each photon that arrives.

        Notes
        -----
        Levels as :meth:`intercept` numbers them: untouched pulses first, up to a power of two, then measured ones.
        """
        k, levels = self.attack.photons, len(honest)
        exactly = [math.comb(k, j) * efficiency**j * (1.0 - efficiency) ** (k - j) for j in range(k + 1)]
        at_least = np.cumsum(exactly[:0:-1])[::-1]
        planes = 1 << max(levels - 1, 0).bit_length()
        table = np.zeros((planes + levels, max(k, honest.shape[1])))
        table[:levels, : honest.shape[1]] = honest
        table[planes:, :k] = lit[:, None] * at_least
        return table

    def _coins(self, n_words: int, probability: float) -> Planes:
        """*(n_words,) uint64*: each bit is 1 with this probability."""
        chosen = self._rng.random(64 * n_words) < probability
        return np.packbits(chosen, bitorder="little").view(np.uint64)
