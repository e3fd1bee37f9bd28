"""The slow, obviously correct twin of the kernel in health. Plain Python on purpose."""

from __future__ import annotations

from itertools import groupby


def scan(before: bytes, data: bytes, anchor: bytes, window_bytes: int) -> tuple[int, int, bool]:
    """Longest run that has bytes of ``data``; most bytes as the first in a window that has; is the anchor in it?

    Parameters
    ----------
    before : the whole stream up to ``data``.
    """
    stream, longest, at = before + data, 0, 0
    for _, run in groupby(stream):
        length = len(list(run))
        at += length
        longest = max(longest, length if at > len(before) else 0)
    begins = range(0, len(stream), window_bytes)
    windows = [stream[begin : begin + window_bytes] for begin in begins if begin + window_bytes > len(before)]
    most = max((window.count(window[0]) for window in windows), default=0) if data else 0
    return longest, most, bool(anchor) and anchor in data
