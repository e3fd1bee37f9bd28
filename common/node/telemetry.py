"""What an operator's broker may see and ask: the node's status as topics, commands as values. Pure.

Only what the lists below name is ever published, so that no bit, basis, time of a click, seed or key can slip in. No
command touches the security state: there is none that starts, resumes or clears anything, and while an alarm is up all
are refused, so nothing that comes over the broker moves the node from alarm to run (source: ours, decision 97).

Below `qkd/v1/<link>/<node>/`: `availability` (retained, last will), `birth` (retained), `state` (retained),
`dev/<role>/state` (retained), `tele/<group>`, `alarm/<id>` (retained until cleared), `cmd/<role>/<verb>`,
`ack/<role>/<verb>`.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.units import NS_PER_S

ROOT = "qkd/v1"
STATE = ("state", "peer", "simulated", "real_time_factor")
GROUPS = {
    "rates": ("qber", "secret_key_rate_bps", "net_key_rate_bps", "real_time_factor"),
    "key": (
        "pool_bits", "auth_pool_bits", "blocks_committed", "blocks_refused", "eps_life", "life_blocks", "life_tags",
    ),
}
#: Of the roles' own details; frequencies and counts, never times of clicks.
DETAILS = (
    "frequency_offset_ppm", "acquisitions", "slips", "segments_dropped", "detections_dropped", "blocks_shed",
    "overflows", "slots_sent", "slots_dropped", "random_bits_used",
)  # fmt: skip
REPEAT_NS = 10 * NS_PER_S
MAX_COMMAND_BYTES = 1 << 12
MAX_ID_CHARACTERS = 64
REMEMBERED_COMMANDS = 64

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Readings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to the broker."""

    topic: str
    payload: bytes
    retain: bool = False
    qos: int = 0


def prefix(link: str, node: str) -> str:
    """Where everything of this node stands."""
    return f"{ROOT}/{link}/{node}"


def encode(document: Mapping[str, Any]) -> bytes:
    """Write a document as canonical JSON."""
    return json.dumps(document, sort_keys=True, allow_nan=False).encode()


def silent_devices(devices: Readings) -> str | None:
    """Which slow devices do not answer, and why; None if all do."""
    return "; ".join(f"{role}: {one['reason']}" for role, one in devices.items() if not one["ok"]) or None


