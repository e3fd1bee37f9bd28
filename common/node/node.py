"""What both daemons are made of: key store, status board, key delivery, signals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from common import statements
from common.config import Config
from common.errors import AuthenticationError, KeyStoreInUse, QkdError, StoreUnavailable
from common.keys import life
from common.keys.inventory import Inventory, KeysRefused
from common.node import alarms, credentials
from common.node.compute import warm_up
from common.node.etsi014 import KeyDelivery
from common.node.housekeeping import Housekeeping
from common.node.keystore import KeyStore, new_key_id, open_store
from common.node.load import Load
from common.node.mqtt import Broker
from common.node.patience import patient
from common.node.prompt import Prompt
from common.node.questions import Questions
from common.node.recorder import open_recorder
from common.node.refill import Refill
from common.node.runtime import ChannelPort, Lanes, Shell, TransportPort, now_ns, stop_event
from common.node.status import StatusBoard, tell_end, write_document
from common.node.telemetry import Command, Readings, silent_devices
from common.postprocessing.ldpc_codes import code_table
from common.protocol.block import BITS_PER_BYTE, BlockFacts
from common.protocol.session import Identity, LinkSession
from common.protocol.transitions import Role
from common.randomness import Uses
from common.units import block_name, ns_from_seconds

log = logging.getLogger("qkd.node")
STATUS_INTERVAL_S = 1.0
STOP_TIMEOUT_S = 3.0
REFILL_INTERVAL_S = 1.0
DEVICES_INTERVAL_S = 10.0
TAG_BITS = 128


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to a configuration."""

    max_blocks: int = 0
    on_block: Callable[[BlockFacts], None] | None = None


def identity(config: Config, simulated: bool, drawn: Uses) -> Identity:
    """What this end says in the handshake, and the key that it signs certificates with.

    Parameters
    ----------
    drawn : use -> source of the random numbers that this end draws; the start secret's comes from the configuration.

    Raises
    ------
    ConfigurationError
        With real devices, a source is of a weaker class than `security.randomness`.
    """
    uses = {**drawn, "start": statements.start_secret(config)}
    statements.require_randomness(config, simulated, uses)
    signer = credentials.read_certificate_key(config.path(config.keys.certificate_key_file))
    return Identity(Role(config.role), f"qkd-node {version('qkd-node')}", agreed(config), simulated, signer, uses)


def agreed(config: Config) -> dict[str, Any]:
    """What both ends must have alike, by name."""
    return {**config.agreed(), "code_tables": code_table().fingerprint()}


