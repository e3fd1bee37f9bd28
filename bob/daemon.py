"""Bob's daemon: time tagger -> receiver in one thread, the session on the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial

from bob.lookout import Lookout
from bob.phases import ReceiverEvent
from bob.polarisation import Feedback
from bob.receiver import Receiver
from bob.session import BobSession
from bob.steering import Counts, Steering
from classical_channel.link import open_link
from common import statements
from common.config import Config
from common.datatypes import Detections
from common.errors import ConfigurationError
from common.node.node import Node, Options, identity
from common.node.runtime import now_ns
from common.units import PS_PER_S
from hardware.interfaces import PolarisationController, TimeTagger
from hardware.randomness import Ahead, LockedRandom, open_random_source
from hardware.registry import open_device
from hardware.slow_control import SlowControl, identities

log = logging.getLogger("qkd.bob")
READ_TIMEOUT_S = 0.2
MAX_BACKLOG_BLOCKS = 3
MAX_BACKLOG_CHUNKS = 24
LEAD, MOST_WAITING_BITS = 0.2, 1 << 21
"""How far a block may be filled by a tagger that can wait while this many bits of those before have no result,"""
LEAST_LEAD_DETECTIONS = 5_000_000
"""and by how many detections in any case: a small block that stands still for every other leaves cores idle, and where
other programs keep them busy, only the decoder, which gives way to all, goes on."""
MOST_LATE_BITS = 1 << 22
"""Of blocks that should have been corrected while the last one filled: beyond, a real tagger begins no other."""
MOST_BATCHES, LOOP_POLL_S = 64, 0.01
"""Batches that the event loop has not taken: beyond, it stands still; a real tagger then tells of the loss."""
REMEMBERED = {
    "recovery": "a detector is still blind {gap_ns} ns after its click, beyond the dead time",
    "afterpulses": "a detector clicks again by itself {gap_ns} ns after its click, beyond the dead time",
}
"""What the slots alone would tell of the bits, by the receiver's event."""
MOST_DETECTIONS = 1 << 24
"""Announced detections without an answer, 10 bytes each: above, the open block of a real tagger is dropped."""


NONCES_AHEAD_BYTES = 1 << 13
"""Of the session on the event loop, which must not wait for a random source: 512 announcements."""


