"""Bob's receiver and session again, from a flight recording. Entry point of `qkd_node.replay`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bob.receiver import Receiver
from bob.session import BobSession
from common.config import Config
from common.datatypes import Detections
from common.node.events import fingerprint
from common.node.flight import Record
from common.node.node import agreed
from common.node.recorder import tags_of
from common.node.replay import Diverged, Replay, ReplayStore


class TagsAgain:
    """Makes the recorded detections again from the recorded time tags.

    The random bits of a feed are recorded after its tags: a batch of tags is fed when the next one comes, or when its
    detections are wanted.
    """

    def __init__(self, config: Config) -> None:
        self._receiver = Receiver.configured(config, self._coins)
        self._waiting: Record | None = None
        self._bits: deque[NDArray[np.uint8]] = deque()
        self._made: deque[tuple[int, Detections]] = deque()
        self._count = 0

    def take(self, record: Record) -> None:
        """A record that is neither an event nor an answer."""
        if record.kind == "coins":
            self._bits.append(np.frombuffer(record.raw, np.uint8))
        elif record.kind == "tags":
            self._feed()
            self._waiting = record
        elif record.kind == "search anew":
            self._feed()
            self._receiver.search_anew()

    def detections(self, event: Record) -> Detections:
        """The batch that the session was given."""
        number = int(event.facts["batch"])
        if self._count < number:
            self._feed()
        while self._made:
            made, batch = self._made.popleft()
            if made == number:
                if fingerprint(batch) != {name: event.facts[name] for name in ("from_slot", "to_slot", "n", "crc")}:
                    break
                return batch
        where = f"of slots {event.facts['from_slot']}..{event.facts['to_slot']}"
        raise Diverged(f"the receiver does not make the detections {where} again", batch=number)

    def _feed(self) -> None:
        if self._waiting is None:
            return
        record, self._waiting = self._waiting, None
        for batch in self._receiver.feed(tags_of(record)):
            self._count += 1
            self._made.append((self._count, batch))
        self._receiver.take_events()
        self._bits.clear()

    def _coins(self, n: int) -> NDArray[np.uint8]:
        bits = self._bits.popleft() if self._bits else np.zeros(0, np.uint8)
        if bits.size != n:
            raise Diverged(f"the receiver draws {n} random bits where it drew {bits.size}")
        return bits


def replay(records: Iterable[Record]) -> Replay:
    """Run a recording of Bob's again; what was found is in the result's ``report``."""
    run = Replay(records)
    again = TagsAgain(run.config)
    run.on_record, run.detections = again.take, again.detections
    who = run.identity(agreed(run.config))
    run.run(BobSession(run.config, who, ReplayStore(run), int(run.begin["instance"]), run.random, run.reply))
    return run
