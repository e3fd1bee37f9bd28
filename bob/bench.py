"""Bob's stage for `qkd bench link`: time tags to detections, synchronised."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from bob.receiver import Receiver
from common.cli.bench_link import Stage, Workload
from common.errors import LocalProtocolError


def _coins(n: int) -> NDArray[np.uint8]:
    return np.zeros(n, np.uint8)


def stages(workload: Workload) -> list[Stage]:
    """Clock, gate and double clicks of a locked receiver (acquisition happens before and is not measured)."""
    receiver = Receiver(workload.link.clock_rate_hz, _coins)
    measured = workload.batches[-workload.measured :]
    for batch in workload.batches[: -workload.measured]:
        receiver.feed(batch)
    if receiver.state != "locked":
        raise LocalProtocolError(f"the receiver is {receiver.state} behind the preamble of the benchmark's light")

    def ingest(ready: Receiver) -> None:
        for batch in measured:
            ready.feed(batch)

    rate = workload.link.clock_rate_hz * workload.link.detection_probability
    amount = float(sum(map(len, measured)))
    return [Stage("ingest", "tags", amount, rate, lambda: copy.deepcopy(receiver), ingest)]
