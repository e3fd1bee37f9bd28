"""Key delivery to applications: ETSI GS QKD 014 V1.1.1 over mutual TLS.

An application (SAE) is who its client certificate's common name says. Every answer is JSON; every error carries a
`message`. A request that is not settled with the other end in time is answered 503. Once it is, its keys are there for
the next request for such keys of the same two applications.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from aiohttp import web

from common.addresses import read_address
from common.config import Config
from common.errors import ConfigurationError, QkdError, StoreUnavailable
from common.files import read_file
from common.keys.inventory import Inventory, KeysRefused, Owners, Slice
from common.node.admission import Admission
from common.node.conversation import NO_LOG, Conversation
from common.node.listening import refuse
from common.node.revocation import Revocation

log = logging.getLogger("qkd.keys")
MAX_BODY_BYTES, BYTES_A_KEY_ID = 1 << 15, 96
"""Of a request without and with key IDs; what is longer is refused (413)."""
BODY_S = 10.0
"""A body that has not come by then does not come."""
PATIENCE_S, ANSWER_S = 1.0, 5.0
"""No key is cut while a question to the peer has waited longer than the first; an application waits for the second."""
GIVE_WAY_S = 20.0
"""Where both ends ask for the last bytes of a block and neither gets them, Bob leaves it to Alice for so long, and
each time running twice as long: applications that ask in step would meet there for ever."""
STORE_THREADS = 4
_AWAY = "the other end of the link does not answer now"
_FILES_REMEDY = "Give the node's certificate, its key and the CA of the applications (`qkd init` makes all)."
_QUERY_NUMBERS = ("number", "size")

P = ParamSpec("P")
Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(KeysRefused):
    """The request is not one that the standard allows."""


class KeyDelivery:
    """The key management entity's interface to its applications.

    Parameters
    ----------
    config : this node's configuration.
    inventory : the key manager.
    ask_peer : queues a question to the other end's key manager before it first waits; it is asked, and asked again,
        until there is an answer.
    peer_is_up : whether the other end can be asked now.
    pool_is_spent : whether the authentication key that is left is not for applications.
    store_fault : why the key store takes nothing now, if it does not.
    peer_was_met : whether this process has shaken hands with the other end: before that a store that was set back
        would hand out again what it has delivered.
    """

    def __init__(
        self,
        config: Config,
        inventory: Inventory,
        ask_peer: Callable[[bytes], Awaitable[bytes]],
        peer_is_up: Callable[[], bool] = lambda: True,
        pool_is_spent: Callable[[], bool] = lambda: False,
        peer_was_met: Callable[[], bool] = lambda: True,
        store_fault: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._config, self._settings = config, config.etsi014
        self._inventory, self._ask_peer, self._peer_is_up = inventory, ask_peer, peer_is_up
        self._pool_is_spent, self._peer_was_met, self._store_fault = pool_is_spent, peer_was_met, store_fault
        self._threads = ThreadPoolExecutor(STORE_THREADS, "applications")
        self._admission: Admission | None = None
        self.revocation = revocation(config)
        self.cutting = asyncio.Lock()
        self._asked_s: dict[asyncio.Future[None], float] = {}
        self._settled: dict[tuple[Owners, int], list[str]] = {}
        """Keys (by their applications and bytes) that both ends hold and no answer has taken: it was late."""
        self._refused: list[Slice] = []
        self._tidying: asyncio.Future[None] | None = None

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listen while the context lasts.

        Raises
        ------
        ConfigurationError
            Certificates or the address are not usable.
        """
        context = tls_context(self._config)
        address = read_address(self._settings.listen)
        longest = MAX_BODY_BYTES + BYTES_A_KEY_ID * self._settings.max_key_per_request
        app = web.Application(middlewares=[self._bounded, _as_json, self._not_revoked], client_max_size=longest)
        root = "/api/v1/keys/{sae}"
        app.router.add_get(f"{root}/status", self._status)
        for path, handler in (("enc_keys", self._enc_keys), ("dec_keys", self._dec_keys)):
            app.router.add_get(f"{root}/{path}", handler, allow_head=False)  # a HEAD would take keys and lose them
            app.router.add_post(f"{root}/{path}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            assert runner.server is not None
            loop, server = asyncio.get_running_loop(), runner.server
            self._admission = Admission(
                lambda: Conversation(server, loop=loop, access_log=NO_LOG, auto_decompress=False), context
            )
            async with contextlib.AsyncExitStack() as stack:
                try:
                    listening = self._admission.listen(address.host.strip("*") or None, address.port)
                    await stack.enter_async_context(listening)
                except (OSError, UnicodeError) as error:
                    refuse("etsi014.listen", self._settings.listen, error)
                yield
        finally:
            await runner.cleanup()
            for task in (*self._asked_s, self._tidying):
                if task is not None:
                    task.cancel()
            self._threads.shutdown(wait=False)

    @property
    def connections(self) -> dict[str, int]:
        """Open connections of applications, and how many others were turned away."""
        if self._admission is None:
            return {}
        return {"connections": self._admission.connections, "turned_away": self._admission.turned_away}

    @web.middleware
    async def _bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._admission is not None
        with self._admission.request(request.transport):
            return await handler(request)

    @web.middleware
    async def _not_revoked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Asked at every request: a certificate may be revoked while its connection is open."""
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        if tls is not None and self.revocation.refuses(tls.getpeercert(binary_form=True)):
            log.warning("a revoked certificate of %s was turned away", _caller(request))
            raise KeysRefused("the client certificate is revoked", unauthorised=True)
        return await handler(request)

    # -- the three calls ----------------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:
        caller, other = _caller(request), request.match_info["sae"]
        self._inventory.check_owners(Owners(caller, other))
        settings = self._settings
        try:
            async with asyncio.timeout(ANSWER_S):
                count = await self._in_thread(self._inventory.count, settings.key_size_bits // 8)
        except TimeoutError:
            raise KeysRefused("the key store does not answer now", later=True) from None
        most = self._config.keys.max_stored_bits // settings.key_size_bits
        return web.json_response(
            {
                "source_KME_ID": settings.kme_id,
                "target_KME_ID": settings.peer_kme_id,
                "master_SAE_ID": caller,
                "slave_SAE_ID": other,
                "key_size": settings.key_size_bits,
                "stored_key_count": min(count, most),
                "max_key_count": most,
                "max_key_per_request": settings.max_key_per_request,
                "max_key_size": settings.max_key_size_bits,
                "min_key_size": settings.min_key_size_bits,
                "max_SAE_ID_count": 0,
            }
        )

    async def _enc_keys(self, request: web.Request) -> web.Response:
        owners = Owners(_caller(request), request.match_info["sae"])
        self._inventory.check_owners(owners)
        self._require_store()
        number, size_bits = self._what(await _arguments(request))
        keys = await self._agree(owners, number, size_bits // 8)
        log.info("%d keys of %d bits to %s, for %s", number, size_bits, owners.master, owners.slave)
        return _container(keys)

    async def _agree(self, owners: Owners, number: int, n_bytes: int) -> list[tuple[str, str]]:
        """Cut keys and settle with the peer which bytes they are.

        Questions leave in the order in which bytes were cut, since the peer destroys what a question skips. A peer
        that is away is not asked. One that has just fallen silent is asked what comes within ``PATIENCE_S``; its
        answer is waited for longer than the application is, so that a request destroys nothing.
        """
        settled = self._settled.setdefault((owners, n_bytes), [])
        async with self.cutting:
            ready, settled[:] = settled[:number], settled[number:]
            try:
                asked, more = await self._cut(owners, number - len(ready), n_bytes)
            except BaseException:
                settled += ready
                raise
        if asked is not None:
            try:
                await self._answered(asked)
            except BaseException:  # nobody waits any more: these keys are for the next one who does
                settled += ready
                asked.add_done_callback(lambda _: settled.extend(more if _is_good(asked) else ()))
                raise
        return await self._hand_out(settled, ready + more)

    async def _hand_out(self, settled: list[str], key_ids: list[str]) -> list[tuple[str, str]]:
        try:
            return await self._in_thread(self._inventory.hand_out, key_ids)
        except StoreUnavailable:  # all or none: they are there when the disk takes it
            settled += key_ids
            raise

    async def _cut(self, owners: Owners, number: int, n_bytes: int) -> tuple[asyncio.Future[None] | None, list[str]]:
        """Keys, and when the peer will have agreed; the question is queued before the next request cuts."""
        if number == 0:
            return None, []
        self._require_link()
        await self.make_whole()
        told, slices = await self._in_thread(self._inventory.reserve, owners, number, n_bytes)
        asked = asyncio.ensure_future(self._settle(told, slices))
        self._asked_s[asked] = asyncio.get_running_loop().time()
        asked.add_done_callback(self._asked_s.pop)
        await asyncio.sleep(0)
        return asked, [one.key_id for one in slices]

    async def _settle(self, told: bytes, slices: list[Slice]) -> None:
        reason = self._inventory.refusal(slices, await self._ask_peer(told))
        if reason is None:
            return
        self._refused += slices
        if self._config.role == "bob":
            self._inventory.leave_to_peer(slices)
            wait_s = GIVE_WAY_S * 2 ** (self._inventory.times_refused(slices) - 1)
            asyncio.get_running_loop().call_later(wait_s, self._inventory.take_again, slices)
        self._tidying = asyncio.ensure_future(self._tidy())
        raise KeysRefused(f"the other end refused: {reason}", later=True)

    async def _tidy(self) -> None:
        async with self.cutting:
            with contextlib.suppress(KeysRefused, StoreUnavailable):  # before the next cut, then
                await self.make_whole()

    async def make_whole(self) -> None:
        """What the peer has refused returns to its blocks, before anything more is cut; ``cutting`` is held.

        Raises
        ------
        KeysRefused
            Something that was cut later has not been answered yet.
        """
        if not self._refused:
            return
        if self._asked_s:
            await asyncio.wait(list(self._asked_s), timeout=PATIENCE_S)
        if self._asked_s:
            raise KeysRefused(_AWAY, later=True)
        await self._in_thread(self._inventory.put_back, self._refused)
        self._refused = []

    async def _answered(self, asked: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.shield(asked)
        except TimeoutError:
            raise KeysRefused("the peer's key manager did not answer in time", later=True) from None

    def _require_link(self) -> None:
        """Nothing is cut that could not be settled with the peer, or whose settling would take the last tags."""
        self._require_store()
        if self._pool_is_spent():
            raise KeysRefused("the authentication pool is low", later=True)
        oldest_s = min(self._asked_s.values(), default=math.inf)
        silent = asyncio.get_running_loop().time() - oldest_s > PATIENCE_S
        if silent or not self._peer_is_up():
            raise KeysRefused(_AWAY, later=True)

    def _require_store(self) -> None:
        """Who asks while the disk is full or hangs is told at once, and waits for nobody who hangs already."""
        if self._store_fault() is not None:
            raise KeysRefused("the key store takes nothing now", later=True)

    async def _in_thread(self, call: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """A call of the key store, in threads that only applications need: they may hang with the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *arguments, **named))

    async def _dec_keys(self, request: web.Request) -> web.Response:
        caller, master = _caller(request), request.match_info["sae"]
        key_ids = _key_ids(await _arguments(request))
        if len(key_ids) > self._settings.max_key_per_request:
            raise BadRequest(f"at most {self._settings.max_key_per_request} keys per request")
        if not self._peer_was_met():
            raise KeysRefused("this node has not met the other end of the link since it started", later=True)
        self._require_store()
        keys = await self._in_thread(self._inventory.fetch, caller, master, key_ids)
        log.info("%d keys to %s, made for %s", len(keys), caller, master)
        return _container(keys)

    def _what(self, arguments: dict[str, Any]) -> tuple[int, int]:
        """(number, size in bits) of a key request, within this node's limits."""
        settings = self._settings
        number = _integer(arguments, "number", 1)
        size_bits = _integer(arguments, "size", settings.key_size_bits)
        if not 1 <= number <= settings.max_key_per_request:
            raise BadRequest(f"number shall be 1 to {settings.max_key_per_request}")
        if size_bits % 8:
            raise BadRequest("size shall be a multiple of 8")
        if not settings.min_key_size_bits <= size_bits <= settings.max_key_size_bits:
            raise BadRequest(f"size shall be {settings.min_key_size_bits} to {settings.max_key_size_bits}")
        if _list(arguments, "additional_slave_SAE_IDs"):
            raise BadRequest("additional_slave_SAE_IDs: max_SAE_ID_count is 0 here")
        if _list(arguments, "extension_mandatory"):
            raise BadRequest("not all extension_mandatory parameters are supported")
        _list(arguments, "extension_optional")
        return number, size_bits


