"""Connections with a bound: silent strangers go first, clients with a certificate stay, and both stay few."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.cli.demo import free_ports
from common.node import admission
from common.node.admission import Admission
from common.node.credentials import make_authority, make_certificate, pem


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(data)


class Service:
    def __init__(self, folder: Path) -> None:
        authority = make_authority("test")
        (self.port,) = free_ports(1)
        (folder / "ca").write_bytes(pem(authority.certificate))
        for name, hosts in (("server", ("localhost",)), ("client", ())):
            certificate, key = make_certificate(authority, name, hosts)
            (folder / f"{name}.crt").write_bytes(certificate)
            (folder / f"{name}.key").write_bytes(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        context.load_verify_locations(folder / "ca")
        self.client_context = ssl.create_default_context(cafile=str(folder / "ca"))
        self.client_context.load_cert_chain(folder / "client.crt", folder / "client.key")
        self.admission = Admission(Echo, context)

    async def stranger(self) -> asyncio.StreamReader:
        reader, _ = self.keep(await asyncio.open_connection("127.0.0.1", self.port))
        return reader

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self.keep(
            await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.client_context, server_hostname="localhost"
            )
        )

    def keep(
        self, pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.open.append(pair[1])
        return pair

    open: list[asyncio.StreamWriter] = []  # noqa: RUF012 - made anew below


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(tmp_path)
    made.open = []
    async with asyncio.timeout(60), made.admission.listen("127.0.0.1", made.port):
        yield made
        for writer in made.open:
            writer.transport.abort()
        for writer in made.open:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def echoes(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether the connection still answers."""
    reader, writer = pair
    try:
        writer.write(b"x")
        return await reader.read(1) == b"x"
    except OSError:
        return False


async def ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        assert await reader.read(1) == b""


async def test_silent_strangers_go_first(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "UNPROVEN", 4)
    inside = await service.client()
    strangers = [await service.stranger() for _ in range(12)]
    for stranger in strangers[:7]:
        await ended(stranger)
    assert await echoes(inside)
    assert await echoes(await service.client()), "a legitimate client gets in among them"
    assert service.admission.turned_away >= 7
    assert service.admission.connections == 2


async def test_who_says_nothing_is_let_go(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "HANDSHAKE_S", 0.1)
    monkeypatch.setattr(admission, "SWEEP_S", 0.05)
    monkeypatch.setattr(admission, "IDLE_S", 0.1)
    await ended(await service.stranger())
    assert service.admission.turned_away == 1


async def test_a_client_that_drips_bytes_and_asks_nothing_is_let_go(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a header, byte by byte, is no request: the time since the last whole one counts."""
    dripping = await service.client()
    busy = await service.client()
    assert await echoes(dripping)
    assert await echoes(busy)
    with service.admission.request(list(service.admission._proven)[1]):
        monkeypatch.setattr(admission, "IDLE_S", 0.5)
        for _ in range(1000):
            if not await echoes(dripping):
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it is served for ever")
        assert await echoes(busy)


async def test_the_longest_idle_client_makes_room(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROVEN", 3)
    first, second, third = [await service.client() for _ in range(3)]
    assert await echoes(third)
    with service.admission.request(next(iter(service.admission._proven))):  # the first is at work
        fourth = await service.client()
        await ended(second[0])
        assert await echoes(first)
        assert await echoes(third)
        assert await echoes(fourth)


async def test_one_more_is_refused_when_all_are_at_work(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PROVEN", 2)
    inside = [await service.client() for _ in range(2)]
    assert await echoes(inside[1])
    with contextlib.ExitStack() as stack:
        for transport in service.admission._proven:
            stack.enter_context(service.admission.request(transport))
        await ended((await service.client())[0])
        assert await echoes(inside[0])


async def test_a_system_without_descriptors_is_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE while accepting: strangers go, and the next is accepted."""
    loop, failures = asyncio.get_running_loop(), iter([OSError(24, "Too many open files")] * 2)
    accept = loop.sock_accept

    async def sometimes(listener: object) -> object:
        found = await accept(listener)  # type: ignore[arg-type]
        if (error := next(failures, None)) is not None:
            found[0].close()
            raise error
        return found

    monkeypatch.setattr(loop, "sock_accept", sometimes)
    monkeypatch.setattr(admission, "NO_ROOM_S", 0.0)
    for stranger in [await service.stranger() for _ in range(3)]:  # the first is taken by a call that waits already
        await ended(stranger)
    assert await echoes(await service.client())
