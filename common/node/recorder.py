"""The flight recorder: what a run saw, taken down where it enters the sans-I/O parts.

A session is a function of what it is told (messages, detections, finished jobs, requests) and of what it asks for
(random bytes, symbols, the store). Both are recorded in the order in which they happened, beside every message that it
sent: `replay.py` can therefore run the session again, on another day or build, and compare. For Bob the time tags are
recorded, and the detections are made from them again.

The daemons wrap their parts; a recorder that is switched off hands every part back as it is.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import platform
import threading
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.datatypes import Detections, TimeTags
from common.errors import RemoteProtocolError
from common.keybits import KeyBits
from common.node.flight import SUFFIX, FlightWriter, Record, read_key_file
from common.protocol.effects import Effect, Run, Send
from common.protocol.messages import Message
from common.protocol.session import Identity
from common.randomness import documents

log = logging.getLogger("qkd.node")
Part = TypeVar("Part")
ReadBytes = Callable[[int], NDArray[np.uint8]]
PACKAGES = ("numpy", "numba", "scipy", "cryptography")


class Recorder:
    """Switched off: every part is handed back as it is. :class:`FlightRecorder` records."""

    path: Path | None = None

    def begin(self, who: Identity, instance: int, *devices: Any) -> None:
        """What the run is made of: identity, start counter, the ``info`` of every device."""

    def note(self, kind: str, facts: dict[str, Any]) -> None:
        """Something worth knowing that no replay needs."""

    def session(self, session: Part) -> Part:
        """The session, its events and messages taken down."""
        return session

    def store(self, store: Part) -> Part:
        """The store, its answers taken down (of keys only a digest)."""
        return store

    def symbols(self, symbols: Part) -> Part:
        """Alice's memory of symbols, what is looked up taken down."""
        return symbols

    def random(self, read: ReadBytes) -> ReadBytes:
        """The session's random bytes."""
        return read

    def answer(self, name: str, ask: Callable[[], int]) -> Callable[[], int]:
        """A number that the session asks for."""
        return ask

    def requests(self, accept: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """The key manager's answers to the peer."""
        return accept

    def receiver(self, receiver: Part) -> Part:
        """Bob's receiver, its time tags taken down."""
        return receiver

    def coins(self, read: ReadBytes) -> ReadBytes:
        """The receiver's random bits."""
        return read

    def light(self, device: Part) -> Part:
        """A random source or modulator; taken down where the configuration wants all of Alice's light."""
        return device

    def status(self) -> dict[str, Any]:
        """For the status file."""
        return {}

    def close(self) -> None:
        """Finish the recording; may be called twice."""


def open_recorder(config: Config, ended_early: Callable[[str], None]) -> Recorder:
    """The recorder that the configuration asks for: a new file a run, all of them within ``record.max_bytes``."""
    if not config.record.enabled:
        return Recorder()
    key = read_key_file(config.path(config.record.key_file), make=True)
    folder = config.path(config.record.directory)
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{config.role}"
    paths = (folder / f"{stem}{more}{SUFFIX}" for more in itertools.chain([""], map("-{}".format, itertools.count(2))))
    try:
        path = next(path for path in paths if not path.exists())
        writer = FlightWriter(path, key, config.record.max_bytes - recorded_bytes(folder), ended_early)
    except OSError as error:
        ended_early(f"nothing is recorded: {folder}: {error.strerror}; the run goes on")
        return Recorder()
    return FlightRecorder(config, writer, path)


def recorded_bytes(folder: Path) -> int:
    """What the recordings in a folder hold together."""
    return sum(path.stat().st_size for path in folder.glob("*" + SUFFIX)) if folder.is_dir() else 0


class FlightRecorder(Recorder):
    """Takes down one run.

    Parameters
    ----------
    config : the run's; everything that a replay needs of it is in the recording.
    writer, path : the file.
    """

    def __init__(self, config: Config, writer: FlightWriter, path: Path) -> None:
        self._writer, self._config, self.path = writer, config, path
        self._jobs = itertools.count(1)
        self._now = threading.local()
        self._produced: deque[tuple[int, Detections]] = deque()

    # -- called by the parts ------------------------------------------------------------------------------------------

    def put(self, kind: str, raw: bytes = b"", **facts: Any) -> None:
        """Take down one record."""
        self._writer.put(Record(kind, facts, raw))

    def take(self, what: str, raw: bytes = b"", **facts: Any) -> None:
        """Take down an answer, with the job that asked (0: the event loop)."""
        self.put("answer", raw, what=what, job=getattr(self._now, "job", 0), **facts)

    def job(self, run: Run, then: Callable[[int, Any], list[Effect]]) -> Run:
        """The same job with a number."""
        number = next(self._jobs)

        def work() -> Any:
            self._now.job = number
            try:
                return run.work()
            except Exception as error:
                self.put("job failed", job=number, error=type(error).__name__)
                raise
            finally:
                self._now.job = 0

        return Run(run.lane, work, lambda result: then(number, result))

    def produced(self, number: int, batch: Detections) -> None:
        """The receiver made a batch."""
        self._produced.append((number, batch))

    def number_of(self, batch: Detections) -> int:
        """Which of the receiver's batches this is; those before it were shed."""
        while self._produced:
            number, made = self._produced.popleft()
            if made is batch:
                return number
        return 0

    # -- what the daemons call ----------------------------------------------------------------------------------------

    def begin(self, who: Identity, instance: int, *devices: Any) -> None:
        """The first record."""
        log.warning("flight recorder: %s; with its key file it gives the keys of this run", self.path)
        self.put(
            "begin",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            software=version("qkd-node"),
            python=platform.python_version(),
            packages={name: version(name) for name in PACKAGES},
            config=self._config.model_dump(mode="json", exclude={"base_dir"}),
            identity={
                "software": who.software,
                "simulated": who.simulated,
                "randomness": documents(who.randomness),
            },
            instance=instance,
            devices=[asdict(info) for info in devices],
        )

    def note(self, kind: str, facts: dict[str, Any]) -> None:
        """As told."""
        self.put("note", what=kind, facts=facts)

    def session(self, session: Part) -> Part:
        """See :class:`Recorder`."""
        return cast(Part, RecordedSession(session, self))

    def store(self, store: Part) -> Part:
        """See :class:`Recorder`."""
        return cast(Part, RecordedStore(store, self))

    def symbols(self, symbols: Part) -> Part:
        """See :class:`Recorder`."""
        return cast(Part, RecordedSymbols(symbols, self))

    def random(self, read: ReadBytes) -> ReadBytes:
        """See :class:`Recorder`."""

        def recorded(n_bytes: int) -> NDArray[np.uint8]:
            drawn = read(n_bytes)
            self.take("random", drawn.tobytes())
            return drawn

        return recorded

    def answer(self, name: str, ask: Callable[[], int]) -> Callable[[], int]:
        """See :class:`Recorder`."""

        def recorded() -> int:
            value = ask()
            self.take(name, value=value)
            return value

        return recorded

    def requests(self, accept: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """See :class:`Recorder`."""

        def recorded(payload: bytes) -> bytes:
            reply = accept(payload)
            self.take("reply", reply)
            return reply

        return recorded

    def receiver(self, receiver: Part) -> Part:
        """See :class:`Recorder`."""
        return cast(Part, RecordedReceiver(receiver, self))

    def coins(self, read: ReadBytes) -> ReadBytes:
        """See :class:`Recorder`."""

        def recorded(n: int) -> NDArray[np.uint8]:
            drawn = read(n)
            self.put("coins", drawn.tobytes())
            return drawn

        return recorded

    def light(self, device: Part) -> Part:
        """See :class:`Recorder`."""
        return cast(Part, RecordedLight(device, self)) if self._config.record.light else device

    def status(self) -> dict[str, Any]:
        """For the status file."""
        return {"recording": self._writer.recording, "recording_bytes": self._writer.bytes_written}

    def close(self) -> None:
        """Finish the recording."""
        self._writer.close()


class _Proxy:
    """Everything that is not taken down goes straight to the part."""

    def __init__(self, part: Any, recorder: FlightRecorder) -> None:
        self._part, self._recorder = part, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


class RecordedSession(_Proxy):
    """A session whose events, and the messages that follow from each, are taken down."""

    def opened(self, now_ns: int) -> list[Effect]:
        """See the session."""
        return self._event("opened", b"", {"now_ns": now_ns}, lambda: self._part.opened(now_ns))

    def handle(self, message: Message, sealed: bool, now_ns: int) -> list[Effect]:
        """See the session."""
        facts = {"now_ns": now_ns, "sealed": sealed}
        return self._event("message", message.encode(), facts, lambda: self._part.handle(message, sealed, now_ns))

    def request(self, payload: bytes, then: Callable[[bytes | None], list[Effect]]) -> list[Effect]:
        """See the session."""
        return self._event("request", payload, {}, lambda: self._part.request(payload, then))

    def next_segment(self) -> int:
        """See Bob's session."""
        numbers: list[int] = []

        def call() -> list[Effect]:
            numbers.append(self._part.next_segment())
            return []

        self._event("segment", b"", {}, call)
        return numbers[0]

    def stop(self) -> list[Effect]:
        """See the session."""
        return self._event("stop", b"", {}, self._part.stop)

    def on_detections(self, detections: Detections, now_ns: int) -> list[Effect]:
        """See Bob's session."""
        facts = {"now_ns": now_ns, "batch": self._recorder.number_of(detections), **fingerprint(detections)}
        return self._event("detections", b"", facts, lambda: self._part.on_detections(detections, now_ns))

    def void_filling(self, reason: str, now_ns: int) -> list[Effect]:
        """See Bob's session."""
        facts = {"now_ns": now_ns, "reason": reason}
        return self._event("void filling", b"", facts, lambda: self._part.void_filling(reason, now_ns))

    def void(self, from_slot: int, to_slot: int, reason: str, now_ns: int) -> list[Effect]:
        """See Bob's session."""
        facts = {"now_ns": now_ns, "from_slot": from_slot, "to_slot": to_slot, "reason": reason}
        return self._event("void", b"", facts, lambda: self._part.void(from_slot, to_slot, reason, now_ns))

    def hold(self, reason: str | None, now_ns: int) -> list[Effect]:
        """See the session."""
        facts = {"now_ns": now_ns, "reason": reason}
        return self._event("hold", b"", facts, lambda: self._part.hold(reason, now_ns))

    def _event(self, kind: str, raw: bytes, facts: dict[str, Any], call: Callable[[], list[Effect]]) -> list[Effect]:
        self._recorder.put(kind, raw, **facts)
        try:
            effects = call()
        except Exception as error:
            self._recorder.put("fault", error=type(error).__name__)
            raise
        return [self._out(effect) for effect in effects]

    def _out(self, effect: Effect) -> Effect:
        if isinstance(effect, Send):
            self._recorder.put("sent", effect.message.encode())
        elif isinstance(effect, Run):
            run = effect
            return self._recorder.job(
                run,
                lambda number, result: self._event("job", b"", {"job": number}, lambda: run.then(result)),
            )
        return effect


class RecordedStore(_Proxy):
    """A store whose answers are taken down; of a key only the SHA-256 digest."""

    def unresolved(self) -> list[tuple[int, str]]:
        """See the store."""
        found: list[tuple[int, str]] = self._part.unresolved()
        self._recorder.take("unresolved", value=found)
        return found

    def newest_block(self) -> int:
        """See the store."""
        newest: int = self._part.newest_block()
        self._recorder.take("newest_block", value=newest)
        return newest

    def state_of(self, block_id: int) -> str | None:
        """See the store."""
        state: str | None = self._part.state_of(block_id)
        self._recorder.take("state_of", value=state)
        return state

    def get_setting(self, name: str) -> bytes | None:
        """See the store."""
        value: bytes | None = self._part.get_setting(name)
        self._recorder.take("setting", value or b"", there=value is not None)
        return value

    def certificate_of(self, block_id: int) -> str:
        """See the store."""
        certificate: str = self._part.certificate_of(block_id)
        self._recorder.take("certificate", certificate.encode())
        return certificate

    def is_authenticated(self, block_id: int) -> bool:
        """See the store."""
        marked: bool = self._part.is_authenticated(block_id)
        self._recorder.take("authenticated", value=marked)
        return marked

    def store_pending(
        self, block_id: int, key: KeyBits, record: str, simulated: bool, *, authenticated: bool
    ) -> None:
        """See the store."""
        self._recorder.take("key", hashlib.sha256(key.view().tobytes()).digest(), block_id=block_id, n_bits=len(key))
        self._part.store_pending(block_id, key, record, simulated, authenticated=authenticated)

    def put_setting(self, name: str, value: bytes) -> None:
        """See the store: the part of a key that refills the authentication pool."""
        self._recorder.take("pads", hashlib.sha256(value).digest(), name=name)
        self._part.put_setting(name, value)


class RecordedSymbols(_Proxy):
    """Alice's symbols; those that are looked up are taken down."""

    def lookup(self, slots: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """See :class:`alice.session.Symbols`."""
        try:
            found: tuple[Any, Any, Any] = self._part.lookup(slots)
        except RemoteProtocolError as error:
            self._recorder.take("symbols", error=str(error))
            raise
        self._recorder.take("symbols", b"".join(plane.tobytes() for plane in found))
        return found


class RecordedReceiver(_Proxy):
    """Bob's receiver; the tags that it is fed are taken down, and its batches are counted."""

    def __init__(self, part: Any, recorder: FlightRecorder) -> None:
        super().__init__(part, recorder)
        self._batches = itertools.count(1)

    def feed(self, tags: TimeTags) -> list[Detections]:
        """See :class:`bob.receiver.Receiver`."""
        raw = tags.times_ps.astype("<i8", copy=False).tobytes() + tags.channels.tobytes()
        self._recorder.put("tags", raw, n=len(tags), until_ps=int(tags.until_ps), overflow=bool(tags.overflow))
        made: list[Detections] = self._part.feed(tags)
        for batch in made:
            self._recorder.produced(next(self._batches), batch)
        return made

    def search_anew(self) -> None:
        """See :class:`bob.receiver.Receiver`."""
        self._recorder.put("search anew")
        self._part.search_anew()


class RecordedLight(_Proxy):
    """A random source or a modulator, every byte and every symbol taken down."""

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """See :class:`hardware.interfaces.RandomSource`."""
        drawn: NDArray[np.uint8] = self._part.read(n_bytes)
        self._recorder.put("source", drawn.tobytes())
        return drawn

    def send(self, symbols: Any) -> None:
        """See :class:`hardware.interfaces.Modulator`."""
        planes = [symbols.basis, symbols.bit, *symbols.intensity, *symbols.phase]
        raw = b"".join(plane.astype("<u8", copy=False).tobytes() for plane in planes)
        self._recorder.put("light", raw, first_slot=symbols.first_slot, planes=len(symbols.intensity))
        self._part.send(symbols)


def tags_of(record: Record) -> TimeTags:
    """The time tags of a record of the kind ``tags``."""
    n = int(record.facts["n"])
    times = np.frombuffer(record.raw, "<i8", n).astype(np.int64, copy=False)
    channels = np.frombuffer(record.raw, np.uint8, n, offset=8 * n)
    return TimeTags(times, channels, int(record.facts["until_ps"]), bool(record.facts["overflow"]))


def fingerprint(batch: Detections) -> dict[str, int]:
    """What tells whether a batch was made again exactly."""
    crc = 0
    for column in (batch.slots, batch.bases, batch.bits, batch.double_slots, batch.cross_slots):
        crc = zlib.crc32(column.tobytes(), crc)
    return {"from_slot": int(batch.from_slot), "to_slot": int(batch.to_slot), "n": len(batch), "crc": crc}