def revocation(config: Config) -> Revocation:
    """Which applications' certificates are good no longer; ConfigurationError where the file cannot be used."""
    etsi = config.etsi014
    file = config.path(etsi.revoked_file) if etsi.enabled and etsi.revoked_file is not None else None
    return Revocation(file, config.path(etsi.ca_certificate))


def tls_context(config: Config) -> ssl.SSLContext:
    """What the key manager shows to applications, and asks of them.

    Raises
    ------
    ConfigurationError
        A file is missing, damaged, or certificate and key are not of one pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    etsi = config.etsi014
    certificate, key, authority = (
        config.path(name) for name in (etsi.certificate, etsi.private_key, etsi.ca_certificate)
    )
    for field, path in (("certificate", certificate), ("private_key", key), ("ca_certificate", authority)):
        try:
            read_file(path)
        except OSError as error:
            raise ConfigurationError(f"etsi014.{field} {path}: {error.strerror}", remedy=_FILES_REMEDY) from None
    what = f"etsi014.certificate {certificate} and private_key {key}"
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # a daemon cannot be asked for one
        what = f"etsi014.ca_certificate {authority}"
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{what} cannot be used: {reason}", remedy=_FILES_REMEDY) from None
    return context


def _is_good(asked: asyncio.Future[None]) -> bool:
    return not asked.cancelled() and asked.exception() is None


# -- requests ---------------------------------------------------------------------------------------------------------


def _caller(request: web.Request) -> str:
    """The SAE ID: the common name of the client's certificate, which TLS has verified."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    raise KeysRefused("the client certificate has no common name", unauthorised=True)


