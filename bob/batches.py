"""Batches of detections: contiguous ones joined, cut, and held together until they are announced."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from common.datatypes import Detections


class Chunk:
    """Detections that are announced together, made of contiguous batches; the first job that needs them joins them."""

    def __init__(self, batches: list[Detections]) -> None:
        self._batches = batches
        self.count = sum(map(len, batches))
        self.announced = sum(batch.announced for batch in batches)
        self.from_slot, self.to_slot = batches[0].from_slot, batches[-1].to_slot

    def detections(self) -> Detections:
        """All of them; for jobs of one lane."""
        if len(self._batches) > 1:
            self._batches = [join(self._batches)]
        return self._batches[0]


def join(parts: list[Detections]) -> Detections:
    """Contiguous batches as one."""
    if len(parts) == 1:
        return parts[0]
    return Detections(
        np.concatenate([d.slots for d in parts]),
        np.concatenate([d.bases for d in parts]),
        np.concatenate([d.bits for d in parts]),
        parts[0].from_slot,
        parts[-1].to_slot,
        np.concatenate([d.double_slots for d in parts]),
        np.concatenate([d.cross_slots for d in parts]),
    )


def later(detections: Detections, slot: int) -> Detections:
    """The part of a batch from a slot on; an empty one at the batch's end if there is none."""
    return detections.between(min(max(slot, detections.from_slot), detections.to_slot), detections.to_slot)


def pieces(detections: Detections, most: int) -> list[Detections]:
    """A batch as contiguous ones that announce at most ``most`` slots (a tagger may deliver a second at once)."""
    if detections.announced <= most:
        return [detections]
    slots = np.sort(np.concatenate([detections.slots, detections.discarded_slots]))
    edges = [detections.from_slot, *slots[most::most].tolist(), detections.to_slot]
    return [detections.between(*ends) for ends in pairwise(edges)]
