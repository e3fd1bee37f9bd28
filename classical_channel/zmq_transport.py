"""The transport on ZeroMQ: one DEALER at each end, CURVE outside, in a process of its own that may die at any moment.

CURVE keeps strangers and junk out and hides the traffic; it carries no part of the information-theoretic claim.
Packets may be lost when a connection breaks, or when the process of the sockets (`zmq_process.py`) is replaced by a
new one: the stream above repeats them. No pad is lost with that process, and the session goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from classical_channel.pipe import Kind, Pipe
from common.errors import ConfigurationError, PeerUnreachable
from common.node.listening import refuse

log = logging.getLogger("qkd.channel")
START_S = 30.0
"""Until the sockets' process has imported what it needs, on a machine that is busy."""
TICK_S = 0.5
QUIET_TICKS = 12
"""Ticks of this event loop without a sign of life from the sockets' process: it hangs, and is replaced."""
FIRST_DELAY_S, LAST_DELAY_S = 0.05, 0.8
"""Before a new process: doubled from death to death, forgotten after a life of LONG_LIFE_S."""
LONG_LIFE_S = 10.0
OUT_BYTES = 16 << 20
"""Twice the stream's window may wait for the sockets' process; more is dropped, and repeated by the stream."""
IN_BYTES = 16 << 20
RIVAL_S = 60.0
"""An alarm lasts so long after the last attempt of a second process that holds the peer's keys."""
_SUSPICIOUS = ("unknown_keys", "handshakes_failed")
_REMEDY = (
    "the CURVE keys do not fit: compare peer_curve_public_file with the other end's curve key (`qkd init` makes both)"
)
OFTEN, OFTEN_S = 3, 60.0
"""This many deaths within this many seconds are worth an alarm even while a process lives."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What the transport counted since the node's start.

    At Alice a failed handshake is a stranger's, or the peer's with other keys; at Bob it is one with the address that
    his configuration names. ``unknown_keys`` counts those that knew Alice's public key and did not show Bob's,
    ``rivals`` the attempts of a second process with Bob's key while the first one was heard.
    """

    handshakes: int = 0
    handshakes_failed: int = 0
    unknown_keys: int = 0
    rivals: int = 0
    socket_restarts: int = 0


