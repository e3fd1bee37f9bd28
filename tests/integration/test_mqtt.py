"""The node at real brokers, Mosquitto and an embedded one: will, retained state, commands, loss and return, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from common.cli.demo import free_ports, running
from common.cli.init import template
from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError
from common.node import credentials, mqtt
from common.node.mqtt import Broker
from common.node.telemetry import prefix
from tests.integration.nodes import TIMEOUT_S, good_blocks, pair, wait_until

PREFIX = "qkd/v1/link/bob"
PATIENCE_S = 20.0
EMBEDDED = """
import asyncio, sys
from amqtt.broker import Broker
async def main():
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}}, "plugins": plugins})
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
CRASH = """
import asyncio, sys
from pathlib import Path
from common.config_file import parse_config
from common.node.mqtt import Broker
config = parse_config(sys.argv[1], Path("."))
status = lambda: {"state": "locked", "alarms": [], "details": {}, "watched": {}}
asyncio.run(Broker(config, 1, {}, status, dict, {}).run())
"""


class Server:
    """One broker as a process of its own; it can die and come back on the same port."""

    def __init__(self, command: Callable[[int], list[str]], version: str = "5") -> None:
        (self.port,) = free_ports(1)
        self.version = version
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command(self.port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def wait_for_port(port: int) -> None:
    for _ in range(2000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        select.select([], [], [], 0.01)
    raise AssertionError("the broker does not listen")


def mosquitto_config(directory: Path, port: int, extra: str = "") -> list[str]:
    path = directory / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n{extra}")
    return [mosquitto(), "-c", str(path)]


def mosquitto() -> str:
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        message = "install Mosquitto (Debian: apt-get install mosquitto) to test against it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(params=["mosquitto", "embedded"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "mosquitto":
        mosquitto()
        made = Server(lambda port: mosquitto_config(tmp_path, port))
    else:
        made = Server(lambda port: [sys.executable, "-W", "ignore", "-c", EMBEDDED, str(port)], "3.1.1")
    made.start()
    yield made
    made.stop()


def config_text(port: int, version: str = "5", extra: str = "") -> str:
    return (
        f'role = "bob"\n[mqtt]\nenabled = true\nport = {port}\ncommands = true\ntelemetry_interval_s = 0.1\n'
        f'min_attenuation_db = 5.0\nversion = "{version}"\n{extra}'
    )


def config(port: int, version: str = "5", extra: str = "", directory: Path = Path()) -> Config:
    return parse_config(config_text(port, version, extra), directory)


class Node:
    """What a node gives its broker."""

    def __init__(self) -> None:
        self.alarms: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def status(self) -> dict[str, Any]:
        seen = {"details": {"slips": 0}, "watched": {"x_share": 0.1}}
        return {"state": "locked", "peer": "up", "qber": 0.025, "alarms": self.alarms, **seen}

    def set(self, request: Any) -> dict[str, Any]:
        self.asked.append(dict(request))
        return dict(request)

    @contextlib.asynccontextmanager
    async def at(self, settings: Config) -> AsyncIterator[Broker]:
        readings = {"attenuator": {"ok": True, "attenuation_db": 6.0}}
        broker = Broker(
            settings, 3, {"software": "x"}, self.status, lambda: readings, {("attenuator", "set"): self.set}
        )
        task = asyncio.ensure_future(broker.run())
        try:
            yield broker
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def next_on(client: aiomqtt.Client, topic: str, wanted: Callable[[bytes], bool] = bool) -> bytes:
    """The payload of the next message under ``topic`` that fits."""
    async with asyncio.timeout(PATIENCE_S):
        async for message in client.messages:
            payload = bytes(message.payload or b"")
            if message.topic.matches(f"{PREFIX}/{topic}") and wanted(payload):
                return payload
    raise AssertionError


async def retained(client: aiomqtt.Client, *topics: str) -> dict[str, bytes]:
    """What the broker keeps under these topics, in whatever order it comes."""
    seen: dict[str, bytes] = {}
    async with asyncio.timeout(PATIENCE_S):
        async for message in client.messages:
            if message.retain:
                seen[message.topic.value.removeprefix(f"{PREFIX}/")] = bytes(message.payload)
            if set(topics) <= set(seen):
                return seen
    raise AssertionError


@contextlib.asynccontextmanager
async def reader(port: int, **tls: Any) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", port, **tls) as client:
        await client.subscribe(f"{PREFIX}/#", qos=1)
        yield client


async def test_a_late_reader_sees_what_there_is(server: Server) -> None:
    node = Node()
    node.alarms = ["peer: silent"]
    async with node.at(config(server.port, server.version)), reader(server.port) as client:
        await next_on(client, "tele/rates")
        async with reader(server.port) as late:
            seen = await retained(late, "availability", "birth", "state", "dev/attenuator/state", "alarm/peer")
        assert json.loads(seen["birth"])["session"] == 3
        assert json.loads(seen["state"])["state"] == "locked"
        assert json.loads(await next_on(client, "tele/rates"))["qber"] == 0.025
        node.alarms = []
        await next_on(client, "alarm/peer", lambda payload: payload == b"")
    async with reader(server.port) as client:
        assert await next_on(client, "availability") == b"offline"


async def test_a_killed_node_is_offline_by_its_will(server: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASH, config_text(server.port, server.version)
    )
    async with reader(server.port) as client:
        await next_on(client, "availability", b"online".__eq__)
        process.kill()
        await process.wait()
        await next_on(client, "availability", b"offline".__eq__)


async def test_commands_are_answered_with_the_askers_correlation(server: Server) -> None:
    node = Node()
    async with node.at(config(server.port, server.version)), reader(server.port) as client:
        await next_on(client, "tele/rates")
        request = json.dumps({"id": "one", "attenuation_db": 7.0})
        await client.publish(f"{PREFIX}/cmd/attenuator/set", request, qos=1)
        answer = json.loads(await next_on(client, "ack/attenuator/set"))
        assert answer == {"id": "one", "ok": True, "values": {"attenuation_db": 7.0}}
        node.alarms = ["light: gone"]
        await client.publish(f"{PREFIX}/cmd/attenuator/set", json.dumps({"id": "two"}), qos=1)
        assert "alarm" in json.loads(await next_on(client, "ack/attenuator/set"))["reason"]
        assert len(node.asked) == 1


async def test_a_fault_on_the_way_out_does_not_keep_it_going(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connection(self: Broker) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise aiomqtt.MqttError("the farewell failed") from None

    monkeypatch.setattr(Broker, "_connection", connection)
    (port,) = free_ports(1)
    task = asyncio.ensure_future(Broker(config(port), 3, {}, Node().status, dict, {}).run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=PATIENCE_S)
    assert task.cancelled()


async def test_the_broker_dies_and_returns(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PATIENCE_S", 0.05)
    node = Node()
    async with node.at(config(server.port, server.version)):
        async with reader(server.port) as client:
            await next_on(client, "tele/rates")
        server.stop()
        server.start()
        async with reader(server.port) as client:
            await next_on(client, "tele/rates")
        async with reader(server.port) as late:
            assert (await retained(late, "availability", "state"))["availability"] == b"online"


async def test_no_broker_at_all_is_told_once_and_harmless(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr(mqtt, "MOST_PATIENCE_S", 0.01)
    (port,) = free_ports(1)
    tries = asyncio.Semaphore(0)
    connection = Broker._connection

    async def counted(self: Broker) -> None:
        tries.release()
        await connection(self)

    monkeypatch.setattr(Broker, "_connection", counted)
    async with Node().at(config(port)) as broker, asyncio.timeout(PATIENCE_S):
        for _ in range(5):
            await tries.acquire()
        assert "cannot be reached" in str(broker.fault)
    assert len([record for record in caplog.records if record.name == "qkd.mqtt"]) == 1


@pytest.mark.parametrize("server", ["mosquitto"], indirect=True)
def test_keys_are_made_whether_the_broker_lives_or_not(server: Server, tmp_path: Path) -> None:
    alice, bob = pair(tmp_path / "link")
    for daemon in (alice, bob):
        with daemon.config.open("a") as text:
            text.write(f'\n[mqtt]\nenabled = true\nport = {server.port}\nversion = "{server.version}"\n')

    async def blocks_are_reported() -> None:
        topic = f"qkd/v1/lab-0.17dB/{bob.role}/tele/key"
        async with aiomqtt.Client("127.0.0.1", server.port) as client, asyncio.timeout(TIMEOUT_S):
            await client.subscribe(topic)
            async for message in client.messages:
                if json.loads(bytes(message.payload))["blocks_committed"] > 0:
                    return

    with running(alice, bob):
        asyncio.run(blocks_are_reported())
        server.stop()
        alice.poll()
        bob.poll()
        before = good_blocks(alice, bob)
        wait_until(lambda: good_blocks(alice, bob) >= before + 2, alice, bob)


@contextlib.contextmanager
def example_broker(tmp_path: Path) -> Iterator[int]:
    """Mosquitto with TLS and the access list of `deploy`; certificates of those whom the list names."""
    authority = credentials.make_authority("link")
    (tmp_path / "ca.crt").write_bytes(credentials.pem(authority.certificate))
    for name in ("broker", "example-bob", "other-bob", "operator", "reader"):
        hosts = ("127.0.0.1",) if name == "broker" else ()
        certificate, key = credentials.make_certificate(authority, name, hosts)
        (tmp_path / f"{name}.crt").write_bytes(certificate)
        (tmp_path / f"{name}.key").write_bytes(key)
    example = Path(__file__).parents[2] / "deploy" / "mosquitto.acl"
    (tmp_path / "acl").write_text(example.read_text())
    (tmp_path / "acl").chmod(0o600)
    (port,) = free_ports(1)
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\nuser root\ncafile {tmp_path}/ca.crt\ncertfile {tmp_path}/broker.crt\n"
        f"keyfile {tmp_path}/broker.key\nrequire_certificate true\nuse_identity_as_username true\n"
        f"acl_file {tmp_path}/acl\n"
    )
    server = Server(lambda port: [mosquitto(), "-c", str(conf)])
    server.port = port
    server.start()
    try:
        yield port
    finally:
        server.stop()


def as_in_the_template(tmp_path: Path, port: int, name: str) -> Config:
    """The configuration that `qkd init` writes, with the broker's lines; the certificate is of this name."""
    lines = f'ca_certificate = "ca.crt"\ncertificate = "{name}.crt"\nprivate_key = "{name}.key"\n'
    link = tomllib.loads(template("bob"))["link"]["name"]
    return config(port, "5", f'{lines}[link]\nname = "{link}"\n', tmp_path)


def tls(tmp_path: Path, name: str) -> dict[str, Any]:
    files = (str(tmp_path / f"{name}.{kind}") for kind in ("crt", "key"))
    return {"tls_params": aiomqtt.TLSParameters(str(tmp_path / "ca.crt"), *files)}


async def test_tls_and_acl_as_in_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PREFIX", "qkd/v1/example/bob")
    node = Node()
    with example_broker(tmp_path) as port:
        settings = as_in_the_template(tmp_path, port, "example-bob")
        async with node.at(settings) as broker, reader(port, **tls(tmp_path, "operator")) as operator:
            await next_on(operator, "tele/rates")
            async with aiomqtt.Client("127.0.0.1", port, **tls(tmp_path, "reader")) as stranger:
                await stranger.publish(f"{PREFIX}/cmd/attenuator/set", json.dumps({"id": "x"}), qos=1)
            await operator.publish(f"{PREFIX}/cmd/attenuator/set", json.dumps({"id": "mine"}), qos=1)
            assert json.loads(await next_on(operator, "ack/#"))["id"] == "mine"
            assert broker.fault is None
    assert len(node.asked) == 1


async def test_what_the_broker_refuses_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The access list names another node: the broker takes the connection and drops every message."""
    with example_broker(tmp_path) as port:
        async with Node().at(as_in_the_template(tmp_path, port, "other-bob")) as broker, asyncio.timeout(PATIENCE_S):
            while broker.fault is None:  # noqa: ASYNC110 - another process brings it about
                await asyncio.sleep(0.01)
    assert "qkd/v1/example/bob" in broker.fault
    assert "ot authorized" in broker.fault
    told = [record.message for record in caplog.records if record.name == "qkd.mqtt" and record.levelname == "WARNING"]
    assert len([text for text in told if "ot authorized" in text]) == 1


def test_the_access_list_fits_what_init_writes() -> None:
    link = tomllib.loads(template("alice"))["link"]["name"]
    text = (Path(__file__).parents[2] / "deploy" / "mosquitto.acl").read_text()
    rules = {rules.split()[0]: rules.splitlines()[1:] for rules in text.split("user ")[1:]}
    for role in ("alice", "bob"):
        assert f"topic write {prefix(link, role)}/#" in rules[f"{link}-{role}"]


def test_files_that_cannot_be_read_are_named() -> None:
    for extra in ('password_file = "no"\n', 'ca_certificate = "no"\n'):
        with pytest.raises(ConfigurationError, match="mqtt"):
            Broker(config(1883, "5", extra), 1, {}, dict, dict, {})


async def test_a_cancellation_that_is_swallowed_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `asyncio.wait_for` of Python 3.11 does with one that comes together with what it waits for."""
    monkeypatch.setattr("common.node.mqtt.CANCEL_AGAIN_S", 0.01)
    broker, begun = Broker(config(1883), 1, {}, dict, dict, {}), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    monkeypatch.setattr(broker, "_connection", stubborn)
    running = asyncio.ensure_future(broker.run())
    await begun.wait()
    running.cancel()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(asyncio.CancelledError):
            await running


# -- brokers that lie ------------------------------------------------------------------------------------------------


class Liar:
    """A broker that takes a connection and every publication, and sends what it likes."""

    def __init__(self, sent: bytes) -> None:
        self.sent, self.connections, self.connects = sent, 0, b""
        self.closed, self.later = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        sent = False
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, body = await packet(reader)
                if sent and kind >> 4 == 3:
                    self.later.set()
                match kind >> 4:
                    case 1:
                        self.connects = body
                        writer.write(b"\x20\x03\0\0\0")
                    case 8:
                        writer.write(b"\x90\x04" + body[:2] + b"\0\x01")
                    case 3 if kind & 6:
                        at = 2 + int.from_bytes(body[:2], "big")
                        writer.write(b"\x40\x02" + body[at : at + 2])
                        if body[2:at].endswith(b"/state"):
                            writer.write(self.sent)
                            sent = True
        writer.close()
        self.closed.set()


async def packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind, length, shift, byte = (await reader.readexactly(1))[0], 0, 0, 0x80
    while byte & 0x80:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
    return kind, await reader.readexactly(length)


def publication(topic: bytes, payload: bytes = b"x") -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + b"\0" + payload
    return bytes([0x30, len(body)]) + body


@pytest.mark.parametrize("topic", [b"\xff\xfe", b"qkd/+/#", b""], ids=["no text", "a wildcard", "nothing"])
async def test_a_broker_that_sends_what_is_no_message_is_left_at_once(
    topic: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would hand the same packet in again and again, with a line in the log each time."""
    monkeypatch.setattr(mqtt, "FIRST_PATIENCE_S", 0.01)
    monkeypatch.setattr(mqtt, "GOODBYE_S", 1000.0)
    liar = Liar(publication(topic) * 3)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Node().at(config(port)) as broker, asyncio.timeout(PATIENCE_S):
        while liar.connections < 3:
            await liar.closed.wait()
            liar.closed.clear()
        assert broker.fault is None or "cannot be reached" in broker.fault
    assert len(caplog.records) < 5 * liar.connections, [record.getMessage() for record in caplog.records[:20]]


async def test_a_flood_is_not_repeated_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    liar = Liar(publication(f"{PREFIX}/alarm/x".encode()) * 5000)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    async with server, Node().at(config(server.sockets[0].getsockname()[1])), asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            await liar.later.wait()
            liar.later.clear()
    assert len(caplog.records) < 20
    assert b"\x27" + mqtt.MAX_PACKET_BYTES.to_bytes(4, "big") in liar.connects
