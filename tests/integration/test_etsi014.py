"""The three calls of ETSI GS QKD 014 over mutual TLS, with a client that nobody here wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
import threading
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from etsi_qkd_014_client import QKD014Client

from common.cli.demo import free_ports
from common.cli.init import initialise
from common.config import Config
from common.config_file import load_config
from common.errors import PeerUnreachable, StoreUnavailable
from common.keys.inventory import Inventory
from common.node import etsi014
from common.node.etsi014 import KeyDelivery
from common.node.keystore import KeyStore, new_key_id
from common.node.revocation import Revocation
from tests.integration.nodes import wait_until
from tests.stores import add_block


@dataclass
class Kme:
    config: Config
    store: KeyStore
    inventory: Inventory


@dataclass
class Kmes:
    alice: Kme
    bob: Kme
    store_fault: str | None = None
    peer_is_up: bool = True
    pool_is_spent: bool = False
    peer_was_met: bool = True
    answer_is_late: asyncio.Event | None = None
    deliveries: list[KeyDelivery] = field(default_factory=list)
    question_waits: asyncio.Event = field(default_factory=asyncio.Event)

    def secrets(self, role: str) -> Path:
        return getattr(self, role).config.base_dir / role / "secrets"


def open_kme(directory: Path, role: str) -> Kme:
    config = load_config(directory / f"{role}.toml")
    store = KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file))
    add_block(store, 1, 4096)
    etsi = config.etsi014
    made = Inventory(
        store,
        alice=role == "alice",
        saes=etsi.saes,
        kme_id=etsi.kme_id,
        peer_kme_id=etsi.peer_kme_id,
        deliver_simulated=False,
        new_id=new_key_id,
    )
    return Kme(config, store, made)


@pytest.fixture
async def kmes(tmp_path: Path) -> AsyncIterator[Kmes]:
    ports = free_ports(2)
    listen = {
        role: {"etsi014": {"listen": f"127.0.0.1:{port}"}} for role, port in zip(("alice", "bob"), ports, strict=True)
    }
    initialise(tmp_path, listen)
    both = Kmes(open_kme(tmp_path, "alice"), open_kme(tmp_path, "bob"))

    def ask(peer: Kme) -> Callable[[bytes], Any]:
        async def reserve(payload: bytes) -> bytes:
            if both.answer_is_late is not None:
                both.question_waits.set()
                await both.answer_is_late.wait()
            return peer.inventory.accept_from_peer(payload)

        return reserve

    alice = KeyDelivery(
        both.alice.config,
        both.alice.inventory,
        ask(both.bob),
        lambda: both.peer_is_up,
        lambda: both.pool_is_spent,
        store_fault=lambda: both.store_fault,
    )
    bob = KeyDelivery(
        both.bob.config, both.bob.inventory, ask(both.alice), peer_was_met=lambda: both.peer_was_met
    )
    both.deliveries += [alice, bob]
    async with alice.serve(), bob.serve():
        yield both
    both.alice.store.close()
    both.bob.store.close()


def call(
    kmes: Kmes, role: str, path: str, body: Any = None, sae: str = "", headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    secrets = kmes.secrets(role)
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    context.load_cert_chain(secrets / f"{sae or 'sae-' + role}.crt", secrets / f"{sae or 'sae-' + role}.key")
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    listen = getattr(kmes, role).config.etsi014.listen
    request = urllib.request.Request(f"https://{listen}/api/v1/keys/{path}", data, headers or {})
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def ask(kmes: Kmes, role: str, path: str, body: Any = None) -> tuple[int, Any]:
    return await asyncio.to_thread(call, kmes, role, path, body)


async def test_the_flow_of_a_foreign_client(kmes: Kmes) -> None:
    def client(role: str) -> QKD014Client:
        secrets, listen = kmes.secrets(role), getattr(kmes, role).config.etsi014.listen
        return QKD014Client(
            listen, str(secrets / f"sae-{role}.crt"), str(secrets / f"sae-{role}.key"), str(secrets / "ca.crt")
        )

    def flow() -> None:
        alice, bob = client("alice"), client("bob")
        code, status = alice.get_status("sae-bob")
        assert code == 200
        assert status.stored_key_count == 128
        assert status.source_kme_id == "kme-alice"
        code, made = alice.get_key("sae-bob", number=2, size=256)
        assert code == 200
        code, fetched = bob.get_key_with_key_IDs("sae-alice", [key.key_id for key in made.keys])
        assert code == 200
        assert [key.key for key in made.keys] == [key.key for key in fetched.keys]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await asyncio.to_thread(flow)


async def test_get_and_post_are_equal(kmes: Kmes) -> None:
    code, made = await ask(kmes, "bob", "sae-alice/enc_keys?number=1&size=128")
    assert code == 200
    key_id = made["keys"][0]["key_ID"]
    code, fetched = await ask(kmes, "alice", f"sae-bob/dec_keys?key_ID={key_id.upper()}")
    assert (code, fetched) == (200, made)
    code, again = await ask(kmes, "alice", f"sae-bob/dec_keys?key_ID={key_id}")
    assert (code, again) == (400, {"message": "one or more keys specified are not found on KME"})


async def test_an_extra_field_in_a_key_id_is_fine(kmes: Kmes) -> None:
    _, made = await ask(kmes, "alice", "sae-bob/enc_keys", b"")
    ids = [{"key_ID": key["key_ID"], "master_SAE_ID": "sae-alice"} for key in made["keys"]]
    assert (await ask(kmes, "bob", "sae-alice/dec_keys", {"key_IDs": ids})) == (200, made)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("sae-bob/enc_keys?size=129", None, "size shall be a multiple of 8"),
        ("sae-bob/enc_keys?size=8", None, "size shall be 64 to 4096"),
        ("sae-bob/enc_keys?number=0", None, "number shall be 1 to 128"),
        ("sae-bob/enc_keys?number=x", None, "number and size are integers"),
        ("sae-bob/enc_keys?number=1&number=2", None, "parameter 'number' is given twice"),
        ("sae-bob/enc_keys", {"number": True}, "number is not an integer"),
        ("sae-bob/enc_keys", {"number": 1.5}, "number is not an integer"),
        ("sae-bob/enc_keys", b"{", "the body is not JSON"),
        ("sae-bob/enc_keys", b"[]", "the body is not a JSON object"),
        (
            "sae-bob/enc_keys",
            {"extension_mandatory": [{"x": 1}]},
            "not all extension_mandatory parameters are supported",
        ),
        (
            "sae-bob/enc_keys",
            {"additional_slave_SAE_IDs": ["x"]},
            "additional_slave_SAE_IDs: max_SAE_ID_count is 0 here",
        ),
        ("sae-bob/dec_keys", {"key_IDs": []}, "key_IDs is an array of objects with a key_ID"),
        ("sae-bob/dec_keys", {"key_IDs": [{"key_ID": 5}]}, "key_IDs is an array of objects with a key_ID"),
        ("nobody/status", None, "slave SAE 'nobody' is not known at the other end of this link"),
    ],
)
async def test_what_is_wrong_is_named(kmes: Kmes, path: str, body: Any, message: str) -> None:
    assert await ask(kmes, "alice", path, body) == (400, {"message": message})


async def test_a_master_may_not_fetch_what_it_made(kmes: Kmes) -> None:
    _, made = await ask(kmes, "alice", "sae-bob/enc_keys")
    ids = {"key_IDs": [{"key_ID": key["key_ID"]} for key in made["keys"]]}
    code, answer = await ask(kmes, "bob", "sae-bob/dec_keys", ids)
    assert code == 401
    assert answer["message"]


async def test_unknown_ids_and_an_empty_store(kmes: Kmes) -> None:
    code, _ = await ask(kmes, "bob", "sae-alice/dec_keys", {"key_IDs": [{"key_ID": str(uuid.uuid4())}]})
    assert code == 400
    code, answer = await ask(kmes, "alice", "sae-bob/enc_keys", {"number": 9, "size": 4096})
    assert code == 503
    assert "not enough key" in answer["message"]


async def test_an_answer_that_is_late_costs_nothing(kmes: Kmes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's disk is full, or its process restarts: 503, and the next request for such keys has these."""
    monkeypatch.setattr(etsi014, "ANSWER_S", 0.05)
    kmes.answer_is_late = asyncio.Event()
    code, answer = await ask(kmes, "alice", "sae-bob/enc_keys?number=3")
    assert code == 503
    assert "did not answer in time" in answer["message"]
    (asked,) = kmes.deliveries[0]._asked_s
    kmes.answer_is_late.set()
    monkeypatch.setattr(etsi014, "ANSWER_S", 5.0)
    await asked
    assert kmes.alice.store.available_bits() == 8 * (4096 - 3 * 32)
    made = [await ask(kmes, "alice", f"sae-bob/enc_keys?number={number}&size={size}")
            for number, size in ((2, 256), (2, 128), (2, 256))]  # fmt: skip
    assert kmes.alice.store.available_bits() == 8 * (4096 - 4 * 32 - 2 * 16)
    keys = [key for code, answer in made for key in answer["keys"]]
    assert len({key["key"] for key in keys}) == 6
    ids = [{"key_ID": key["key_ID"]} for key in keys]
    assert (await ask(kmes, "bob", "sae-alice/dec_keys", {"key_IDs": ids}))[1] == {"keys": keys}
    assert kmes.bob.store.available_bits() == kmes.alice.store.available_bits()