class ZmqTransport:
    """Packets to and from the peer.

    Parameters
    ----------
    endpoint : ZeroMQ endpoint, `tcp://host:port` or `ipc://path`.
    bind : Alice binds, Bob connects.
    secret, peer_public : Z85 CURVE keys (40 characters): own secret, the peer's public.

    Attributes
    ----------
    wire : counters.

    Raises
    ------
    ConfigurationError
        Malformed key.
    """

    def __init__(self, endpoint: str, *, bind: bool, secret: bytes, peer_public: bytes) -> None:
        if not (is_curve_key(secret) and is_curve_key(peer_public)):
            raise ConfigurationError("a CURVE key file does not hold 40 Z85 characters")
        keys = {"secret": secret.decode(), "peer_public": peer_public.decode()}
        self._settings = json.dumps({"endpoint": endpoint, "bind": bind, **keys}).encode()
        self._endpoint, self._bind = endpoint, bind
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._reading = False
        self._news = asyncio.Event()
        self._dead = asyncio.Event()
        self._quiet = 0
        self._before = Wire()
        self._deaths: deque[float] = deque(maxlen=OFTEN)
        self._last_death = "just now"
        self.wire = self._heard = Wire()
        self._last_unknown = ""
        self._rival_s = -math.inf

    # -- life of the sockets' process ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind or connect; needs the running event loop.

        Raises
        ------
        ConfigurationError
            Malformed endpoint.
        PeerUnreachable
            The endpoint is taken, or the process of the sockets does not start.
        """
        try:
            pipe = self._spawn()
            pipe.end.settimeout(START_S)
            words = pipe.take()
            while not words:
                words = pipe.take()
        except (EOFError, OSError) as error:
            self.close()
            raise PeerUnreachable(
                f"the process of the ZeroMQ sockets does not start: {error}", remedy="Run `qkd doctor`."
            ) from None
        first = json.loads(words[0][1])
        if "error" in first:
            self.close()
            if first["in_use"]:
                refuse("channel.endpoint", self._endpoint, OSError(errno.EADDRINUSE, ""))
            raise ConfigurationError(f"channel.endpoint {self._endpoint!r}: {first['error']}")
        pipe.end.setblocking(False)
        self._listen()
        for word in words:
            self._take(*word)

    def _spawn(self) -> Pipe:
        """Start the process. It runs this node's code; its settings come over the pipe, none over its arguments."""
        ours, theirs = socket.socketpair()
        module = f"{__package__}.zmq_process"
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno())]
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # an empty one is the working directory
        # It must outlive Ctrl-C and a service manager's SIGTERM, which reach it too, until the node has said goodbye:
        # signals that are blocked here stay blocked there. It ends with the pipe.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._pipe = pipe = Pipe(ours)
        self._born_s = time.monotonic()
        self._quiet = 0
        self._before = self.wire
        pipe.put(Kind.SETTINGS, self._settings)
        pipe.flush()
        return pipe

    def _listen(self) -> None:
        assert self._pipe is not None
        self._dead.clear()
        self._reading = True
        asyncio.get_running_loop().add_reader(self._pipe.end, self._on_readable)

    async def watch(self) -> None:
        """Replace the process of the sockets whenever it dies or hangs, for ever."""
        delay = FIRST_DELAY_S
        while True:
            await self._death()
            lived_s = time.monotonic() - self._born_s
            delay = FIRST_DELAY_S if lived_s > LONG_LIFE_S else min(2 * delay, LAST_DELAY_S)
            self._close_pipe()
            assert self._process is not None
            code = await asyncio.to_thread(_reap, self._process)
            self._deaths.append(time.monotonic())
            self.wire = replace(self.wire, socket_restarts=self.wire.socket_restarts + 1)
            self._last_death = f"signal {-code}" if code < 0 else f"code {code}"
            log.error("channel: the process of the ZeroMQ sockets ended (%s); another is started", self._last_death)
            await asyncio.sleep(delay)
            try:
                self._spawn()
            except OSError as error:
                log.error("channel: no process for the ZeroMQ sockets: %s", error)
                self._dead.set()
            else:
                self._listen()

    async def _death(self) -> None:
        """Wait until the process has closed its pipe, or gives no sign of life.

        Ticks of this loop are counted, not seconds: a node that was frozen itself must not blame its child.
        """
        while not self._dead.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._dead.wait()
            self._quiet += self._reading
            if self._quiet > QUIET_TICKS:
                self._lose()

    def close(self) -> None:
        """Let what was sent leave, and end the process; on the event loop that :meth:`start` ran on."""
        self._stop_watching()
        if self._pipe is not None and self._process is not None:
            with contextlib.suppress(OSError):
                self._pipe.end.settimeout(0.5)
                self._pipe.flush()
                self._pipe.end.shutdown(socket.SHUT_WR)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        self._close_pipe()
        if self._process is not None:
            _reap(self._process)

    def _close_pipe(self) -> None:
        self._stop_watching()
        if self._pipe is not None:
            self._pipe.end.close()
            self._pipe = None

    def _stop_watching(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pipe is not None:
            loop.remove_reader(self._pipe.end)
            loop.remove_writer(self._pipe.end)
        self._reading = False

    # -- packets ------------------------------------------------------------------------------------------------------

    def send(self, packet: bytes) -> None:
        """Send without waiting; without a connection or room the packet is lost (the stream repeats it)."""
        if self._pipe is None or self._dead.is_set() or self._pipe.waiting_bytes > OUT_BYTES:
            return
        waited = self._pipe.waiting_bytes > 0
        self._pipe.put(Kind.PACKET, packet)
        if not waited:
            self._write()

    def _write(self) -> None:
        assert self._pipe is not None
        loop = asyncio.get_running_loop()
        try:
            done = self._pipe.flush()
        except OSError:
            self._lose()
            return
        if done:
            loop.remove_writer(self._pipe.end)
        else:
            loop.add_writer(self._pipe.end, self._write)

    async def receive(self) -> bytes:
        """Wait for the next packet."""
        while not self._inbox:
            self._news.clear()
            await self._news.wait()
        packet = self._inbox.popleft()
        self._inbox_bytes -= len(packet)
        full = self._inbox_bytes >= IN_BYTES // 2
        if not (self._reading or full or self._dead.is_set() or self._pipe is None):
            self._reading = True
            asyncio.get_running_loop().add_reader(self._pipe.end, self._on_readable)
        return packet

    def _on_readable(self) -> None:
        assert self._pipe is not None
        try:
            words = self._pipe.take()
        except (EOFError, OSError):
            self._lose()
            return
        self._quiet = 0
        for word in words:
            self._take(*word)
        if self._inbox_bytes > IN_BYTES:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._pipe.end)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == Kind.PACKET:
            self._inbox.append(body)
            self._inbox_bytes += len(body)
            self._heard = self.wire
            self._news.set()
        elif kind == Kind.NEWS:
            self._hear(json.loads(body))

    def _hear(self, news: dict[str, Any]) -> None:
        if "error" in news:
            log.error("channel: %s: %s", self._endpoint, news["error"])
            return
        counted = ("handshakes", "handshakes_failed", "unknown_keys", "rivals")
        before = self.wire.rivals
        self.wire = replace(self.wire, **{name: getattr(self._before, name) + news[name] for name in counted})
        self._last_unknown = news["last_unknown"] or self._last_unknown
        if self.wire.rivals > before:
            self._rival_s = time.monotonic()

    def _lose(self) -> None:
        """The process is gone; :meth:`watch` replaces it."""
        self._stop_watching()
        self._dead.set()

    # -- what an operator sees ----------------------------------------------------------------------------------------

    def fault(self, *, silent: bool) -> str | None:
        """What keeps packets from flowing; None while nothing does.

        Strangers are counted, never told here: anybody can knock. Failed handshakes are worth a word only if the peer
        is not heard, and only those with the address that Bob's configuration names or, at Alice, those of clients
        that hold her public key.

        Parameters
        ----------
        silent : nothing is heard from the peer.
        """
        often = len(self._deaths) == OFTEN and time.monotonic() - self._deaths[0] < OFTEN_S
        if often or self._dead.is_set():
            return f"the process of the ZeroMQ sockets died ({self._last_death}); a new one takes its place"
        if time.monotonic() - self._rival_s < RIVAL_S:
            return (
                "a second process with the peer's keys asks for its place, and is turned away while the peer is heard: "
                "find who runs a copy of the peer's folder, and stop it"
            )
        unknown, failed = (getattr(self.wire, name) - getattr(self._heard, name) for name in _SUSPICIOUS)
        if not silent or not (unknown if self._bind else failed):
            return None
        who = f"a client at {self._last_unknown}" if self._bind else f"the handshake with {self._endpoint}"
        what = "has another CURVE key than the peer's" if self._bind else f"failed ({failed} times)"
        held = "" if self._bind else " or another process with this node's keys holds the link"
        return f"{who} {what}, and nothing is heard from the peer: if that lasts, {_REMEDY}{held}"


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Kill, and wait until the system has taken the process away; its exit code."""
    process.kill()
    return process.wait()


_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def is_curve_key(raw: bytes) -> bool:
    """Whether this is a CURVE key: 40 Z85 characters (ZeroMQ RFC 32) of 32 bytes."""
    if len(raw) != 40 or not set(raw) <= set(_Z85):
        return False
    digits = [_Z85.index(letter) for letter in raw]
    words: list[int] = [sum(digits[at + i] * 85 ** (4 - i) for i in range(5)) for at in range(0, 40, 5)]
    return max(words) < 1 << 32
