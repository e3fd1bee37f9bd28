"""Which stretches of light are worth announcing: those in which light outweighs the background. Pure.

Light is cut into segments of a fixed number of slots. A segment that could not give any key by itself, judged by how
many of its slots would be announced (detections, and cross-basis slots: whether a pulse clicked in one basis or in both
must not decide) and by the background of the second before it, is dropped before anything about it is said: to the
protocol it is loss, and its slots count as sent. Why the proof allows it: `common/security/README.md`, section
Selection by transmittance.

Source: ours, decisions 115 and 116; selection of free-space light by its counts: Erven et al., New J. Phys. 14, 123018,
and Vallone et al., PRA 91, 042320; by a threshold fixed beforehand: Wang, Xu and Lo, PRA 97, 032337.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Basis, Bytes8, Detections
from common.preamble import key_slots
from common.security.bounds import binary_entropy

SIGMAS = 2.0
"""Every count enters by this many standard deviations on the side of keeping: chance drops no steady light."""
WINDOW_S = 1.0
"""The background is counted over so much light before the segment."""

FarClicks = tuple[NDArray[np.int64], Bytes8]
"""Slots and bases, each *(n,)*, of clicks so far from the gate that they are background."""
NO_CLICKS: FarClicks = (np.zeros(0, np.int64), np.zeros(0, np.uint8))


@dataclass(frozen=True, slots=True)
class SelectionCounts:
    """What was judged and dropped since the start."""

    segments: int = 0
    segments_dropped: int = 0
    detections_dropped: int = 0


def gives_key(detections: float, background: tuple[float, float], p_z: float, light_qber: float) -> bool:
    """Whether detections could produce key by themselves, with perfect codes and without multi-photon pulses.

    Parameters
    ----------
    detections : of both bases together. background : expected clicks of background among them, in Z and in X.
    p_z : probability that the light is measured in Z. light_qber : error rate of the light alone.

    Notes
    -----
    With s = detections - b_Z - b_X there are n = p_z s + b_Z events in Z with n e = e0 p_z s + b_Z / 2 bit errors, and
    phase errors n phi = e0 p_z s + p_z / (1 - p_z) b_X / 2 will be inferred from X. Whether 1 - h(phi) - h(e) > 0.
    """
    light = max(detections - sum(background), 0.0)
    z = p_z * light + background[Basis.Z]
    if z == 0.0:  # nothing in Z, or too little for a float
        return sum(background) == 0.0
    bit = light_qber * p_z * light + background[Basis.Z] / 2.0
    phase = light_qber * p_z * light + p_z / (1.0 - p_z) * background[Basis.X] / 2.0
    return 1.0 - binary_entropy(min(phase / z, 0.5)) - binary_entropy(bit / z) > 0.0


class Selection:
    """Drops the detections of segments that produce no key; what is left accounts for every slot as before.

    Parameters
    ----------
    segment_slots : length of a segment; segments start at its multiples.
    window_slots : key slots before a segment over which the background is counted.
    gate_per_far : time inside the gate for each unit of time in which far clicks are counted.
    p_z, light_qber : see :func:`gives_key`; a light_qber of 0 drops least.
    """

    def __init__(
        self, segment_slots: int, window_slots: int, gate_per_far: float, p_z: float, light_qber: float = 0.0
    ) -> None:
        self._segment_slots, self._window_slots = segment_slots, window_slots
        self._gate_per_far, self._p_z, self._light_qber = gate_per_far, p_z, light_qber
        self._held: Detections | None = None
        self._held_far = NO_CLICKS
        self._window: deque[NDArray[np.int64]] = deque()
        self._seen = np.zeros(3, np.int64)
        self.counts = SelectionCounts()

    def take(self, batch: Detections, far: FarClicks) -> list[Detections]:
        """Judge every segment that is whole by now.

        Parameters
        ----------
        batch : contiguous with the last, or after it. far : of the same slots, ascending.

        Returns
        -------
        list of Detections : contiguous with those of the last call; the open segment's are held back.
        """
        done = self.flush() if self._held is not None and self._held.to_slot != batch.from_slot else []
        if self._held is not None:
            batch, far = Detections.join([self._held, batch]), _both(self._held_far, far)
        first = batch.from_slot // self._segment_slots
        edges = [i * self._segment_slots for i in range(first + 1, batch.to_slot // self._segment_slots + 1)]
        if edges:
            done.append(self._select(batch, far, [batch.from_slot, *edges]))
            batch, far = batch.later(edges[-1]), _rest_far(far, edges[-1])
        self._held, self._held_far = batch, far
        return done

    def flush(self) -> list[Detections]:
        """Judge the open segment as it is: the light or its slot numbers end here. The background is unknown again."""
        held, far = self._held, self._held_far
        self._held, self._held_far = None, NO_CLICKS
        done = []
        if held is not None and held.from_slot < held.to_slot:
            done.append(self._select(held, far, [held.from_slot, held.to_slot]))
        self._window.clear()
        self._seen.fill(0)
        return done

    def _select(self, batch: Detections, far: FarClicks, edges: Sequence[int]) -> Detections:
        """The batch from the first to the last edge without what clicked in segments that produce no key."""
        n = np.diff(np.searchsorted(batch.slots, edges))
        clicked = n + np.diff(np.searchsorted(batch.discarded_slots, edges))
        far_n = [np.diff(np.searchsorted(far[0][far[1] == basis], edges)) for basis in (Basis.Z, Basis.X)]
        slots = [key_slots(*ends) for ends in pairwise(edges)]
        kept = np.zeros(n.size, bool)
        for i, seen in enumerate(np.column_stack([slots, *far_n]).astype(np.int64)):
            kept[i] = self._worth(int(clicked[i]), slots[i])
            self._remember(seen)
        before = self.counts
        self.counts = SelectionCounts(
            before.segments + n.size,
            before.segments_dropped + int((~kept).sum()),
            before.detections_dropped + int(n[~kept].sum()),
        )
        judged = zip(pairwise(edges), kept.tolist(), strict=True)
        return Detections.join([batch.between(*ends) if keep else Detections.none(*ends) for ends, keep in judged])

    def _worth(self, clicked: int, slots: int) -> bool:
        seen_slots, *far = self._seen.tolist()
        share = self._gate_per_far * slots / seen_slots if seen_slots else 0.0
        in_z, in_x = (share * max(n - SIGMAS * math.sqrt(n), 0.0) for n in far)
        at_most = clicked + SIGMAS * math.sqrt(clicked)
        return gives_key(at_most, (in_z, in_x), self._p_z, self._light_qber)

    def _remember(self, seen: NDArray[np.int64]) -> None:
        """A segment, as (key slots, far clicks in Z, in X), is part of the background's window from now on."""
        self._window.append(seen)
        self._seen += seen
        while self._seen[0] - self._window[0][0] >= self._window_slots:
            self._seen -= self._window.popleft()


def _both(a: FarClicks, b: FarClicks) -> FarClicks:
    return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])


def _rest_far(far: FarClicks, from_slot: int) -> FarClicks:
    at = int(np.searchsorted(far[0], from_slot))
    return far[0][at:], far[1][at:]
