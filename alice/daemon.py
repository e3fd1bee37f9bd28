"""Alice's daemon: random stream -> symbols -> modulator in one thread, the session on the event loop."""

from __future__ import annotations

import math
import threading
from functools import partial

from alice.session import AliceSession
from alice.transmitter import SymbolRing, Transmitter
from classical_channel.link import open_link
from common import statements
from common.config import Config
from common.node.node import Node, Options, identity
from hardware.interfaces import Modulator, RandomSource
from hardware.power_watch import power_watch
from hardware.randomness import LockedRandom, open_random_source
from hardware.registry import open_device
from hardware.slow_control import SlowControl, identities

BATCH_S, LEAST_BATCH, MOST_BATCH = 0.05, 1 << 12, 1 << 22
"""Light that is prepared and sent at once, about; in slots: a power of two between these. A batch costs both ends
0.5 ms whatever its size, as much as the symbols of 25 ms of light; more than 2^22 slots would leave the caches."""
REFILL_STEP_BYTES = 1 << 10


def batch_slots(clock_rate_hz: float) -> int:
    """Slots that are prepared and sent at once."""
    return min(max(1 << round(math.log2(BATCH_S * clock_rate_hz)), LEAST_BATCH), MOST_BATCH)


def phase_bits(config: Config, modulator: Modulator) -> int:
    """Bits of a slot's random phase that are drawn: none for a modulator that does not put them onto the light."""
    return config.source.phase_bits if getattr(modulator, "applies_phase", False) else 0


class Light(threading.Thread):
    """Prepares and sends slots until told to stop; a full buffer drops the oldest symbols, never the newest.

    Parameters
    ----------
    transmitter, ring, modulator, random : its parts.
    node : told of progress and of the fault that ends it.
    n_slots : prepared and sent at once.
    """

    def __init__(
        self,
        transmitter: Transmitter,
        ring: SymbolRing,
        modulator: Modulator,
        random: LockedRandom,
        node: Node,
        n_slots: int,
    ) -> None:
        super().__init__(name="light", daemon=True)
        self._transmitter, self._ring, self._modulator, self._random = transmitter, ring, modulator, random
        self._node, self._n_slots = node, n_slots
        self._stop_asked = threading.Event()
        self.slots_sent = 0
        self.slots_dropped = 0

    def run(self) -> None:
        """Work until :meth:`stop` is called."""
        self._node.load.give_way("light")
        try:
            while not self._stop_asked.is_set():
                self._send_batch()
        except Exception as error:
            if not self._stop_asked.is_set():
                self._node.fail_from_thread(error)

    def _send_batch(self) -> None:
        n_slots = self._n_slots
        with self._node.load.stage("symbols"):
            symbols = self._transmitter.prepare(self.slots_sent, n_slots, self._random.read)
            if self._ring.full(n_slots):
                self._ring.release_before(self._ring.from_slot + n_slots)
                self.slots_dropped += n_slots
            self._ring.append(symbols)
        with self._node.load.stage("modulator"):
            self._modulator.send(symbols)
        self.slots_sent += n_slots
        self._node.board.slots(n_slots)

    def stop(self) -> None:
        """Ask it to end after the present batch."""
        self._stop_asked.set()


async def run(config: Config, options: Options) -> None:
    """Run Alice until stopped; the fault that ends the link is raised."""
    async with Node.open(config, options) as node:
        link = open_link(config, node.store)
        node.defer(link.transport.close, on_loop=True)
        watched = open_random_source(config, partial(node.alarm_from_thread, "random source"))
        source: RandomSource = watched
        node.defer(source.close)
        modulator = open_device("modulator", config.devices["modulator"], config)
        node.defer(modulator.close)
        statements.require(config, modulator.info.simulated)
        statements.require_phase(config, modulator.info.simulated, getattr(modulator, "applies_phase", False))
        slow = SlowControl.open(config)
        node.defer(slow.close)
        recorder = node.recorder
        source, modulator = recorder.source(source), recorder.modulator(modulator)
        random = LockedRandom(source)
        planes = 2 if config.link.intensities else 0
        ring = SymbolRing(
            config.blocks.symbol_buffer_slots,
            intensity_planes=planes,
            unsent_from=lambda: modulator.unsent_from_slot,
        )
        node.defer(ring.wipe)
        transmitter = Transmitter(
            config.link.p_z_numerator,
            config.link.protocol,
            phase_bits(config, modulator),
            config.link.p_intensities,
            scarce=config.transmitter.random_bits == "scarce",
        )
        node.defer(transmitter.wipe)

        def refill_bytes() -> int:
            return -(-link.pool.missing_bits // 8 // REFILL_STEP_BYTES) * 2 * REFILL_STEP_BYTES

        simulated = source.info.simulated or modulator.info.simulated or slow.simulated
        drawn = source.info.as_randomness()
        who = identity(config, simulated, {"symbols": drawn, "seeds": drawn})
        recorder.begin(who, link.instance, source.info, modulator.info)
        session = recorder.session(
            AliceSession(
                config,
                who,
                recorder.store(node.durable),
                recorder.symbols(ring),
                recorder.random(random.read),
                recorder.answer("refill", refill_bytes),
                recorder.requests(node.accept_request),
            )
        )
        watch = power_watch(config, slow)
        light = Light(transmitter, ring, modulator, random, node, batch_slots(config.link.clock_rate_hz))

        def details() -> dict[str, object]:
            return {
                "slots_sent": light.slots_sent,
                "slots_dropped": light.slots_dropped,
                "random_bits_used": transmitter.random_bits_used,
                "power_w": watch.power_w if watch is not None else None,
                "random_source": f"{drawn.grade}: {drawn.source}; health tests on its {watched.tested}",
                "symbols_kept": ring.to_slot - ring.from_slot,
            }

        devices = identities({"random_source": source, "modulator": modulator} | slow.devices)
        node.connect_broker(link.instance, devices, slow.readings, slow.verbs())
        node.start(session, link.channel, link.transport, link.pool, details)
        if watch is not None:
            node.watch("power", watch.judge)
            node.before_close(watch.stop)
            watch.start()
        light.start()
        node.before_close(light.stop)
        await node.run()
