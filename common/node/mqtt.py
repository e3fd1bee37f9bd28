"""The node at an MQTT broker: availability, birth, state, telemetry, alarms, slow control.

The only file that knows MQTT. Key production never waits for the broker: it is told what is there when it can be
reached and tried again with growing patience when not; its loss costs nothing but telemetry. Uses `aiomqtt`, the
successor of asyncio-mqtt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.config import Config
from common.errors import ConfigurationError
from common.files import read_file
from common.node.runtime import now_ns
from common.node.telemetry import Command, Commands, Publication, Readings, Reporter
from common.units import NS_PER_S

log = logging.getLogger("qkd.mqtt")
_LIBRARY = logging.getLogger("qkd.mqtt.library")
_LIBRARY.setLevel(logging.CRITICAL)  # it has a line for every message of a flood; faults are raised, and told here
FIRST_PATIENCE_S = 1.0
MOST_PATIENCE_S = 30.0
TIMEOUT_S = 5.0
CANCEL_AGAIN_S = 2.0
GOODBYE_S = 1.0
MAX_QUEUED = 256
MAX_PACKET_BYTES = 1 << 16
"""What a broker may send at once (MQTT 5 tells it so): commands are of 4 kB at most."""
REFUSAL_NS = 30 * NS_PER_S
"""A refusal is an alarm for so long: what is retained is published again within ten seconds."""
SUBSCRIPTION_FAILED = 0x80
"""Of MQTT 3.1.1; there, no broker says that it drops a publication."""
_VERSIONS = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}


class Client(aiomqtt.Client):
    """Also remembers what the broker has acknowledged and refused (MQTT 5, reason code of PUBACK)."""

    refused: str | None = None

    @property
    def lost(self) -> bool:
        """The connection broke, or what came over it cannot be read."""
        return self._disconnected.done()

    def drop(self) -> None:
        """Close the socket at once: the library would try again and again to read what it cannot."""
        self._client._sock_close()
        if not self._disconnected.cancelled():
            self._disconnected.exception()  # looked at: it is told by what was under way, not by a traceback as well

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        self.refused = str(reason_code) if reason_code.is_failure else self.refused
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def take_refusal(self) -> str | None:
        """Why the broker refused something since the last call."""
        refusal, self.refused = self.refused, None
        return refusal


class Broker:
    """The node's connection to its broker.

    Parameters
    ----------
    config : `[mqtt]` and the names of the link.
    session : this process's start counter.
    birth : what this run is.
    status : the node's public state, as `status.json` shows it.
    readings : values of the slow devices; may block.
    verbs : what operators may ask of them (only with `mqtt.commands`).

    Raises
    ------
    ConfigurationError
        A certificate, key or password file cannot be read.
    """

    def __init__(
        self,
        config: Config,
        session: int,
        birth: Mapping[str, Any],
        status: Callable[[], Mapping[str, Any]],
        readings: Callable[[], Readings],
        verbs: Mapping[tuple[str, str], Command],
    ) -> None:
        self._config, self._birth, self._status, self._readings = config.mqtt, birth, status, readings
        self._reporter = Reporter(config.link.name, config.role, session)
        self._commands = Commands(self._reporter.prefix, verbs if config.mqtt.commands else {})
        self._identifier = f"qkd-{config.link.name}-{config.role}"
        self._tls, self._password = proofs(config)
        self._patience_s, self._told = FIRST_PATIENCE_S, ""
        self._refused_ns = -REFUSAL_NS
        self._refusal = ""
        self._stopping = False

    @property
    def fault(self) -> str | None:
        """What keeps telemetry from its readers; None while nothing does."""
        if self._told:
            return f"{self._config.host} cannot be reached: {self._told}"
        return self._refusal if now_ns() - self._refused_ns < REFUSAL_NS else None

    def _refuse(self, what: str, reason: str) -> None:
        text = f"{self._config.host} refuses {what} {self._reporter.prefix}: {reason}"
        if text != self._refusal:
            log.warning("broker %s; look at its access list", text)
        self._refusal, self._refused_ns = text, now_ns()

    async def run(self) -> None:
        """For ever; only cancellation ends it."""
        connections = asyncio.ensure_future(self._connect())
        try:
            await asyncio.wait({connections})
        finally:
            self._stopping = True
            while not connections.done():  # what swallows one cancellation (see below) does not swallow the next
                connections.cancel()
                await asyncio.wait({connections}, timeout=CANCEL_AGAIN_S)
            if not connections.cancelled():
                connections.result()

    async def _connect(self) -> None:
        """Again and again, until told to stop.

        Cancelling alone does not end it: what completes at the same moment swallows it (`asyncio.wait_for` of Python
        3.11, in aiomqtt), and a fault of the farewell takes its place.
        """
        while not self._stopping:
            try:
                await self._connection()
            except* (aiomqtt.MqttError, OSError) as group:
                reason = str(group.exceptions[0])
                if reason != self._told:
                    log.warning("broker %s: %s; key production goes on", self._config.host, reason)
                self._told = reason
            if not self._stopping:
                await asyncio.sleep(self._patience_s)
                self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S)

    async def _connection(self) -> None:
        mqtt, reporter = self._config, self._reporter
        offline = reporter.availability(False)
        async with Client(
            mqtt.host,
            mqtt.port,
            username=mqtt.username,
            password=self._password,
            identifier=self._identifier,
            protocol=_VERSIONS[mqtt.version],
            will=aiomqtt.Will(offline.topic, offline.payload, offline.qos, offline.retain),
            tls_context=self._tls,
            timeout=TIMEOUT_S,
            max_queued_incoming_messages=MAX_QUEUED,
            max_queued_outgoing_messages=MAX_QUEUED,
            logger=_LIBRARY,
            properties=_limits() if mqtt.version == "5" else None,
        ) as client:
            self._patience_s, self._told = FIRST_PATIENCE_S, ""
            log.info("broker %s:%d: connected", mqtt.host, mqtt.port)
            try:
                await self._converse(client)
            finally:
                if client.lost:
                    client.drop()  # without a goodbye: the will speaks
                else:
                    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                        async with asyncio.timeout(GOODBYE_S):
                            await self._publish(client, offline)

    async def _converse(self, client: Client) -> None:
        reporter = self._reporter
        reporter.restart()
        await self._subscribe(client, "alarm/+")
        if self._config.commands:
            await self._subscribe(client, "cmd/#")
        await self._publish(client, reporter.birth(self._birth))
        await self._publish(client, reporter.availability(True))
        await self._report(client)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_on_time(client))
            tasks.create_task(self._listen(client))

    async def _subscribe(self, client: Client, below: str) -> None:
        for code in await client.subscribe(f"{self._reporter.prefix}/{below}", qos=1):
            if getattr(code, "is_failure", code == SUBSCRIPTION_FAILED):
                self._refuse(f"to let this node read {below} below", str(code))

    async def _report(self, client: Client) -> None:
        devices = await asyncio.to_thread(self._readings)
        for publication in self._reporter.update(self._status(), devices, now_ns()):
            await self._publish(client, publication)

    async def _report_on_time(self, client: Client) -> None:
        while not self._stopping:
            await asyncio.sleep(self._config.telemetry_interval_s)
            await self._report(client)

    async def _listen(self, client: Client) -> None:
        prefix = self._reporter.prefix
        async for message in client.messages:
            if self._stopping:
                return
            topic, payload = message.topic.value, bytes(message.payload or b"")
            if topic.startswith(f"{prefix}/alarm/"):
                if message.retain:
                    for publication in self._reporter.stale_alarm(topic, payload):
                        await self._publish(client, publication)
                continue
            answer = await asyncio.to_thread(
                self._commands.carry_out, topic, payload, retained=message.retain, alarms=list(self._status()["alarms"])
            )
            await self._publish(client, answer, _correlation(message))

    async def _publish(self, client: Client, what: Publication, properties: Properties | None = None) -> None:
        await client.publish(what.topic, what.payload, qos=what.qos, retain=what.retain, properties=properties)
        if (reason := client.take_refusal()) is not None:
            self._refuse("what this node publishes below", reason)


def _limits() -> Properties:
    """What the broker is told at the connection."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _correlation(message: aiomqtt.Message) -> Properties | None:
    """The asker's correlation data goes back to it; its response topic is not followed, `ack/` is the place."""
    data = getattr(message.properties, "CorrelationData", None)
    if data is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = data
    return properties


def proofs(config: Config) -> tuple[ssl.SSLContext | None, str | None]:
    """By what broker and node know each other: (TLS context, password), each None where the configuration has none.

    Raises
    ------
    ConfigurationError
        A certificate, key or password file cannot be read.
    """
    return _tls_context(config), _password(config)


def _tls_context(config: Config) -> ssl.SSLContext | None:
    mqtt = config.mqtt
    if mqtt.ca_certificate is None:
        return None
    named = (mqtt.ca_certificate, mqtt.certificate, mqtt.private_key)
    authority, certificate, key = (config.path(path) if path is not None else None for path in named)
    try:
        for path in filter(None, (authority, certificate, key)):
            read_file(path)
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: b"")  # a daemon cannot be asked for one
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"mqtt: a certificate or key cannot be used: {error}") from None
    return context


def _password(config: Config) -> str | None:
    if config.mqtt.password_file is None:
        return None
    path = config.path(config.mqtt.password_file)
    try:
        return read_file(path).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mqtt.password_file {path} cannot be read: {error}") from None
