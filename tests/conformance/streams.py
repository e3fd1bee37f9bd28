"""Ways to time taggers and random sources: twins, wires, stand-ins for vendors' software, files, recordings."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.cli.demo import free_ports
from common.config import Config
from common.datatypes import Symbols, TimeTags
from hardware.drivers import quantis, qutag
from hardware.formats import write_tags
from hardware.interfaces import DeviceInfo
from hardware.twin.devices import TwinModulator
from hardware.twin.wire.server import WireServer
from hardware.twin.wire.tags import HEARTBEAT, OVERFLOW, tag_stream
from hardware.twin.wire.time_controller import TimeControllerTwin
from tests.conformance.way import TIMEOUT_S, Opening, Way, local
from tests.unit.hardware import test_quantis, test_qutag, test_replay, test_swabian

BOB = Config(role="bob")
STEP_PS = 100_000_000_000
CLICKS = 40


class Clicks:
    """An endless tagger: some clicks of all detectors every 0.1 s of its own time, as fast as it is read."""

    info = DeviceInfo("time tagger", "clicks", simulated=True)
    resolution_ps = 1.0

    def __init__(self, batches: int = 1 << 30) -> None:
        self._rng, self._until_ps, self._left = np.random.default_rng(1), 0, batches

    def read(self, timeout_s: float) -> TimeTags | None:
        if not self._left:
            return None
        threading.Event().wait(min(timeout_s, 0.005))
        self._left -= 1
        times = np.sort(self._rng.integers(self._until_ps, self._until_ps + STEP_PS, CLICKS))
        self._until_ps += STEP_PS
        return TimeTags(times, np.arange(CLICKS, dtype=np.uint8) % 4, self._until_ps)

    def close(self) -> None:
        pass


# -- time taggers -----------------------------------------------------------------------------------------------------


def tagger_twin(**more: Any) -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        fibre = f"tcp://127.0.0.1:{free_ports(1)[0]}"
        with shining(fibre):
            yield Way("twin-time-tagger", {"fibre": fibre, "preset": "lab-0.17dB", "seed": 1, **more}, config=BOB)

    return way


@contextmanager
def shining(fibre: str) -> Iterator[None]:
    """Alice's light: H in every slot."""
    modulator, dark = TwinModulator({"fibre": fibre}, BOB), threading.Event()

    def shine() -> None:
        zeros, none = np.zeros(1 << 12, np.uint64), np.zeros((0, 1 << 12), np.uint64)
        slot = 0
        while not dark.is_set():
            modulator.send(Symbols(slot, zeros, zeros, none, none))
            slot += 64 * zeros.size

    thread = threading.Thread(target=shine)
    thread.start()
    try:
        yield
    finally:
        dark.set()
        modulator.close()
        thread.join()


def tcp_tags() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        with WireServer() as server:
            port = server.stream(lambda reader, writer: tag_stream(Clicks(), writer))
            marks = {"heartbeat_channel": HEARTBEAT, "overflow_channel": OVERFLOW}
            yield Way("tcp-tags", {"host": "127.0.0.1", "port": port, "simulated": True, **marks}, config=BOB)

    return way


def id_time_controller() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        with TimeControllerTwin(Clicks()) as twin:
            ports = {"port": twin.port, "link_port": twin.link_port, "stream_ports": free_ports(4)}
            parameters = {"host": "127.0.0.1", **ports, "timeout_s": TIMEOUT_S}
            yield Way("id-time-controller", parameters, twin.faults, lambda: not twin.playing, BOB)

    return way


class EndlessBuffers(list[Any]):
    """What the stand-in for Swabian's stream takes its batches from."""

    def __init__(self) -> None:
        self._clicks = Clicks()

    def pop(self, *_: Any) -> test_swabian.Buffer:
        tags = self._clicks.read(0.0)
        assert tags is not None
        numbers = [test_swabian.CHANNELS[channel] for channel in tags.channels]
        return test_swabian.Buffer(tags.times_ps.tolist(), numbers, [0] * len(tags), tags.until_ps)


