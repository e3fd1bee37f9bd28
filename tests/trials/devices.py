"""Devices that fall ill: each detector, the tagger, the random source, the power, the instruments, the broker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.demo import Daemon, free_ports
from common.config_file import load_config
from hardware.twin.wire.server import WireServer
from tests.trials.benches import LASER_W, Bench, H, Harm, L, R, V
from tests.trials.links import Link
from tests.trials.registry import Verdict, trial

NONE = "none"
"""No alarm is due: light that waits for a simulation stands still for many reasons."""
PRESET = "lab-0.17dB"
SOON_S = 90.0
MOSQUITTO_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes
    ----------
    what : in words. role : the end that must tell. harm : does it. alarm : its name; `ends` where the node must end
    with exit code 3. word : that the text has. stays : no key may come while it lasts.
    """

    what: str
    role: str
    harm: Harm
    alarm: str
    word: str
    stops_key: bool = True


def _dead(detector: int, share: float = 1.0) -> Harm:
    return lambda bench: bench.tags.dead.update({detector: share})


def _set(**values: Any) -> Harm:
    return lambda bench: vars(bench.tags).update(values)


def _mode(mode: str) -> Harm:
    return lambda bench: setattr(bench.fountain, "mode", mode)


def _wire(name: str, **values: Any) -> Harm:
    return lambda bench: vars(bench.faults[name]).update(values)


FAULTS = (
    Fault("detector H dead", "bob", _dead(H), "detectors", "H"),
    Fault("detector V dead", "bob", _dead(V), "detectors", "V"),
    Fault("detector R dead", "bob", _dead(R), "detectors", "R"),
    Fault("detector L dead", "bob", _dead(L), "detectors", "L"),
    Fault("detector V half blind", "bob", _dead(V, 0.5), "detectors", "V"),
    Fault("detectors H and V swapped", "bob", _set(swapped=(H, V)), "", ""),
    Fault("detectors V and R swapped", "bob", _set(swapped=(V, R)), "detectors", ""),
    Fault("detector L noisy", "bob", _set(noisy=L), "", ""),
    Fault("tagger loses tags in every batch", "bob", _set(overflow=True), "tagger", "lost"),
    Fault("tagger loses its reference", "bob", _set(reference_locked=False), "reference", "lost"),
    Fault("simulated tagger hangs", "bob", _set(silent=True), NONE, ""),
    Fault("power above its window", "alice", lambda bench: setattr(bench.meter, "source_w", 2 * LASER_W), "power", "W"),
    Fault("power meter silent", "alice", _wire("power_meter", silent=True), "power", "meter"),
    Fault("power meter answers noise", "alice", _wire("power_meter", garbage=True), "power", "meter"),
    Fault("attenuator silent", "alice", _wire("attenuator", silent=True), "devices", "", stops_key=False),
    Fault(
        "attenuator closes connections", "alice", _wire("attenuator", half_open=True), "devices", "", stops_key=False
    ),
    Fault("detector bias silent", "bob", _wire("detector_bias", silent=True), "devices", "", stops_key=False),
    Fault("detector bias answers noise", "bob", _wire("detector_bias", garbage=True), "devices", "", stops_key=False),
)
RANDOM = (
    Fault("random source sticks", "alice", _mode("sticks"), "random source", "dropped"),
    Fault("random source repeats 4 096 bytes", "alice", _mode("repeats"), "random source", "dropped"),
    Fault("random source hangs", "alice", _mode("hangs"), "random source", "nothing came"),
)
"""Each on a fresh start: a second alarm within an hour ends the node."""


