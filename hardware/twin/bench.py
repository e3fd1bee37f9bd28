"""The twin's stages for `qkd bench link`: the simulated fibre and the simulated receiver."""

from __future__ import annotations

import socket
import threading

import numpy as np

from common.cli.bench_link import BATCH_SLOTS, Stage, Workload
from common.datatypes import Symbols
from hardware.twin.fibre import FibreEntrance, FibreExit
from hardware.twin.physics import CLOCK_WALK_PER_SQRT_S, Receiver, TaggerClock

FIBRE_BATCHES = 16


def stages(workload: Workload) -> list[Stage]:
    """Carry symbols (both ends on one core); turn them into time tags."""
    link = workload.link
    n = BATCH_SLOTS // 64
    full = workload.symbols
    batch = Symbols(
        0, full.basis[:n].copy(), full.bit[:n].copy(), full.intensity[:, :n].copy(), full.phase[:, :n].copy()
    )
    clock = TaggerClock(0, 5e-6, 0.0, CLOCK_WALK_PER_SQRT_S, np.random.default_rng(1))
    receiver = Receiver(link, (), clock, np.random.SeedSequence(1))

    def carry(ends: tuple[FibreEntrance, FibreExit]) -> None:
        entrance, leaving = ends

        def send() -> None:
            for _ in range(FIBRE_BATCHES):
                entrance.send(batch)

        sending = threading.Thread(target=send)
        sending.start()
        arrived = 0
        while arrived < FIBRE_BATCHES:
            arrived += leaving.receive(1.0) is not None
        sending.join()
        leaving.close()
        entrance.close()

    def click(_: None) -> None:
        receiver.light(batch.basis, batch.bit, batch.intensity)

    rate = link.clock_rate_hz
    return [
        Stage("twin: fibre", "slots", FIBRE_BATCHES * BATCH_SLOTS, rate, _fibre, carry),
        Stage("twin: clicks", "slots", BATCH_SLOTS, rate, lambda: None, click),
    ]


def _fibre() -> tuple[FibreEntrance, FibreExit]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    return FibreEntrance(address), FibreExit(address)