async def test_a_store_that_takes_nothing_cuts_nothing(kmes: Kmes) -> None:
    kmes.store_fault = "the disk does not take it"
    code, answer = await ask(kmes, "alice", "sae-bob/enc_keys?number=100")
    assert (code, answer) == (503, {"message": "the key store takes nothing now"})
    assert kmes.alice.store.available_bits() == 8 * 4096


async def test_a_disk_that_hangs_keeps_nobody_waiting(kmes: Kmes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the store does not come back; the node itself goes on, and who asks is told."""
    held, gate = threading.Event(), threading.Event()

    def hang() -> None:
        with kmes.alice.store._lock:
            held.set()
            gate.wait()

    hanging = threading.Thread(target=hang)
    hanging.start()
    held.wait()
    try:
        with monkeypatch.context() as quick:
            quick.setattr("common.node.etsi014.ANSWER_S", 0.05)
            code, answer = await ask(kmes, "alice", "sae-bob/status")
        assert (code, answer) == (503, {"message": "the key store does not answer now"})
        async with kmes.deliveries[0].cutting:  # held by a request that came before the hanging was noticed
            kmes.store_fault = "the disk has not answered for 3 s"
            code, answer = await ask(kmes, "alice", "sae-bob/enc_keys")
        assert (code, answer) == (503, {"message": "the key store takes nothing now"})
    finally:
        gate.set()
        hanging.join()
    assert (await ask(kmes, "alice", "sae-bob/status"))[0] == 200


async def test_a_disk_that_fills_up_before_the_answer_leaves_costs_nothing(
    kmes: Kmes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(key_ids: object) -> None:
        raise StoreUnavailable("the disk does not take it")

    with monkeypatch.context() as disk:
        disk.setattr(kmes.alice.store, "release", full)
        assert (await ask(kmes, "alice", "sae-bob/enc_keys?number=3"))[0] == 503
    code, made = await ask(kmes, "alice", "sae-bob/enc_keys?number=3")
    assert code == 200
    ids = {"key_IDs": [{"key_ID": key["key_ID"]} for key in made["keys"]]}
    assert (await ask(kmes, "bob", "sae-alice/dec_keys", ids))[1] == made
    assert kmes.alice.store.available_bits() == kmes.bob.store.available_bits() == 8 * (4096 - 3 * 32)


async def test_a_peer_that_is_away_costs_nothing(kmes: Kmes) -> None:
    kmes.peer_is_up = False
    for _ in range(3):
        code, answer = await ask(kmes, "alice", "sae-bob/enc_keys?number=100")
        assert (code, answer) == (503, {"message": "the other end of the link does not answer now"})
    assert kmes.alice.store.available_bits() == 8 * 4096


async def test_what_is_left_of_the_authentication_pool_is_not_for_applications(kmes: Kmes) -> None:
    kmes.pool_is_spent = True
    code, answer = await ask(kmes, "alice", "sae-bob/enc_keys?number=100")
    assert (code, answer) == (503, {"message": "the authentication pool is low"})
    assert kmes.alice.store.available_bits() == 8 * 4096
    kmes.pool_is_spent = False
    assert (await ask(kmes, "alice", "sae-bob/enc_keys"))[0] == 200


async def test_a_store_that_may_have_been_set_back_delivers_nothing_before_the_handshake(kmes: Kmes) -> None:
    _, made = await ask(kmes, "alice", "sae-bob/enc_keys")
    ids = {"key_IDs": [{"key_ID": key["key_ID"]} for key in made["keys"]]}
    kmes.peer_was_met = False
    code, answer = await ask(kmes, "bob", "sae-alice/dec_keys", ids)
    assert code == 503
    assert "has not met the other end" in answer["message"]
    kmes.peer_was_met = True
    assert (await ask(kmes, "bob", "sae-alice/dec_keys", ids))[1] == made


async def test_while_a_question_waits_too_long_nothing_more_is_cut(
    kmes: Kmes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.node.etsi014.PATIENCE_S", 0.0)
    kmes.answer_is_late = asyncio.Event()
    first = asyncio.ensure_future(ask(kmes, "alice", "sae-bob/enc_keys"))
    await kmes.question_waits.wait()
    for _ in range(3):
        assert (await ask(kmes, "alice", "sae-bob/enc_keys"))[0] == 503
    assert kmes.alice.store.available_bits() == 8 * (4096 - 32)
    kmes.answer_is_late.set()
    assert (await first)[0] == 200
    assert (await ask(kmes, "alice", "sae-bob/enc_keys"))[0] == 200


async def test_many_connections_at_both_ends_are_never_refused_falsely(kmes: Kmes) -> None:
    """Bytes are cut, and the peer told of them, in one order: no request finds less than there is."""
    ends = [("alice", "sae-bob/enc_keys"), ("bob", "sae-alice/enc_keys")] * 32
    with ThreadPoolExecutor(len(ends)) as clients:  # apart from the threads of the two key managers
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(*(loop.run_in_executor(clients, call, kmes, *end) for end in ends))
    assert [code for code, _ in answers] == [200] * 64
    keys = [key["key"] for _, answer in answers for key in answer["keys"]]
    assert len(set(keys)) == 64
    assert kmes.alice.store.available_bits() == kmes.bob.store.available_bits() == 8 * (4096 - 64 * 32)


async def test_a_revoked_application_gets_nothing_more(kmes: Kmes, tmp_path: Path) -> None:
    """Written while the node runs: the open connection is refused, too, and others go on."""
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    kmes.deliveries[0].revocation = Revocation(revoked, kmes.secrets("alice") / "ca.crt")
    assert (await ask(kmes, "alice", "sae-bob/enc_keys"))[0] == 200
    der = ssl.PEM_cert_to_DER_cert((kmes.secrets("alice") / "sae-alice.crt").read_text())
    revoked.write_text(hashlib.sha256(der).hexdigest())
    for path in ("enc_keys", "status"):
        code, answer = await ask(kmes, "alice", f"sae-bob/{path}")
        assert (code, answer) == (401, {"message": "the client certificate is revoked"})
    assert (await ask(kmes, "bob", "sae-alice/enc_keys"))[0] == 200
    revoked.write_text("")
    assert (await ask(kmes, "alice", "sae-bob/enc_keys"))[0] == 200


async def test_both_ends_ask_until_nothing_is_left_and_nothing_is_destroyed(kmes: Kmes) -> None:
    """They meet in the last bytes, ask for the same ones, and one of them gets them."""

    def ask_on(role: str, peer: str) -> list[str]:
        keys: list[str] = []
        while True:
            code, answer = call(kmes, role, f"{peer}/enc_keys?size=192&number=5")
            if code == 200:
                keys += [key["key"] for key in answer["keys"]]
            elif "not enough key" in answer["message"]:
                return keys
            else:
                assert code == 503

    with ThreadPoolExecutor(8) as clients:
        loop = asyncio.get_running_loop()
        ends = [("alice", "sae-bob"), ("bob", "sae-alice")] * 4
        made = await asyncio.gather(*(loop.run_in_executor(clients, ask_on, *end) for end in ends))
    keys = [key for one in made for key in one]
    assert len(set(keys)) == len(keys) == 5 * (4096 // 120)
    for store in (kmes.alice.store, kmes.bob.store):
        assert store.available_bits() == 8 * (4096 % 120)


async def test_a_head_request_takes_no_key(kmes: Kmes) -> None:
    secrets, listen = kmes.secrets("alice"), kmes.alice.config.etsi014.listen
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    context.load_cert_chain(secrets / "sae-alice.crt", secrets / "sae-alice.key")

    def head() -> int:
        request = urllib.request.Request(f"https://{listen}/api/v1/keys/sae-bob/enc_keys", method="HEAD")
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert await asyncio.to_thread(head) == 405
    assert kmes.alice.store.available_bits() == 8 * 4096


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {"Content-Type": "application/json; charset=nonsense"}),
        (b'{"number": ' + b"9" * 5000 + b"}", {}),
        (b'{"key_IDs": [{"key_ID": "\\ud800"}]}', {}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
        (b"[" * 40_000, {}),
        (b"\xff\xfe", {}),
    ],
)
async def test_whatever_the_body_the_answer_is_json(kmes: Kmes, body: bytes, headers: dict[str, str]) -> None:
    for path in ("enc_keys", "dec_keys"):
        assert (await asyncio.to_thread(call, kmes, "alice", f"sae-bob/{path}", body, headers=headers))[0] == 400
    assert kmes.alice.store.available_bits() == 8 * 4096


async def test_no_certificate_no_answer(kmes: Kmes) -> None:
    def bare() -> None:
        context = ssl.create_default_context(cafile=str(kmes.secrets("alice") / "ca.crt"))
        listen = kmes.alice.config.etsi014.listen
        with urllib.request.urlopen(f"https://{listen}/api/v1/keys/sae-bob/status", context=context, timeout=5):
            pass

    with pytest.raises((OSError, ssl.SSLError)):
        await asyncio.to_thread(bare)


async def test_a_body_that_is_too_long_or_does_not_come(kmes: Kmes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes memory or a connection for long."""
    assert (await asyncio.to_thread(call, kmes, "alice", "sae-bob/enc_keys", b" " * 100_000))[0] == 413
    monkeypatch.setattr(etsi014, "BODY_S", 0.1)
    secrets = kmes.secrets("alice")
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    context.load_cert_chain(secrets / "sae-alice.crt", secrets / "sae-alice.key")
    host, port = kmes.alice.config.etsi014.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"POST /api/v1/keys/sae-bob/enc_keys HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    assert b" 408 " in await reader.readline()
    writer.transport.abort()


async def speak(kmes: Kmes, *said: bytes) -> bytes:
    """What an application with a certificate is answered to these bytes; without an answer wanted, it vanishes."""
    secrets = kmes.secrets("alice")
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    context.load_cert_chain(secrets / "sae-alice.crt", secrets / "sae-alice.key")
    host, port = kmes.alice.config.etsi014.listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    for part in said:
        writer.write(part)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.transport.abort()
    return answer


@pytest.mark.parametrize(
    "said",
    [
        b"GET /api/v1/keys/sae-bob/status HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /api/v1/keys/sae-bob/status HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_one_line_and_json(
    kmes: Kmes, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    head, _, body = (await speak(kmes, said)).partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    assert json.loads(body) == {"message": "this is no HTTP request"}
    (record,) = [one for one in caplog.records if one.levelno >= logging.INFO]
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert "no HTTP request" in record.getMessage()


async def test_a_client_that_vanishes_is_no_defect(kmes: Kmes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    secrets = kmes.secrets("alice")
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    context.load_cert_chain(secrets / "sae-alice.crt", secrets / "sae-alice.key")
    host, port = kmes.alice.config.etsi014.listen.split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"POST /api/v1/keys/sae-bob/enc_keys HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()
    await asyncio.to_thread(wait_until, lambda: any("went away" in one.getMessage() for one in caplog.records))
    assert (await ask(kmes, "alice", "sae-bob/status"))[0] == 200
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert kmes.alice.store.available_bits() == 8 * 4096


async def test_an_address_in_use_is_the_environments_fault(kmes: Kmes) -> None:
    """The unit tries again; another configuration would not."""
    again = KeyDelivery(kmes.alice.config, kmes.alice.inventory, lambda _: asyncio.sleep(0, b""))
    with pytest.raises(PeerUnreachable, match=r"etsi014\.listen"):
        async with again.serve():
            pass
