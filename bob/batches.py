"""Batches of detections that are held together until they are announced."""

from __future__ import annotations

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
            self._batches = [Detections.join(self._batches)]
        return self._batches[0]