class Node:
    """One running node; made by :meth:`open`."""

    shell: Shell

    def __init__(self, config: Config, options: Options, store: KeyStore) -> None:
        self.config, self.options, self.store = config, options, store
        self.board = StatusBoard(config.role, config.link.name, config.link.clock_rate_hz)
        self.lanes = Lanes()
        self.load = Load()
        self._loop = asyncio.get_running_loop()
        self._deferred: list[tuple[Callable[[], Any], bool]] = []
        self._early: list[Callable[[], Any]] = []
        self._stop = stop_event()
        self._pool: Any = None
        self._channel: Any = None
        self._details: Callable[[], dict[str, object]] = dict
        self._broker: Broker | None = None
        self._status_path = config.path(config.status_file)
        self.recorder = open_recorder(config, self._recording_ended)
        self._held: str | None = None
        self._next_segment: Callable[[], int] | None = None
        self._housekeeping = Housekeeping(config, store)
        self._watches: dict[str, Callable[[], str | None]] = {
            "key store": self._housekeeping.full,
            "disk": lambda: store.unavailable or self._look.fault(f"the disk of {config.keys.database}"),
        }
        self._told: dict[str, Callable[[int], str | None]] = {
            "revocation": lambda now_ns: self.delivery.revocation.fault,
            "broker": lambda now_ns: None if self._broker is None else self._broker.fault,
            "devices": lambda now_ns: silent_devices(self._devices),
        }
        self._devices: Readings = {}
        self._look, self._write = Prompt(self._housekeeping.look), Prompt(self._publish)
        self._given_up = threading.Event()
        self.durable = patient(store, self._given_up)
        """The store of the session: what it must keep waits for a disk that is full."""
        self._met_peer = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: Config, options: Options) -> AsyncIterator[Node]:
        """Open the key store; close everything in reverse order whatever happens."""
        credentials.require_private(config)
        store = None
        try:
            store = await asyncio.to_thread(open_store, config)
            alarms.refuse_if_latched(store, config.role)
        except QkdError as error:
            if store is not None:
                store.close()
            if not isinstance(error, KeyStoreInUse):  # the status is the other process's
                tell_end(config, error)
            raise
        node = cls(config, options, store)
        try:
            yield node
        except Exception as error:
            node.board.end(error)
            raise
        finally:
            await node._close()

    def defer(self, close: Callable[[], Any], *, on_loop: bool = False) -> None:
        """Call ``close`` at the end, last come first served; in a thread (it may block) or on the event loop."""
        self._deferred.append((close, on_loop))

    def before_close(self, stop: Callable[[], Any]) -> None:
        """Call ``stop`` as soon as the node is asked to end."""
        self._early.append(stop)

    # -- called by threads and parts ----------------------------------------------------------------------------------

    def fail_from_thread(self, error: BaseException) -> None:
        """A worker thread ended with a fault: the node ends with it."""
        self._loop.call_soon_threadsafe(lambda: self.shell.fail(error))  # the shell may be made later

    def alarm_from_thread(self, name: str, text: str | None) -> None:
        """Raise (text) or clear (None) an alarm, told by any thread."""
        with contextlib.suppress(RuntimeError):  # the loop may be gone already
            self._loop.call_soon_threadsafe(self.board.alarm, name, text)

    def finish(self) -> None:
        """End in good order."""
        self._stop.set()

    def _recording_ended(self, reason: str) -> None:
        """The flight recorder gave up (told by any thread); the run goes on."""
        log.error("flight recorder: %s", reason)
        self.alarm_from_thread("recording", reason)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(
        self,
        session: LinkSession,
        channel: ChannelPort,
        transport: TransportPort,
        pool: Any,
        details: Callable[[], dict[str, object]],
    ) -> None:
        """Put the parts together; the pool gets the pads of all blocks that are safe to use."""
        self._session, self._channel, self._pool, self._details = session, channel, pool, details
        self.board.simulated = session.simulated or None
        for block_id, state, pads in self.store.pads():
            alice = self.config.role == "alice"
            if state == "committed" or (alice and state == "decided"):
                pool.add_segment(block_id, pads, sendable=state == "committed")
        # Alice answers in the store lane, which waits for a full disk; Bob asks again.
        self._refill = Refill(self.durable if self.config.role == "alice" else self.store, pool)
        self._refill.restore()
        self._transport = transport
        self.shell = Shell(
            session, channel, transport, pool, self.durable, self.lanes, self._on_block, self._on_ready, self.load
        )
        self.inventory, self._for_peer = self._key_manager(self.store), self._key_manager(self.durable)
        self.delivery = KeyDelivery(
            self.config,
            self.inventory,
            self._ask_peer,
            self._peer_is_up,
            self._pool_is_spent,
            lambda: self._met_peer,
            self._watches["disk"],
        )
        self._questions = Questions(session.request)

    def _key_manager(self, shelf: KeyStore) -> Inventory:
        """Over the store itself for our applications, who do not wait for a full disk; the peer's questions do."""
        etsi = self.config.etsi014
        return Inventory(
            shelf,
            alice=self.config.role == "alice",
            saes=etsi.saes,
            kme_id=etsi.kme_id,
            peer_kme_id=etsi.peer_kme_id,
            deliver_simulated=self.config.keys.deliver_simulated,
            new_id=new_key_id,
        )

    def refill_pool(self, next_segment: Callable[[], int]) -> None:
        """This end starts the refilling of the authentication pool with stored key; it names the segments."""
        self._next_segment = next_segment

    def connect_broker(
        self,
        session: int,
        devices: Sequence[Mapping[str, Any]],
        readings: Callable[[], Readings],
        verbs: Mapping[tuple[str, str], Command],
    ) -> None:
        """Read the slow devices; report to the configured MQTT broker, and take its commands for them."""
        self._readings = readings
        if self.config.mqtt.enabled:
            birth = {
                "software": f"qkd-node {version('qkd-node')}",
                "protocol": self.config.link.protocol,
                "configuration_sha256": self.config.digest().hex(),
                "devices": list(devices),
            }
            self._broker = Broker(self.config, session, birth, self.board.document, readings, verbs)

    async def run(self) -> None:
        """Serve until stopped, or until a fault ends the link (raised)."""
        self._transport.start()
        self._write_status()
        gc.freeze()  # what start-up made stays: looking through all of it again would hold every thread for 0.1 s
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
                if self.config.etsi014.enabled:
                    await stack.enter_async_context(self.delivery.serve())
                running = [tasks.create_task(self.shell.run()), tasks.create_task(self._report())]
                running.append(tasks.create_task(self._read_devices()))
                if self._broker is not None:
                    running.append(tasks.create_task(self._broker.run()))
                if self._next_segment is not None:
                    running.append(tasks.create_task(self._refill_pool(self._next_segment)))
                self._warm_up()
                await self._stopped(running[0])
                for stop in self._early:
                    stop()
                await self._say_goodbye()
                for task in running:
                    task.cancel()
        except* QkdError as group:
            error = _first(group)
            if isinstance(error, AuthenticationError):
                self.board.alarm(alarms.NAME, str(error))
            raise error from None
        self.shell.give_back_pads()

    def _warm_up(self) -> None:
        """In the lane of the first block that needs it; a fault ends the node."""

        def done(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                self.shell.fail(error)

        self._loop.run_in_executor(self.lanes["block"], warm_up).add_done_callback(done)

    async def _stopped(self, running: asyncio.Task[None]) -> None:
        waiting = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def _say_goodbye(self) -> None:
        self.board.state = "stopping"
        self.shell.act(self._session.stop)
        await self.shell.drain(STOP_TIMEOUT_S)

    async def _close(self) -> None:
        for close in self._early:
            close()
        for close, on_loop in reversed(self._deferred):
            try:
                close() if on_loop else await asyncio.to_thread(close)
            except Exception:
                log.exception("while closing")
        self._given_up.set()  # what still waits for room is as after a power cut: the next handshake settles it
        await asyncio.to_thread(self.lanes.close)
        await asyncio.to_thread(self.recorder.close)
        self.board.state = "stopped"
        self._look.close()
        self._write.close()
        self._write_status()
        self.store.close()

    # -- events -------------------------------------------------------------------------------------------------------

    def _on_ready(self) -> None:
        log.info("handshake agreed")
        self._met_peer = True
        self.shell.peer_stopped.clear()
        self.shell.act(self._questions.ask_again)
        self.board.simulated = self._session.simulated
        if self.board.state == "starting":  # Bob's receiver says more than this
            self.board.state = "running"
        self.board.ready()

    def _on_block(self, facts: BlockFacts) -> None:
        self.board.block(facts)
        name = block_name(facts.block_id)
        if facts.state in ("committed", "decided"):
            log.info("block %s: %d secret bits, QBER %.2f %%", name, facts.secret_bits, 100 * facts.qber)
        else:
            log.warning("block %s produced no key: %s", name, facts.reason)
        if self.options.on_block is not None:
            self._raise_or_clear("output", self._tell(self.options.on_block, facts))
        if self.options.max_blocks and self.board.blocks_committed >= self.options.max_blocks:
            self._stop.set()

    def _tell(self, on_block: Callable[[BlockFacts], None], facts: BlockFacts) -> str | None:
        """Tell who started this node of a block; why that failed (a full disk, a closed pipe), which ends nothing."""
        try:
            on_block(facts)
        except OSError as error:
            return f"blocks cannot be printed: {error.strerror}"
        return None

    def accept_request(self, payload: bytes) -> bytes:
        """The peer's key manager asks (runs in the store lane)."""
        answered = self._refill.accept(payload)
        if answered is None:
            return self._for_peer.accept_from_peer(payload)
        answer, segment = answered
        if segment is not None:
            self._loop.call_soon_threadsafe(self._refill.add, segment)
        return answer

    async def _refill_pool(self, next_segment: Callable[[], int]) -> None:
        """Bob: when the authentication pool is low and no block brings key, it is refilled with stored key."""
        while True:
            await asyncio.sleep(REFILL_INTERVAL_S)
            if self._peer_is_up():
                with contextlib.suppress(KeysRefused, StoreUnavailable):  # later, for the same bytes if it has asked
                    await self._refill_once(next_segment)

    async def _refill_once(self, next_segment: Callable[[], int]) -> None:
        refill = self._refill
        async with self.delivery.cutting:  # the peer destroys what a question skips: they leave in the order of cutting
            await self.delivery.make_whole()
            one = await asyncio.to_thread(refill.unanswered)
            if one is None and (wanted := refill.wanted_bytes()):
                one = await asyncio.to_thread(refill.cut, next_segment(), wanted)
            if one is None:
                return
            refill.add(one)
            asked = asyncio.ensure_future(self._ask_peer(one.question()))
            await asyncio.sleep(0)
        settled = await asyncio.to_thread(refill.settle, one, await asked)
        refill.conclude(one, settled)
        if settled is not None:
            log.info("%d bits of stored key refill the authentication pool", BITS_PER_BYTE * len(one.pads))

    async def _ask_peer(self, payload: bytes) -> bytes:
        """The answer of the peer's key manager, whenever it comes."""
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def answered(reply: bytes) -> None:
            if not answer.done():
                answer.set_result(reply)

        self.shell.act(lambda: self._questions.ask(payload, answered))
        return await answer

    def _peer_is_up(self) -> bool:
        """The handshake is made, and the peer was heard of late and has not said goodbye."""
        return self._session.ready and not self.shell.peer_stopped.is_set() and not self._peer_is_silent()

    def _pool_is_spent(self) -> bool:
        """What is left of the authentication key is for blocks and handshakes."""
        return bool(self._pool.at_floor)

    def _pool_fault(self) -> str | None:
        if not self._pool.low:
            return None
        wanted, left = self.config.keys.auth_pool_target_bits, self._pool.least_bits
        meanwhile = ", applications get no keys meanwhile" if self._pool.at_floor else ""
        return (
            f"{left // TAG_BITS} tags are left in one direction and {wanted // TAG_BITS} are wanted{meanwhile}:"
            " requests and restarts used them and no block brought new ones; mend what keeps blocks from producing key"
        )

    def _peer_is_silent(self) -> bool:
        heard = self._channel.last_heard_ns
        return heard is not None and now_ns() - heard > ns_from_seconds(self.config.channel.peer_timeout_s)

    def watch(self, name: str, judge: Callable[[], str | None]) -> None:
        """Ask ``judge`` once a second why no block may produce key now; its answer is an alarm."""
        self._watches[name] = judge

    def tell(self, name: str, look: Callable[[int], str | None]) -> None:
        """Ask ``look`` once a second what an operator should know; its answer is an alarm, and blocks go on."""
        self._told[name] = look

    def _judge(self) -> None:
        """Tell the session and the operator what keeps blocks from producing key."""
        reasons = {name: reason for name, judge in self._watches.items() if (reason := judge()) is not None}
        for name in self._watches:
            self.board.alarm(name, f"{reasons[name]}; no block produces key meanwhile" if name in reasons else None)
        held = "; ".join(reasons.values()) or None
        if held != self._held:
            self._held = held
            self.shell.act(lambda: self._session.hold(held, now_ns()))

    async def _report(self) -> None:
        begun_ns = now_ns()
        while True:
            for name, fault in (await self._look.ask() or {}).items():
                self._raise_or_clear(name, fault)
            self._judge()
            heard, silent = self._channel.last_heard_ns, self._peer_is_silent()
            if heard is not None:
                self.board.peer = "down" if silent else "up"
                self.board.alarm("peer", "silent: the classical channel or the peer is down" if silent else None)
            self._raise_or_clear("strangers", self._channel.notice(now_ns()))
            quiet_ns = now_ns() - (begun_ns if heard is None else heard)
            lonely = quiet_ns > ns_from_seconds(self.config.channel.peer_timeout_s)
            self._raise_or_clear("channel", self._transport.fault(silent=lonely))
            self._raise_or_clear("authentication pool", self._pool_fault())
            for name, look in self._told.items():
                self._raise_or_clear(name, look(now_ns()))
            fault = await self._write.ask(self._status())
            self._raise_or_clear("status file", self._write.fault("the disk") or fault)
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def _read_devices(self) -> None:
        while True:
            self._devices = await asyncio.to_thread(self._readings)
            await asyncio.sleep(DEVICES_INTERVAL_S)

    def _raise_or_clear(self, name: str, fault: str | None) -> None:
        """An alarm that lasts as long as its fault; its beginning is logged."""
        if fault is not None and name not in self.board.alarms:
            log.error("%s: %s", name, fault)
        self.board.alarm(name, fault)

    def _status(self) -> dict[str, Any]:
        if self._pool is not None:
            self.board.auth_pool_bits = self._pool.bits_left
            self.board.auth_bits_spent = TAG_BITS * self._channel.tags_sent
            self._look_at_life()
            self.board.details = self._details() | self.recorder.status()
            self.recorder.note("status", self.board.details)
            self.board.channel = {**asdict(self._transport.wire), "packets_ignored": self._channel.ignored}
            self.board.applications = self.delivery.connections
            self.board.load = {**self.load.document(), "channel_backlog_bytes": self._channel.backlog_bytes}
        self.board.pool_bits = self.store.available_bits()
        return self.board.document()

    def _publish(self, document: dict[str, Any]) -> str | None:
        """Write the status file; why it could not be written, which is no reason to end."""
        try:
            write_document(document, self._status_path)
        except (OSError, QkdError) as error:
            return str(error)
        return None

    def _look_at_life(self) -> None:
        """An alarm while the link has spent more than it was to spend in its whole life."""
        self.board.life = life.together(self.store.blocks_spent, self.shell.tags())
        spent, most = self.board.life.eps_life, self.config.security.eps_life_max
        text = f"the link has spent {spent:.2g} since its start secret; security.eps_life_max is {most:.2g}"
        self.board.alarm("eps_life", text if spent > most else None)

    def _write_status(self) -> None:
        try:
            document = self._status()
        except QkdError as error:  # the store may be what ended the node: it is closed all the same
            log.error("status file: %s", error)
            return
        self._raise_or_clear("status file", self._publish(document))


def _first(group: BaseExceptionGroup[QkdError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
