"""What an operator should know of the light and the tagger: alarms from what each batch of tags shows.

Pure: time is an argument. A block that such a fault touches is void by other means; here it is told.
"""

from __future__ import annotations

from collections import deque

from common.units import NS_PER_S

NO_LIGHT_NS = 30 * NS_PER_S
"""Without a lock for so long: finding the light takes seconds."""
NO_TAGS_NS = 10 * NS_PER_S
"""Without a batch for so long, an empty one included: a read ends after a second at most."""
LATELY_NS = 60 * NS_PER_S
REMEMBERED = 1 << 10


class Lookout:
    """Remembers what the last minute of tags was like.

    Parameters
    ----------
    can_wait : the tagger waits for the node, so that no batch for a while means nothing.
    """

    def __init__(self, *, can_wait: bool, now_ns: int) -> None:
        self._can_wait = can_wait
        self._locked_ns = self._read_ns = self._moved_ns = now_ns
        self._until_ps: int | None = None
        self._state = ""
        self._overflows: deque[int] = deque(maxlen=REMEMBERED)
        self._reference: bool | None = None

    def saw(self, state: str, overflow: bool, reference_locked: bool | None, until_ps: int, now_ns: int) -> None:
        """A batch was read: the receiver's state after it, what the tagger says of it, and the time that it reached."""
        self._read_ns, self._state, self._reference = now_ns, state, reference_locked
        if until_ps != self._until_ps:
            self._until_ps, self._moved_ns = until_ps, now_ns
        if state == "locked":
            self._locked_ns = now_ns
        if overflow:
            self._overflows.append(now_ns)

    def light(self, now_ns: int) -> str | None:
        """The receiver has not found the light for long."""
        if not self._state or self._read_ns - self._locked_ns < NO_LIGHT_NS:
            return None
        return f"the receiver is {self._state} and was not locked for more than {NO_LIGHT_NS // NS_PER_S} s"

    def tagger(self, now_ns: int) -> str | None:
        """The tagger gives nothing, or drops tags."""
        if not self._can_wait and now_ns - self._read_ns > NO_TAGS_NS:
            return f"it has given nothing for more than {NO_TAGS_NS // NS_PER_S} s, not even an empty batch"
        if not self._can_wait and now_ns - self._moved_ns > NO_TAGS_NS:
            return f"its time stands still for more than {NO_TAGS_NS // NS_PER_S} s: neither clicks nor heartbeats come"
        lately = sum(now_ns - one < LATELY_NS for one in self._overflows)
        return f"tags were lost in {lately} batches of the last minute: their blocks are void" if lately else None

    def reference(self, now_ns: int) -> str | None:
        """The tagger has lost its reference clock."""
        return "the tagger has lost its reference clock: its tags are void" if self._reference is False else None
