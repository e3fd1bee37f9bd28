"""A time tagger behind a socket: raw 64-bit records with a heartbeat, from any object that reads like a tagger."""

from __future__ import annotations

import asyncio

import numpy as np

from common.datatypes import TimeTags
from hardware.interfaces import TimeTagger

CHANNEL_BITS = 4
HEARTBEAT, OVERFLOW, UNLOCKED = 15, 14, 13
READ_TIMEOUT_S = 0.2


def encode(tags: TimeTags, locked: bool = True) -> bytes:
    """The records of one batch: marks if it lost tags or its reference, the clicks, a heartbeat at its end."""
    start = int(tags.times_ps[0]) if len(tags) else tags.until_ps
    marks = [OVERFLOW] * tags.overflow + [UNLOCKED] * (not locked)
    times = np.concatenate([[start] * len(marks), tags.times_ps, [tags.until_ps]]).astype(np.uint64)
    channels = np.concatenate([marks, tags.channels, [HEARTBEAT]]).astype(np.uint64)
    return (times << np.uint64(CHANNEL_BITS) | channels).astype("<u8").tobytes()


async def tag_stream(tagger: TimeTagger, writer: asyncio.StreamWriter) -> None:
    """Send everything that ``tagger`` reads to one client, as fast as the client takes it."""
    while (tags := await asyncio.to_thread(tagger.read, READ_TIMEOUT_S)) is not None:
        writer.write(encode(tags, getattr(tagger, "reference_locked", None) is not False))
        await writer.drain()
