"""The events of a session: the one list from which recorder and replay are both made.

An event is a call of a public method of the session, from outside. Its arguments say how it is taken down: a message
or a payload as the bytes of the record, detections as their number and fingerprint (they are made again from the time
tags), a continuation not at all (what it brings about are events of their own), everything else as a fact.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from common.datatypes import Detections
from common.node.flight import Record
from common.protocol.effects import Effect
from common.protocol.messages import Message, decode

EVENTS = {
    "opened": "opened",
    "message": "handle",
    "request": "request",
    "stop": "stop",
    "hold": "hold",
    "detections": "on_detections",
    "void filling": "void_filling",
    "void": "void",
    "segment": "next_segment",
}
"""Kind of the record -> method of the session; the last four are Bob's."""
JOB = "job"
"""The one event that is no method: a job of the session was finished."""


def record_of(kind: str, arguments: Mapping[str, Any], number_of: Callable[[Detections], int]) -> Record:
    """An event, taken down.

    Parameters
    ----------
    arguments : of the method, by name.
    number_of : which of the receiver's batches detections are.
    """
    facts: dict[str, Any] = {}
    raw = b""
    for name, value in arguments.items():
        match value:
            case Message():
                raw = value.encode()
            case bytes():
                raw = value
            case Detections():
                facts |= {"batch": number_of(value), **fingerprint(value)}
            case _ if name != "then":
                facts[name] = value
    return Record(kind, facts, raw)


def arguments_of(
    record: Record, method: Callable[..., object], detections: Callable[[Record], Detections] | None
) -> dict[str, Any]:
    """The arguments with which a recorded event happens again.

    Parameters
    ----------
    method : of the session that is to hear of it.
    detections : makes the recorded detections again.
    """
    arguments: dict[str, Any] = {}
    for name in signature(method).parameters:
        match name:
            case "message":
                arguments[name] = decode(record.raw)
            case "payload":
                arguments[name] = record.raw
            case "then":
                arguments[name] = _nothing_follows
            case "detections":
                assert detections is not None
                arguments[name] = detections(record)
            case _:
                arguments[name] = record.facts[name]
    return arguments


def _nothing_follows(answer: bytes | None) -> list[Effect]:
    return []


def fingerprint(batch: Detections) -> dict[str, int]:
    """What tells whether a batch was made again exactly."""
    crc = 0
    for column in (batch.slots, batch.bases, batch.bits, batch.double_slots, batch.cross_slots):
        crc = zlib.crc32(column.tobytes(), crc)
    return {"from_slot": int(batch.from_slot), "to_slot": int(batch.to_slot), "n": len(batch), "crc": crc}