async def _arguments(request: web.Request) -> dict[str, Any]:
    if request.method == "GET":
        repeated = [name for name in request.query if len(request.query.getall(name)) > 1]
        if repeated:
            raise BadRequest(f"parameter {repeated[0]!r} is given twice")
        return {name: _number(value) if name in _QUERY_NUMBERS else value for name, value in request.query.items()}
    try:
        async with asyncio.timeout(BODY_S):
            raw = await request.read()
        if not raw:
            return {}
        body = await request.json()
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair is text for nobody
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (ConnectionError, web.RequestPayloadError):
        log.info("key delivery: a client went away before its request was whole")
        raise web.HTTPBadRequest from None
    except (ValueError, LookupError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest("number and size are integers")
    return int(text)


def _integer(arguments: dict[str, Any], name: str, default: int) -> int:
    value = arguments.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"{name} is not an integer")
    return value


def _list(arguments: dict[str, Any], name: str) -> list[Any]:
    value = arguments.get(name, [])
    if not isinstance(value, list):
        raise BadRequest(f"{name} is not an array")
    return value


def _key_ids(arguments: dict[str, Any]) -> list[str]:
    if isinstance(arguments.get("key_ID"), str):
        return [arguments["key_ID"].lower()]
    entries = _list(arguments, "key_IDs")
    if not entries or not all(isinstance(entry, dict) and isinstance(entry.get("key_ID"), str) for entry in entries):
        raise BadRequest("key_IDs is an array of objects with a key_ID")
    return [entry["key_ID"].lower() for entry in entries]


# -- answers ----------------------------------------------------------------------------------------------------------


def _container(keys: list[tuple[str, str]]) -> web.Response:
    return web.json_response(
        {"keys": [{"key_ID": key_id, "key": key} for key_id, key in keys]}, headers={"Cache-Control": "no-store"}
    )


@web.middleware
async def _as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal and every fault as the standard's error model."""
    try:
        return await handler(request)
    except KeysRefused as refused:
        code = 401 if refused.unauthorised else 503 if refused.later else 400
        return web.json_response({"message": str(refused)}, status=code)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason}, status=error.status, headers=_allow(error))
    except QkdError as error:
        log.error("key delivery: %s", error)
        return web.json_response({"message": "the key manager cannot answer now"}, status=503)
    except Exception as error:  # its text may hold what the client sent; its kind does not
        log.error("key delivery: a defect of this software (%s); please report it", type(error).__name__)
        return web.json_response({"message": "the key manager failed; the fault is in its log"}, status=500)


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
