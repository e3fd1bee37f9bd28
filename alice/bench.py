"""Alice's stages for `qkd bench link`: random source, its health tests, symbols, their memory."""

from __future__ import annotations

from alice.transmitter import SymbolRing, Transmitter
from common.cli.bench_link import BATCH_SLOTS, P_Z_ALICE, Stage, Workload
from common.config import Config
from hardware.drivers.random_software import SoftwareRandom
from hardware.health import HealthTests

PHASE_BITS = 4


def stages(workload: Workload) -> list[Stage]:
    """The software random source, its health tests, both samplers with it, and the ring."""
    source = SoftwareRandom({"seed": 1}, Config(role="alice"))
    rate = workload.link.clock_rate_hz
    ring = SymbolRing(1 << 27)
    batch = Transmitter(P_Z_ALICE, "three-state", PHASE_BITS).prepare(0, BATCH_SLOTS, source.read)
    n_bytes = BATCH_SLOTS * (8 + PHASE_BITS) // 8

    drawn = source.read(n_bytes)
    tests = HealthTests(rate * n_bytes / BATCH_SLOTS)

    def check(_: object) -> None:
        tests.restart()  # the same bytes again are what they look for
        tests.check(drawn)

    def draw(transmitter: Transmitter) -> object:
        return transmitter.prepare(0, BATCH_SLOTS, source.read)

    def remember(_: object) -> None:
        ring.append(batch)
        ring.release_before(BATCH_SLOTS)

    def prepared(scarce: bool) -> Transmitter:
        return Transmitter(P_Z_ALICE, "three-state", PHASE_BITS, scarce=scarce)

    def stage(name: str, prepare: object, work: object, unit: str = "slots", amount: float = BATCH_SLOTS) -> Stage:
        per_second = rate if unit == "slots" else rate * n_bytes / BATCH_SLOTS
        return Stage(name, unit, amount, per_second, prepare, work)  # type: ignore[arg-type]

    return [
        stage("random source", lambda: None, lambda _: source.read(n_bytes), "bytes", n_bytes),
        stage("health tests", lambda: None, check, "bytes", n_bytes),
        stage("symbols, plentiful", lambda: prepared(False), draw),
        stage("symbols, scarce", lambda: prepared(True), draw),
        stage("symbol memory", ring.wipe, remember),
    ]
