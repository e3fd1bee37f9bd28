"""A time tagger behind a socket: raw 64-bit records with a heartbeat, from any object that reads like a tagger."""

from __future__ import annotations

import asyncio

import numpy as np

from common.datatypes import TimeTags
from hardware.interfaces import TimeTagger

CHANNEL_BITS = 4
HEARTBEAT, OVERFLOW = 15, 14
READ_TIMEOUT_S = 0.2


def encode(tags: TimeTags) -> bytes:
    """The records of one batch: an overflow mark if it has one, the clicks, a heartbeat at its end."""
    start = int(tags.times_ps[0]) if len(tags) else tags.until_ps
    times = np.concatenate([[start] * tags.overflow, tags.times_ps, [tags.until_ps]]).astype(np.uint64)
    channels = np.concatenate([[OVERFLOW] * tags.overflow, tags.channels, [HEARTBEAT]]).astype(np.uint64)
    return (times << np.uint64(CHANNEL_BITS) | channels).astype("<u8").tobytes()


async def tag_stream(tagger: TimeTagger, writer: asyncio.StreamWriter) -> None:
    """Send everything that ``tagger`` reads to one client, as fast as the client takes it."""
    while (tags := await asyncio.to_thread(tagger.read, READ_TIMEOUT_S)) is not None:
        writer.write(encode(tags))
        await writer.drain()