@trial("devices")
def devices(folder: Path, quick: bool) -> Iterator[Verdict]:
    """One bench for all; every fault is healed before the next."""
    link = Link(folder / "link")
    fibre = str((load_config(link.bob.config).devices["time_tagger"].model_extra or {})["fibre"])
    with WireServer() as server, _broker(folder) as broker:
        bench = Bench(server, fibre, PRESET)
        for daemon in link.both:
            link.edit(daemon, lambda document, role=daemon.role: _on_bench(document, bench.devices(role), broker.port))  # type: ignore[misc]
        with link.running(consumers=True):
            for fault in FAULTS[:: 5 if quick else 1]:
                yield from _one(link, bench, fault)
            yield from _broker_gone(link, broker)
            for fault in RANDOM[: 1 if quick else None]:
                yield from _one(link, bench, fault, restart=link.alice)
            bench.fountain.mode = "gone"
            code = link.await_end(link.alice, SOON_S)
            said = link.reason(link.alice) if code is not None else link.alarm(link.alice, "random source")
            good = code == 3 or bool(said)
            yield Verdict(
                "random source unplugged", "alarm, or exit code 3 with a reason", f"{code}: {said[:160]}", good
            )
            for daemon in (link.bob, link.alice):
                daemon.stop()
            if link.consumers is not None:
                faults = [*link.consumers.faults(), *link.tracebacks]
                yield Verdict(
                    "all keys after the devices' faults",
                    "none twice, none different",
                    "; ".join(faults) or "none",
                    not faults,
                )


def _on_bench(document: Any, manifest: dict[str, Any], port: int) -> None:
    document["devices"] = manifest
    document.setdefault("source", {})["power_lower_w"] = 0.9 * LASER_W
    document["source"]["power_upper_w"] = 1.1 * LASER_W
    document["mqtt"] = {"enabled": True, "port": port, "commands": True}


def _one(link: Link, bench: Bench, fault: Fault, restart: Daemon | None = None) -> Iterator[Verdict]:
    """Harm, look for the alarm, heal; ``restart`` : an end whose alarm stays for an hour, by intent."""
    daemon = {"alice": link.alice, "bob": link.bob}[fault.role]
    fault.harm(bench)

    def told() -> str:
        alarms = daemon.status().get("alarms", [])
        return next((text for text in alarms if text.startswith(fault.alarm) and fault.word in text), "")

    link.until(lambda: bool(told()) or link.ended(daemon) is not None, 15.0 if fault.alarm == NONE else SOON_S)
    seen = told() or (link.reason(daemon) if link.ended(daemon) is not None else "")
    refused = "; ".join(sorted({block["reason"][:80] for block in daemon.blocks[-3:] if not block["secret_bits"]}))
    name = f"alarm `{fault.alarm}`" if fault.alarm else "an alarm"
    if fault.alarm != NONE:
        text = seen[:200] or f"no alarm; {refused or 'no word'}"
        yield Verdict(fault.what, f"{name} with cause and remedy", text, bool(seen))
    if fault.stops_key:
        link.await_blocks(2, 5.0)  # what was begun before
        made = link.await_blocks(1, 5.0)
        yield Verdict(f"{fault.what}: keys meanwhile", "none", "keys" if made else "none", not made)
    bench.heal()
    if restart is not None and link.ended(restart) is None:
        link.end(restart)
    ended = [one for one in link.both if link.ended(one) is not None]
    if ended:
        link.restart(*ended)
    yield link.goes_on(f"{fault.what}, over")


class _broker:
    """Mosquitto, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._program = shutil.which("mosquitto", path=MOSQUITTO_PATH)
        self._file = folder / "mosquitto.conf"
        self._file.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def there(self) -> bool:
        return self._program is not None

    def start(self) -> None:
        if self._program is not None:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen([self._program, "-c", str(self._file)], **quiet)  # type: ignore[call-overload]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> _broker:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def _broker_gone(link: Link, broker: _broker) -> Iterator[Verdict]:
    if not broker.there:
        yield Verdict("MQTT broker gone", "Mosquitto is installed", "it is not", False)
        return
    broker.kill()
    made = link.await_blocks(2)
    link.until(lambda: "broker" in link.alarms() or "mqtt" in link.alarms().lower(), 30.0)
    seen = link.alarms()
    yield Verdict(
        "MQTT broker gone",
        "an alarm; keys go on",
        f"{'keys' if made else 'no key'}; {seen or 'no alarm'}",
        made and bool(seen),
    )
    broker.start()
    yield link.goes_on("MQTT broker back")
