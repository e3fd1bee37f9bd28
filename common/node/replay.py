"""Run a recorded session again and compare: same events in, are the same messages and keys out?

Jobs run where their completion was recorded, on one thread, so the order of the recorded run is kept whatever its
threads did. What the session asks for (random bytes, symbols, the store) is answered from the recording.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.datatypes import Detections
from common.errors import InputError, RemoteProtocolError
from common.keybits import KeyBits
from common.node.events import EVENTS, JOB, arguments_of
from common.node.flight import END, Record
from common.protocol.effects import BlockDone, Effect, Run, Send
from common.protocol.messages import Message, decode
from common.protocol.session import Identity
from common.protocol.transitions import Role
from common.randomness import read_uses

JOB_FAILED = "job failed"
ANOTHER_VERSION = "Give a recording of this version."


class Diverged(Exception):
    """The run does not repeat itself from here on: what, and where."""

    def __init__(self, what: str, **facts: Any) -> None:
        super().__init__(what)
        self.facts = {"what": what, **facts}


@dataclass
class Report:
    """What a replay found; ``diverged`` is None where every message and key came out as recorded."""

    role: str
    software_recorded: str
    events: int = 0
    messages_compared: int = 0
    keys_compared: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    """The recording has its end: it was not cut by a crash."""
    ended: str = "cut"
    diverged: dict[str, Any] | None = None

    @property
    def equal(self) -> bool:
        """Whether the run repeated itself."""
        return self.diverged is None

    def document(self) -> dict[str, Any]:
        """The report for `--json`."""
        return asdict(self) | {"equal": self.equal}


class Replay:
    """One recording being run again.

    Parameters
    ----------
    records : from :func:`common.node.flight.read_flight`.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = iter(records)
        begin = next(self._records, None)
        if begin is None or begin.kind != "begin":
            raise InputError("the recording has no beginning", remedy="It was cut before the run began.")
        self.begin = begin.facts
        try:
            self.config = Config.model_validate(self.begin["config"])
        except ValueError as error:
            raise InputError(
                f"the recorded configuration does not fit this software: {error}",
                remedy=f"Replay with version {self.begin.get('software')}.",
            ) from None
        self.report = Report(self.config.role, str(self.begin["software"]))
        self.keys: dict[int, bytes] = {}
        """Keys made again, by block (secret); for comparison with a store."""
        self.on_record: Callable[[Record], None] = lambda record: None
        self.detections: Callable[[Record], Detections] | None = None
        self._answers: dict[int, deque[Record]] = {}
        self._jobs: dict[int, Run] = {}
        self._made = 0
        self._job = 0

    def identity(self, agreed: Mapping[str, Any]) -> Identity:
        """As recorded, with what this software would agree to."""
        role = self.config.role
        try:
            said = self.begin["identity"]
            uses = read_uses(said.get("randomness"), role)
            return Identity(Role(role), said["software"], agreed, bool(said["simulated"]), randomness=uses)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"the recording's beginning: {error!r}", remedy=ANOTHER_VERSION) from None

    # -- what the session asks for ------------------------------------------------------------------------------------

    def answer(self, what: str) -> Record:
        """The next recorded answer for the job at hand."""
        waiting = self._answers.get(self._job)
        if not waiting or waiting[0].facts["what"] != what:
            asked = waiting[0].facts["what"] if waiting else "nothing more"
            raise Diverged(f"the session asks for {what!r} where it asked for {asked!r}", job=self._job)
        return waiting.popleft()

    def random(self, n_bytes: int) -> NDArray[np.uint8]:
        """Random bytes as recorded."""
        raw = self.answer("random").raw
        if len(raw) != n_bytes:
            raise Diverged(f"the session draws {n_bytes} random bytes where it drew {len(raw)}", job=self._job)
        return np.frombuffer(raw, np.uint8)

    def number(self, name: str) -> Callable[[], int]:
        """A number that the session asked for."""
        return lambda: int(self.answer(name).facts["value"])

    def reply(self, payload: bytes) -> bytes:
        """What the key manager answered."""
        return self.answer("reply").raw

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self, session: Any) -> Report:
        """Feed every event; stops at the first difference."""
        try:
            for event, answers, sent, fault in self._groups():
                for one in answers:
                    self._answers.setdefault(one.facts["job"], deque()).append(one)
                self.report.events += 1
                self._compare(event, self._happen(session, event, fault), sent)
        except Diverged as difference:
            self.report.diverged = {"event": self.report.events, **difference.facts}
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # not the session's: those are compared
            raise InputError(
                f"the recording, after event {self.report.events}: {error!r}", remedy=ANOTHER_VERSION
            ) from None
        return self.report

    def _groups(self) -> Iterator[tuple[Record, list[Record], list[Record], Record | None]]:
        """(event, answers that came before the next one, messages that it sent, its fault)."""
        event: Record | None = None
        answers: list[Record] = []
        sent: list[Record] = []
        fault: Record | None = None
        failed: list[Record] = []
        for record in self._records:
            if record.kind in EVENTS or record.kind == JOB:
                if event is not None:
                    yield event, answers, sent, fault
                    yield from ((job, [], [], None) for job in failed)
                event, answers, sent, fault, failed = record, [], [], None, []
            elif record.kind == JOB_FAILED:  # told by another thread, amid what follows from the event before
                failed.append(record)
            elif record.kind == "answer":
                answers.append(record)
            elif record.kind == "sent":
                sent.append(record)
            elif record.kind == "fault":
                fault = record
            elif record.kind == END:
                self.report.ended = str(record.facts["reason"])
                self.report.complete = self.report.ended == "closed"
            else:
                self.on_record(record)
        if event is not None and self.report.complete:  # of the last event of a cut file, messages may be missing
            yield event, answers, sent, fault
            yield from ((job, [], [], None) for job in failed)

    def _happen(self, session: Any, event: Record, fault: Record | None) -> list[Message]:
        try:
            effects = self._call(session, event)
        except Diverged:
            raise
        except Exception as error:
            expected = event.facts["error"] if event.kind == JOB_FAILED else fault and fault.facts["error"]
            if type(error).__name__ != expected:
                raise Diverged(f"{event.kind}: {type(error).__name__}: {error}", recorded=expected) from error
            return []
        if fault is not None or event.kind == JOB_FAILED:
            raise Diverged(f"{event.kind} went well where it failed", recorded=(fault or event).facts["error"])
        return self._messages(effects)

    def _call(self, session: Any, event: Record) -> list[Effect]:
        if event.kind in EVENTS:
            method = getattr(session, EVENTS[event.kind])
            answer = method(**arguments_of(event, method, self.detections))
            return answer if isinstance(answer, list) else []
        facts = event.facts
        job = self._jobs.pop(facts["job"], None)
        if job is None:
            raise Diverged(f"the recorded job {facts['job']} was not started", job=facts["job"])
        self._job = facts["job"]
        try:
            result = job.work()
        finally:
            self._answers.pop(self._job, None)
            self._job = 0
        return list(job.then(result))

    def _messages(self, effects: list[Effect]) -> list[Message]:
        """What is sent; jobs are kept under the numbers that the recorder gave them."""
        messages = []
        for effect in effects:
            match effect:
                case Send(message):
                    messages.append(message)
                case Run():
                    self._made += 1
                    self._jobs[self._made] = effect
                case BlockDone(facts):
                    self.report.blocks.append(asdict(facts))
        return messages

    def _compare(self, event: Record, made: list[Message], recorded: list[Record]) -> None:
        for index, record in enumerate(recorded):
            was = decode(record.raw)
            now = made[index] if index < len(made) else None
            raw = now.encode() if now is not None else b""
            if raw != record.raw:
                short = min(len(raw), len(record.raw))
                at = next((i for i in range(short) if raw[i] != record.raw[i]), short)
                raise Diverged(
                    f"after {event.kind!r} the message {was.name} is not the recorded one",
                    message=self.report.messages_compared + 1,
                    recorded=repr(was),
                    made=repr(now),
                    first_byte=at,
                    recorded_bytes=len(record.raw),
                    made_bytes=len(raw),
                )
            self.report.messages_compared += 1
        if len(made) > len(recorded):
            raise Diverged(f"after {event.kind!r} a message more is sent: {made[len(recorded)]!r}")