class Clicks(threading.Thread):
    """Reads the tagger, turns tags into detections and hands them to the session.

    A block is corrected while the next one fills. A tagger that can wait (a twin, a recording) is kept waiting once it
    is some way into that next block: then every core corrects. A real one is read on: the block that fills is finished
    in any case, but no other begins before the one before it is corrected, so whole blocks are dropped, at their edges.
    Only where the announcements themselves pile up is a block given up in the middle.
    """

    def __init__(
        self,
        tagger: TimeTagger,
        receiver: Receiver,
        node: Node,
        session: BobSession,
        config: Config,
    ) -> None:
        super().__init__(name="clicks", daemon=True)
        self.steering: Steering | None = None
        self._turned = threading.Event()
        self._until_ps: int | None = None
        self._tagger, self._receiver, self._node, self._session = tagger, receiver, node, session
        self._loop = asyncio.get_running_loop()
        self._stop_asked = threading.Event()
        self._room = threading.Event()
        self._posted = self._taken = 0
        self._can_wait = bool(getattr(tagger, "can_wait", tagger.info.simulated))
        self.lookout = Lookout(can_wait=self._can_wait, now_ns=now_ns())
        self._max_backlog = MAX_BACKLOG_CHUNKS * config.blocks.chunk_detections
        self._clock_rate_hz = config.link.clock_rate_hz
        self._lead = max(LEAD * config.blocks.block_size_detections, LEAST_LEAD_DETECTIONS)
        self._last_slot = 0
        self._shedding = False
        self.blocks_shed = 0
        self.batches_dropped = 0
        self.overflows = 0

    def run(self) -> None:
        """Until :meth:`stop` or the end of the recording."""
        self._node.load.give_way("light")
        try:
            while not self._stop_asked.is_set():
                with self._node.load.stage("tagger"):
                    tags = self._tagger.read(READ_TIMEOUT_S)
                if tags is None:
                    self._loop.call_soon_threadsafe(self._node.finish)
                    return
                self.overflows += tags.overflow
                reference = getattr(self._tagger, "reference_locked", None)
                self.lookout.saw(self._receiver.state, tags.overflow, reference, tags.until_ps, now_ns())
                if self._turned.is_set():
                    self._turned.clear()
                    self._receiver.search_anew()
                with self._node.load.stage("receiver"):
                    detections = self._receiver.feed(tags)
                self._posted += 1
                self._room.clear()
                events, preambles = self._receiver.take_events(), self._receiver.take_preamble_counts()
                self._loop.call_soon_threadsafe(self._handed_over, detections, events, tags.until_ps, preambles)
                while self._can_wait and not self._stop_asked.is_set() and not self._room.wait(READ_TIMEOUT_S):
                    pass
                while self._posted - self._taken > MOST_BATCHES and not self._stop_asked.wait(LOOP_POLL_S):
                    pass
        except Exception as error:
            if not self._stop_asked.is_set():
                self._node.fail_from_thread(error)

    def stop(self) -> None:
        """Ask it to end after the present batch."""
        self._stop_asked.set()

    def turned(self) -> None:
        """The light's polarisation was turned on purpose."""
        self._turned.set()

    # -- on the event loop --------------------------------------------------------------------------------------------

    def _handed_over(
        self, batches: list[Detections], events: list[ReceiverEvent], until_ps: int, preambles: Counts
    ) -> None:
        self._arrived(batches, events)
        self._steer(until_ps, preambles)

    def _arrived(self, batches: list[Detections], events: list[ReceiverEvent]) -> None:
        self._node.board.state = self._receiver.state
        shedding = not self._can_wait and self._sheds()
        if shedding:
            self.batches_dropped += 1
            self.blocks_shed += not self._shedding
            self._node.shell.act(lambda: self._session.void_filling("dropped: post-processing is behind", now_ns()))
        else:
            for batch in batches:
                self._take(batch)
        for event in events:  # after the detections that came before them, which they make void
            self._on_event(event)
        self._shedding = shedding
        self._taken += 1
        self.look_for_room()

    def _steer(self, until_ps: int, preambles: Counts) -> None:
        """Show the polarisation feedback what is public; without a lock, only how long it has been."""
        before, self._until_ps = self._until_ps, until_ps
        checks = self._session.take_check_counts()
        if self.steering is None:
            return
        if self._receiver.state == "locked":
            self.steering.counts(preambles, checks, self._last_slot)
        elif before is not None:
            self.steering.dark(max(until_ps - before, 0) / PS_PER_S)

    def _take(self, batch: Detections) -> None:
        if batch.from_slot < self._last_slot:
            self._node.shell.act(lambda: self._session.void_filling("the slot numbers went back", now_ns()))
        elif self._last_slot:
            self._node.board.slots(batch.to_slot - self._last_slot)
        else:
            self._node.board.start_counting()
        self._last_slot = batch.to_slot
        self._node.shell.act(lambda: self._session.on_detections(batch, now_ns()))

    def _on_event(self, event: ReceiverEvent) -> None:
        if event.kind == "locked" and self.steering is not None:
            self.steering.restarted(event.from_slot)
        if event.kind == "regular":
            self._node.board.alarm("dead time", None)
        elif event.kind in REMEMBERED:
            gap_ns = round(event.gap_slots / self._clock_rate_hz * 1e9)
            reason = REMEMBERED[event.kind].format(gap_ns=gap_ns)
            if "dead time" not in self._node.board.alarms:
                log.error("%s", reason)
            self._node.board.alarm("dead time", f"{reason}: longer receiver.dead_time_ps (`qkd doctor --hardware`)")
            self._void(event, reason)
        elif event.kind in ("slip", "overflow"):
            self._void(event, f"{event.kind} of the time tags in slots {event.from_slot}..{event.to_slot}")

    def _void(self, event: ReceiverEvent, reason: str) -> None:
        self._node.shell.act(lambda: self._session.void(event.from_slot, event.to_slot, reason, now_ns()))

    def _sheds(self) -> bool:
        begun = self._session.filling_detections > 0
        return self._session.backlog_detections > MOST_DETECTIONS if begun else self._behind()

    def _behind(self) -> bool:
        session = self._session
        return (
            session.backlog_blocks > MAX_BACKLOG_BLOCKS
            or session.backlog_detections > self._max_backlog
            or (self._too_far_ahead() if self._can_wait else session.late_bits > MOST_LATE_BITS)
        )

    def _too_far_ahead(self) -> bool:
        session = self._session
        waiting = session.backlog_bits if session.filling_detections > self._lead else session.late_bits
        return waiting > MOST_WAITING_BITS

    def look_for_room(self) -> None:
        """Let a tagger that waits go on; called after every step of the session."""
        if self._taken >= self._posted and not (self._room.is_set() or self._behind()):
            self._room.set()


