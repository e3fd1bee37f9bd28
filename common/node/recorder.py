"""The flight recorder: what a run saw, taken down where it enters the sans-I/O parts.

A session is a function of what it is told (messages, detections, finished jobs, requests) and of what it asks for
(random bytes, symbols, the store). Both are recorded in the order in which they happened, beside every message that it
sent: `replay.py` can therefore run the session again, on another day or build, and compare. For Bob the time tags are
recorded, and the detections are made from them again.

The daemons hand their parts through it; a recorder that is switched off gives every part back as it is.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import platform
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.datatypes import Bytes8, Detections, Symbols, TimeTags
from common.errors import RemoteProtocolError
from common.keybits import KeyBits
from common.node.events import EVENTS, JOB, record_of
from common.node.flight import SUFFIX, FlightWriter, Record, read_key_file
from common.protocol.effects import Effect, Run, Send
from common.protocol.session import Identity, Store, SymbolMemory
from common.randomness import documents

log = logging.getLogger("qkd.node")
Part = TypeVar("Part")
Call = Callable[..., Any]
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

    def store(self, store: Store) -> Store:
        """The store, its answers taken down (of keys only a digest)."""
        return store

    def symbols(self, symbols: SymbolMemory) -> SymbolMemory:
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

    def source(self, source: Part) -> Part:
        """Alice's random source; taken down where the configuration wants all of her light."""
        return source

    def modulator(self, modulator: Part) -> Part:
        """Her modulator; taken down where the configuration wants all of her light."""
        return modulator

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
        """Which of the receiver's batches this is; those before it were dropped."""
        while self._produced:
            number, made = self._produced.popleft()
            if made is batch:
                return number
        return 0

    # -- what the daemons call ----------------------------------------------------------------------------------------

    def begin(self, who: Identity, instance: int, *devices: Any) -> None:
        """Write the first record of a run."""
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
        """Take a note down as told."""
        self.put("note", what=kind, facts=facts)

    def session(self, session: Part) -> Part:
        """Record this part, as :class:`Recorder` says."""
        for kind, method in EVENTS.items():
            if hasattr(session, method):
                listen(session, method, partial(self._events, kind))
        return session

    def _events(self, kind: str, call: Call) -> Call:
        """The same method of the session, every call of it an event."""
        named = signature(call)

        def recorded(*arguments: Any, **more: Any) -> Any:
            record = record_of(kind, named.bind(*arguments, **more).arguments, self.number_of)
            return self._event(record, partial(call, *arguments, **more))

        return recorded

    def _event(self, record: Record, call: Callable[[], Any]) -> Any:
        """An event, and after it what follows; ``next_segment`` alone answers a number and has no effects."""
        self._writer.put(record)
        try:
            answer = call()
        except Exception as error:
            self.put("fault", error=type(error).__name__)
            raise
        return [self._out(effect) for effect in answer] if isinstance(answer, list) else answer

    def _out(self, effect: Effect) -> Effect:
        if isinstance(effect, Send):
            self.put("sent", effect.message.encode())
        elif isinstance(effect, Run):
            run = effect
            return self.job(
                run, lambda number, result: self._event(Record(JOB, {"job": number}), lambda: run.then(result))
            )
        return effect

    def store(self, store: Store) -> Store:
        """Record this part, as :class:`Recorder` says."""
        return RecordedStore(store, self)

    def symbols(self, symbols: SymbolMemory) -> SymbolMemory:
        """Record this part, as :class:`Recorder` says."""
        return RecordedSymbols(symbols, self)

    def random(self, read: ReadBytes) -> ReadBytes:
        """Record this part, as :class:`Recorder` says."""

        def recorded(n_bytes: int) -> NDArray[np.uint8]:
            drawn = read(n_bytes)
            self.take("random", drawn.tobytes())
            return drawn

        return recorded

    def answer(self, name: str, ask: Callable[[], int]) -> Callable[[], int]:
        """Record this part, as :class:`Recorder` says."""

        def recorded() -> int:
            value = ask()
            self.take(name, value=value)
            return value

        return recorded

    def requests(self, accept: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """Record this part, as :class:`Recorder` says."""

        def recorded(payload: bytes) -> bytes:
            reply = accept(payload)
            self.take("reply", reply)
            return reply

        return recorded

    def receiver(self, receiver: Part) -> Part:
        """Record this part, as :class:`Recorder` says."""
        listen(receiver, "feed", self._feeds)
        listen(receiver, "search_anew", self._searches)
        return receiver

    def _feeds(self, feed: Call) -> Call:
        batches = itertools.count(1)

        def recorded(tags: TimeTags) -> list[Detections]:
            raw = tags.times_ps.astype("<i8", copy=False).tobytes() + tags.channels.tobytes()
            self.put("tags", raw, n=len(tags), until_ps=int(tags.until_ps), overflow=bool(tags.overflow))
            made: list[Detections] = feed(tags)
            for batch in made:
                self.produced(next(batches), batch)
            return made

        return recorded

    def _searches(self, search_anew: Call) -> Call:
        def recorded() -> None:
            self.put("search anew")
            search_anew()

        return recorded

    def coins(self, read: ReadBytes) -> ReadBytes:
        """Record this part, as :class:`Recorder` says."""

        def recorded(n: int) -> NDArray[np.uint8]:
            drawn = read(n)
            self.put("coins", drawn.tobytes())
            return drawn

        return recorded

    def source(self, source: Part) -> Part:
        """Record this part, as :class:`Recorder` says."""
        if self._config.record.light:
            listen(source, "read", self._reads)
        return source

    def _reads(self, read: Call) -> Call:
        def recorded(n_bytes: int) -> NDArray[np.uint8]:
            drawn: NDArray[np.uint8] = read(n_bytes)
            self.put("source", drawn.tobytes())
            return drawn

        return recorded

    def modulator(self, modulator: Part) -> Part:
        """Record this part, as :class:`Recorder` says."""
        if self._config.record.light:
            listen(modulator, "send", self._sends)
        return modulator

    def _sends(self, send: Call) -> Call:
        def recorded(symbols: Symbols) -> None:
            planes = [symbols.basis, symbols.bit, *symbols.intensity, *symbols.phase]
            raw = b"".join(plane.astype("<u8", copy=False).tobytes() for plane in planes)
            self.put("light", raw, first_slot=symbols.first_slot, planes=len(symbols.intensity))
            send(symbols)

        return recorded

    def status(self) -> dict[str, Any]:
        """For the status file."""
        return {"recording": self._writer.recording, "recording_bytes": self._writer.bytes_written}

    def close(self) -> None:
        """Finish the recording and close its file."""
        self._writer.close()


class RecordedStore:
    """A :class:`common.protocol.session.Store` whose answers are taken down; of a key only the SHA-256 digest."""

    def __init__(self, store: Store, recorder: FlightRecorder) -> None:
        self._store, self._recorder = store, recorder

    def unresolved(self) -> list[tuple[int, str]]:
        """Take down what the store answers."""
        found = self._store.unresolved()
        self._recorder.take("unresolved", value=found)
        return found

    def newest_block(self) -> int:
        """Take down what the store answers."""
        newest = self._store.newest_block()
        self._recorder.take("newest_block", value=newest)
        return newest

    def state_of(self, block_id: int) -> str | None:
        """Take down what the store answers."""
        state = self._store.state_of(block_id)
        self._recorder.take("state_of", value=state)
        return state

    def get_setting(self, name: str) -> bytes | None:
        """Take down what the store answers."""
        value = self._store.get_setting(name)
        self._recorder.take("setting", value or b"", there=value is not None)
        return value

    def certificate_of(self, block_id: int) -> str:
        """Take down what the store answers."""
        certificate = self._store.certificate_of(block_id)
        self._recorder.take("certificate", certificate.encode())
        return certificate

    def is_authenticated(self, block_id: int) -> bool:
        """Take down what the store answers."""
        marked = self._store.is_authenticated(block_id)
        self._recorder.take("authenticated", value=marked)
        return marked

    def store_pending(
        self, block_id: int, key: KeyBits, record: str, simulated: bool, *, authenticated: bool
    ) -> None:
        """Take down the digest of a key."""
        self._recorder.take("key", hashlib.sha256(key.view().tobytes()).digest(), block_id=block_id, n_bits=len(key))
        self._store.store_pending(block_id, key, record, simulated, authenticated=authenticated)

    def put_setting(self, name: str, value: bytes) -> None:
        """See the store: the part of a key that refills the authentication pool."""
        self._recorder.take("pads", hashlib.sha256(value).digest(), name=name)
        self._store.put_setting(name, value)

    def delete_setting(self, name: str) -> None:
        """Pass the call on to the store."""
        self._store.delete_setting(name)

    def decide(self, block_id: int) -> None:
        """Pass the call on to the store."""
        self._store.decide(block_id)

    def commit(self, block_id: int) -> None:
        """Pass the call on to the store."""
        self._store.commit(block_id)

    def destroy(self, block_id: int, state: str = "pending") -> None:
        """Pass the call on to the store."""
        self._store.destroy(block_id, state)


class RecordedSymbols:
    """Alice's symbols; those that are looked up are taken down."""

    def __init__(self, symbols: SymbolMemory, recorder: FlightRecorder) -> None:
        self._symbols, self._recorder = symbols, recorder

    def lookup(self, slots: NDArray[np.int64]) -> tuple[Bytes8, Bytes8, Bytes8]:
        """Do what :class:`SymbolMemory` says."""
        try:
            found = self._symbols.lookup(slots)
        except RemoteProtocolError as error:
            self._recorder.take("symbols", error=str(error))
            raise
        self._recorder.take("symbols", b"".join(plane.tobytes() for plane in found))
        return found

    def release_before(self, slot: int) -> None:
        """Do what :class:`SymbolMemory` says."""
        self._symbols.release_before(slot)


def listen(part: object, method: str, heard: Callable[[Call], Call]) -> None:
    """Let every call of one method of this one object be heard: the object stays what it is."""
    setattr(part, method, heard(getattr(part, method)))


def tags_of(record: Record) -> TimeTags:
    """The time tags of a record of the kind ``tags``."""
    n = int(record.facts["n"])
    times = np.frombuffer(record.raw, "<i8", n).astype(np.int64, copy=False)
    channels = np.frombuffer(record.raw, np.uint8, n, offset=8 * n)
    return TimeTags(times, channels, int(record.facts["until_ps"]), bool(record.facts["overflow"]))