class ReplayStore:
    """The store of a replay: answers as recorded; keys are compared with the recorded digests."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def unresolved(self) -> list[tuple[int, str]]:
        """Answer as it was recorded."""
        return [(int(number), str(state)) for number, state in self._replay.answer("unresolved").facts["value"]]

    def newest_block(self) -> int:
        """Answer as it was recorded."""
        return int(self._replay.answer("newest_block").facts["value"])

    def state_of(self, block_id: int) -> str | None:
        """Answer as it was recorded."""
        state: str | None = self._replay.answer("state_of").facts["value"]
        return state

    def get_setting(self, name: str) -> bytes | None:
        """Answer as it was recorded."""
        record = self._replay.answer("setting")
        return record.raw if record.facts["there"] else None

    def certificate_of(self, block_id: int) -> str:
        """Answer as it was recorded."""
        return self._replay.answer("certificate").raw.decode()

    def is_authenticated(self, block_id: int) -> bool:
        """Answer as it was recorded."""
        return bool(self._replay.answer("authenticated").facts["value"])

    def store_pending(
        self, block_id: int, key: KeyBits, record: str, simulated: bool, *, authenticated: bool
    ) -> None:
        """Compare the key with the recorded digest."""
        raw = key.take().tobytes()
        recorded = self._replay.answer("key")
        if hashlib.sha256(raw).digest() != recorded.raw:
            raise Diverged(f"the key of block {block_id} is not the recorded one", block_id=block_id)
        self._replay.keys[block_id] = raw
        self._replay.report.keys_compared += 1

    def put_setting(self, name: str, value: bytes) -> None:
        """Compare the part of a key that refills the authentication pool."""
        if hashlib.sha256(value).digest() != self._replay.answer("pads").raw:
            raise Diverged(f"the authentication key {name!r} is not the recorded one")

    def delete_setting(self, name: str) -> None:
        """Keep nothing of a replay."""

    def decide(self, block_id: int) -> None:
        """Keep nothing of a replay."""

    def commit(self, block_id: int) -> None:
        """Keep nothing of a replay."""

    def destroy(self, block_id: int, state: str = "pending") -> None:
        """Keep nothing of a replay."""


class ReplaySymbols:
    """Alice's symbols as they were looked up."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def lookup(self, slots: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """Answer as it was recorded."""
        record = self._replay.answer("symbols")
        if "error" in record.facts:
            raise RemoteProtocolError(record.facts["error"])
        planes = np.frombuffer(record.raw, np.uint8).reshape(3, -1)
        if planes.shape[1] != slots.size:
            raise Diverged(f"{slots.size} symbols are looked up where it were {planes.shape[1]}")
        return planes[0], planes[1], planes[2]

    def release_before(self, slot: int) -> None:
        """Keep nothing of a replay."""