class Reporter:
    """Turns the status document into publications: what is retained on change and every 10 s, the rest every time.

    Parameters
    ----------
    link, node : names of the topic tree. session : this process's start, so that a reader can tell runs apart.
    """

    def __init__(self, link: str, node: str, session: int) -> None:
        self.prefix = prefix(link, node)
        self._session = session
        self._sequence = 0
        self.restart()

    def restart(self) -> None:
        """A new connection: everything retained is due again."""
        self._last: dict[str, tuple[bytes, int]] = {}
        self._alarms: dict[str, str] = {}

    def birth(self, details: Mapping[str, Any]) -> Publication:
        """What this run is: software, configuration, devices."""
        return Publication(f"{self.prefix}/birth", encode({**details, "session": self._session}), retain=True, qos=1)

    def availability(self, online: bool) -> Publication:
        """`online` or `offline`; the latter is also the last will."""
        return Publication(f"{self.prefix}/availability", b"online" if online else b"offline", retain=True, qos=1)

    def update(self, status: Mapping[str, Any], devices: Readings, now_ns: int) -> list[Publication]:
        """What is due now."""
        out = self._retained("state", _pick(status, STATE) | {"alarms": len(status["alarms"])}, now_ns)
        for role, values in devices.items():
            out += self._retained(f"dev/{_name(role)}/state", dict(values), now_ns)
        out += self._alarm_changes(status["alarms"])
        groups = {group: _pick(status, names) for group, names in GROUPS.items()}
        groups["light"] = _pick(status["details"], DETAILS)
        groups["devices"] = dict(status["watched"])
        for group, values in groups.items():
            if values:
                out.append(Publication(f"{self.prefix}/tele/{group}", self._stamped(values)))
        return out

    def stale_alarm(self, topic: str, payload: bytes) -> list[Publication]:
        """The broker still keeps an alarm of an earlier run: clear it."""
        name = topic.removeprefix(f"{self.prefix}/alarm/")
        if not payload or name in self._alarms:
            return []
        return [Publication(topic, b"", retain=True, qos=1)]

    def _alarm_changes(self, alarms: list[str]) -> list[Publication]:
        texts = {_name(text.partition(":")[0]): text for text in alarms}
        gone = self._alarms.keys() - texts.keys()
        new = [name for name, text in texts.items() if self._alarms.get(name) != text]
        self._alarms = texts
        topic = f"{self.prefix}/alarm/"
        return [Publication(topic + name, b"", retain=True, qos=1) for name in sorted(gone)] + [
            Publication(topic + name, self._stamped({"text": texts[name]}), retain=True, qos=1) for name in sorted(new)
        ]

    def _retained(self, name: str, values: dict[str, Any], now_ns: int) -> list[Publication]:
        content = encode(_finite(values))
        last = self._last.get(name)
        if last is not None and last[0] == content and now_ns - last[1] < REPEAT_NS:
            return []
        self._last[name] = (content, now_ns)
        return [Publication(f"{self.prefix}/{name}", self._stamped(values), retain=True, qos=1)]

    def _stamped(self, values: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        return encode(_finite(dict(values)) | {"session": self._session, "seq": self._sequence})


class Commands:
    """Carries out operators' requests for slow devices, each once, and answers every one.

    Parameters
    ----------
    prefix : of this node. verbs : (role, verb) -> what does it; it raises `ValueError` or a `QkdError` with the reason.
    """

    def __init__(self, prefix: str, verbs: Mapping[tuple[str, str], Command]) -> None:
        self._prefix, self._verbs = prefix, dict(verbs)
        self._done: OrderedDict[str, bytes] = OrderedDict()

    def carry_out(self, topic: str, payload: bytes, *, retained: bool, alarms: Sequence[str]) -> Publication:
        """Do it and say so; a repetition (same `id`) is answered again and not done again. May block."""
        role, _, verb = topic.removeprefix(f"{self._prefix}/cmd/").partition("/")
        where = f"{self._prefix}/ack/{_name(role)}/{_name(verb)}"
        request = _request(payload)
        if request is None:
            return _refusal(where, None, 'a command is one JSON object with an "id" of 1 to 64 characters')
        request_id = str(request.pop("id"))
        key = f"{role}/{verb}/{request_id}"
        if key not in self._done:
            refusal = self._why_not(role, verb, retained, alarms)
            if refusal is not None:
                return _refusal(where, request_id, refusal)
            self._done[key] = _do(self._verbs[role, verb], where, request_id, request).payload
            if len(self._done) > REMEMBERED_COMMANDS:
                self._done.popitem(last=False)
        return Publication(where, self._done[key], qos=1)

    def _why_not(self, role: str, verb: str, retained: bool, alarms: Sequence[str]) -> str | None:
        if (role, verb) not in self._verbs:
            known = ", ".join(sorted("/".join(name) for name in self._verbs)) or "none"
            return f"no such command; known here: {known}"
        if retained:
            return "a retained command is never carried out: send it without retain"
        if alarms:
            return f"refused while an alarm is up ({alarms[0]}): act at the node itself"
        return None


def _request(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > MAX_COMMAND_BYTES:
        return None
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    request_id = request.get("id")
    return request if isinstance(request_id, str) and 0 < len(request_id) <= MAX_ID_CHARACTERS else None


def _do(command: Command, where: str, request_id: str, request: dict[str, Any]) -> Publication:
    try:
        values = command(request)
    except Exception as error:  # the device's own fault: the operator reads it, the node goes on
        return _refusal(where, request_id, f"{type(error).__name__}: {error}")
    return Publication(where, encode({"id": request_id, "ok": True, "values": _finite(dict(values))}), qos=1)


def _refusal(where: str, request_id: str | None, reason: str) -> Publication:
    return Publication(where, encode({"id": request_id, "ok": False, "reason": reason}), qos=1)


def _pick(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinities have no JSON: they become null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _name(text: str) -> str:
    """One level of a topic."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:64] or "-"
