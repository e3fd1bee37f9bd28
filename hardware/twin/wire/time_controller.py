"""An ID1000 and its DataLinkTargetService over ZeroMQ, in front of any object that reads like a tagger."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from typing import Self

import numpy as np
import zmq

from common.datatypes import TimeTags
from hardware.interfaces import TimeTagger
from hardware.twin.wire.server import Faults

POLL_MS = 5
BIND_TRIES = 40
MAX_QUEUE = 64


class TimeControllerTwin:
    """Both REP services and the streams, in one thread; ``port`` and ``link_port`` are where they listen."""

    def __init__(self, tagger: TimeTagger, host: str = "127.0.0.1") -> None:
        self.faults, self._tagger, self._host = Faults(), tagger, host
        self._context = zmq.Context()
        self._control, self._link = self._context.socket(zmq.ROUTER), self._context.socket(zmq.ROUTER)
        self.port = self._control.bind_to_random_port(f"tcp://{host}")
        self.link_port = self._link.bind_to_random_port(f"tcp://{host}")
        self.playing = False
        self.errors = dict.fromkeys(range(1, 5), 0)
        self._sending: dict[int, bool] = {}
        self._streams: dict[int, zmq.Socket[bytes]] = {}
        self._queues: dict[int, deque[bytes]] = {}
        self._length_ps = self._period_ps = 0
        self._start_ps, self._until_ps = -1, 0
        self._tags: list[TimeTags] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="time controller twin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        poller = zmq.Poller()
        services = {self._control: self._scpi, self._link: self._service}
        for socket in services:
            poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            for socket, _ in poller.poll(POLL_MS):
                *envelope, body = socket.recv_multipart()
                answer = services[socket](body.decode("utf-8", "replace"))
                if not (self.faults.silent or self.faults.half_open):
                    socket.send_multipart([*envelope, b"\xff?!" if self.faults.garbage else answer.encode()])
            if self.playing and all(len(queue) < MAX_QUEUE for queue in self._queues.values()):
                self._acquire()  # the light's time stands still while the client is behind
            self._flush()
        for socket in (*services, *self._streams.values()):
            socket.close(linger=0)
        self._context.term()

    def _scpi(self, message: str) -> str:
        if self.faults.error and "?" not in message:
            error, self.faults.error = self.faults.error, ""
            return f"SCPI_ERR_{error}"
        if message == "*IDN?":
            return self.faults.identity or "ID Quantique,ID1000,TWIN0005,2.10.1"
        if found := re.fullmatch(r"RAW([1-4]):(.+)", message):
            return self._raw(int(found.group(1)), found.group(2))
        if found := re.fullmatch(r"REC:PWID (\d+);PPER (\d+)", message):
            self._length_ps, self._period_ps = int(found.group(1)), int(found.group(2))
        elif message in ("REC:PLAY", "REC:STOP"):
            self.playing, self._start_ps, self._tags = message == "REC:PLAY", -1, []
        elif not re.match(r"(REC:(TRIG:ARM:MODE|ENABle|NUM) |TSCO[1-4]:FIR:LINK INPU[1-4];)", message):
            return "SCPI_ERR_UNDEFINED_HEADER"
        return ""

    def _raw(self, channel: int, rest: str) -> str:
        if rest == "ERRORS?":
            return str(self.errors[channel])
        if rest == "ERRORS:CLEAR":
            self.errors[channel] = 0
        elif rest in ("SEND ON", "SEND OFF"):
            self._sending[channel] = rest == "SEND ON"
        elif not rest.startswith("STOP:LINK "):
            return "SCPI_ERR_UNDEFINED_HEADER"
        return ""

    def _service(self, message: str) -> str:
        if found := re.fullmatch(r"start-stream --address \S+ --channel ([1-4]) --stream-port (\d+)", message):
            channel, port = int(found.group(1)), int(found.group(2))
            if channel in self._streams:
                return json.dumps({"error": {"description": "already streaming"}})
            stream = self._context.socket(zmq.PAIR)
            if not self._bound(stream, port):
                stream.close(linger=0)
                return json.dumps({"error": {"description": f"port {port} is in use"}})
            self._streams[channel], self._queues[channel] = stream, deque()
            return json.dumps({"id": f"stream:{channel}"})
        if message == "list":
            return json.dumps([f"stream:{channel}" for channel in self._streams])
        if found := re.fullmatch(r"stop --id stream:([1-4])", message):
            stopped = self._streams.pop(int(found.group(1)), None)
            if stopped is None:
                return json.dumps({"error": {"description": "no such acquisition"}})
            stopped.close(linger=0)
            return json.dumps({"status": {"errors": []}})
        return json.dumps({"error": {"description": f"unknown command {message}"}})

    def _bound(self, stream: zmq.Socket[bytes], port: int) -> bool:
        """Bind; a socket that was closed just now lets its port go a little later."""
        for _ in range(BIND_TRIES):
            try:
                stream.bind(f"tcp://{self._host}:{port}")
            except zmq.ZMQError as error:
                if error.errno != zmq.EADDRINUSE:
                    raise
                self._stop.wait(POLL_MS / 1000.0)
            else:
                return True
        return False

    def _acquire(self) -> None:
        """Read the tagger; send every sub-acquisition that is over."""
        if self._start_ps >= 0 or not self._tags:
            tags = self._tagger.read(POLL_MS / 1000.0)
            if tags is None:
                self.playing = False
                return
            self._tags.append(tags)
            self._until_ps = tags.until_ps
        if self._start_ps < 0:
            self._start_ps = int(self._tags[0].times_ps[0]) if len(self._tags[0]) else self._until_ps
        while self._until_ps >= self._start_ps + self._period_ps:
            self._send_one()

    def _send_one(self) -> None:
        times = np.concatenate([tags.times_ps for tags in self._tags]) - self._start_ps
        channels = np.concatenate([tags.channels for tags in self._tags])
        for channel, queue in self._queues.items():
            mine = times[(channels == channel - 1) & (times >= 0) & (times < self._length_ps)]
            if any(tags.overflow for tags in self._tags):
                self.errors[channel] += 1
            if self._sending.get(channel):
                queue.append(mine.astype("<i8").tobytes())
        self._start_ps += self._period_ps
        late = times >= self._period_ps
        rest = TimeTags(times[late] + self._start_ps - self._period_ps, channels[late], self._until_ps)
        self._tags = [rest]

    def _flush(self) -> None:
        for channel, stream in self._streams.items():
            queue = self._queues[channel]
            while queue and not self.faults.silent:
                try:
                    stream.send(queue[0], zmq.NOBLOCK)
                except zmq.Again:
                    break
                queue.popleft()