def swabian() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        vendor = test_swabian.Vendor()
        vendor.buffers = EndlessBuffers()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "Swabian", vendor)
            patch.setitem(sys.modules, "Swabian.TimeTagger", vendor)
            freed = lambda: vendor.freed == vendor.taggers  # noqa: E731
            yield Way("swabian", {"channels": test_swabian.CHANNELS}, None, freed, BOB)

    return way


class EndlessQutag(test_qutag.Library):
    """The stand-in for libtdcbase, clicking."""

    def __init__(self) -> None:
        super().__init__()
        self._clicks = Clicks()

    def TDC_getLastTimestamps(self, reset: int, times: Any, channels: Any, valid: Any) -> int:
        tags = self._clicks.read(0.0)
        assert tags is not None
        inputs = test_qutag.PARAMETERS["channels"]
        self.tags = [(int(time), inputs[one]) for time, one in zip(tags.times_ps, tags.channels, strict=True)]
        return super().TDC_getLastTimestamps(reset, times, channels, valid)


def qutag_library() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        library = EndlessQutag()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(qutag, "load_library", lambda *_: library)
            yield Way("qutag", dict(test_qutag.PARAMETERS), None, lambda: library.initialised == 0, BOB)

    return way


def replay_tagger(suffix: str) -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        with tempfile.TemporaryDirectory() as folder:
            clicks = Clicks(batches=200)
            write_tags(Path(folder) / f"run{suffix}", iter(lambda: clicks.read(0.0), None))
            yield Way("replay-time-tagger", {"path": f"{folder}/run{suffix}"}, config=BOB)

    return way


TAGGERS: dict[str, Callable[[], Opening]] = {
    "twin": tagger_twin,
    "real-time-twin": lambda: tagger_twin(real_time=True, preset="field-14.6dB"),
    "tcp-tags": tcp_tags,
    "id": id_time_controller,
    "swabian": swabian,
    "qutag": qutag_library,
    "replay": lambda: replay_tagger(".feather"),
    "ptu-replay": lambda: replay_tagger(".ptu"),
}


# -- random sources ---------------------------------------------------------------------------------------------------


def random_file() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bits"
            path.write_bytes(np.random.default_rng(3).bytes(1 << 18))
            yield Way("random-file", {"path": str(path), "origin": "a generator of this test"})

    return way


def quantis_library() -> Opening:
    @contextmanager
    def way() -> Iterator[Way]:
        library = test_quantis.Library(np.random.default_rng(4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantis, "load_library", lambda *_: library)
            yield Way("quantis", {})

    return way


def replay_source() -> Opening:
    """A flight recording of Alice's light."""

    @contextmanager
    def way() -> Iterator[Way]:
        with tempfile.TemporaryDirectory() as folder:
            config = test_replay.configuration(Path(folder))
            recorder, writer = test_replay.recorder_of(config)
            recorder.source(Bytes()).read(1 << 18)
            writer.close()
            yield Way("replay-random-source", {"path": f"{folder}/run.flight"}, config=config)

    return way


class Bytes:
    """A source to record."""

    info = DeviceInfo("random source", "bytes", simulated=True)

    def read(self, n_bytes: int) -> Any:
        return np.frombuffer(np.random.default_rng(2).bytes(n_bytes), np.uint8)

    def close(self) -> None:
        raise AssertionError("not to be closed by the recorder")


SOURCES: dict[str, Callable[[], Opening]] = {
    "software": lambda: local("software-random"),
    "device": lambda: local("random-device", path="/dev/urandom"),
    "file": random_file,
    "drbg": lambda: local("drbg-expansion", accept_computational=True, seed={"driver": "software-random"}),
    "quantis": quantis_library,
    "replay": replay_source,
}