def require_controller(config: Config) -> None:
    """Refuse a polarisation feedback without anything to turn."""
    if config.polarisation.feedback and "polarisation_controller" not in config.devices:
        raise ConfigurationError(
            "polarisation.feedback needs a controller",
            remedy="Name it in [devices.polarisation_controller], or switch the feedback off.",
        )


def make_steering(
    config: Config, node: Node, controller: PolarisationController | None, moved: Callable[[], None]
) -> Steering | None:
    """The polarisation feedback, if it is wanted and there is a controller."""
    wanted = config.polarisation
    if not wanted.feedback:
        return None
    require_controller(config)
    assert controller is not None
    feedback = Feedback(controller.n_axes, wanted.enough_clicks, wanted.patience_s)
    return Steering(feedback, controller, node.board.alarm, moved)


async def run(config: Config, options: Options) -> None:
    """Run Bob until stopped; the fault that ends the link is raised."""
    async with Node.open(config, options) as node:
        link = open_link(config, node.store)
        node.defer(link.transport.close, on_loop=True)
        tagger = open_device("time_tagger", config.devices["time_tagger"], config)
        node.defer(tagger.close)
        statements.require(config, tagger.info.simulated)
        slow = SlowControl.open(config)
        node.defer(slow.close)
        source = open_random_source(config, partial(node.alarm_from_thread, "random source"))
        node.defer(source.close)
        random, drawn = LockedRandom(source), source.info.as_randomness()
        simulated = tagger.info.simulated or slow.simulated or source.info.simulated
        recorder, who = node.recorder, identity(config, simulated, {"coins": drawn})
        recorder.begin(who, link.instance, tagger.info)
        accept_request = recorder.requests(node.accept_request)
        ahead = Ahead(random.read, node.fail_from_thread, NONCES_AHEAD_BYTES)
        node.before_close(ahead.close)
        nonces = recorder.random(ahead.take)
        session = recorder.session(
            BobSession(config, who, recorder.store(node.durable), link.instance, nonces, accept_request)
        )
        receiver = recorder.receiver(Receiver.configured(config, recorder.coins(random.bits)))

        def details() -> dict[str, object]:
            status = receiver.status()
            return {
                "frequency_offset_ppm": status.frequency_offset_ppm,
                "sigma_slots": status.sigma_slots,
                "last_verified_epoch": status.last_verified_epoch,
                "acquisitions": status.acquisitions,
                "slips": status.slips,
                "segments_dropped": status.selection.segments_dropped,
                "detections_dropped": status.selection.detections_dropped,
                "blocks_shed": clicks.blocks_shed,
                "batches_dropped": clicks.batches_dropped,
                "backlog_blocks": session.backlog_blocks,
                "backlog_detections": session.backlog_detections,
                "polarisation": "off" if clicks.steering is None else clicks.steering.state,
                "backlog_bits": session.backlog_bits,
                "overflows": clicks.overflows,
                "random_source": f"{drawn.grade}: {drawn.source}; health tests on its {source.tested}",
                **getattr(tagger, "counters", {}),
            }

        clicks = Clicks(tagger, receiver, node, session, config)
        for name, judge in (
            ("light", clicks.lookout.light),
            ("tagger", clicks.lookout.tagger),
            ("reference", clicks.lookout.reference),
        ):
            node.tell(name, judge)
        clicks.steering = make_steering(config, node, slow.devices.get("polarisation_controller"), clicks.turned)
        devices = identities({"time_tagger": tagger} | slow.devices)
        node.connect_broker(link.instance, devices, slow.readings, slow.verbs())
        node.start(session, link.channel, link.transport, link.pool, details)
        node.refill_pool(session.next_segment)
        node.shell.after_effects.append(clicks.look_for_room)
        clicks.start()
        node.before_close(clicks.stop)
        await node.run()
