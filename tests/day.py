"""A link and its applications for hours, in virtual time: real sessions, channels, pools, key stores and key managers.

The light is a list of detections, and a block of it has a set number of secret bits: what it takes to find them is not
what is asked here. Light, requests and blocks are scaled down together, about a thousandfold against the field link.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.config_file import parse_config
from common.datatypes import Detections
from common.keys.inventory import Inventory, KeysRefused, Owners, Slice
from common.node.etsi014 import KeyDelivery
from common.node.keystore import KeyStore, new_key_id
from common.node.node import Node
from common.node.questions import Questions
from common.node.refill import Refill, Refilled
from common.preamble import PREAMBLE_SLOTS
from common.security.finite_key import key_length
from common.security.tallies import Tallies
from common.units import NS_PER_S
from tests.pair import LINK_SECRET, End, Pair
from tests.property.test_protocol import QBER, Sky, make_pair
from tests.stores import SAES, inventory

BLOCK_S, BATCHES, BATCH = 30, 5, 4096
SECRET_BITS = 6000
POOL_BITS = 1 << 13
"""64 tags a direction are wanted; the link secret has 128."""
KEY_BYTES, PAUSE_S = 32, 15.0


class EndlessSky(Sky):
    """The same light, whose slots do not come again: what repeats, the monitors take for a fault of the detectors."""

    def __init__(self) -> None:
        pass

    def lookup(self, slots: Any) -> tuple[Any, Any, Any]:
        bases = (_draw(slots, 1) < 0.5).astype(np.uint8)
        bits = np.where(bases == 0, _draw(slots, 2) < 0.5, False).astype(np.uint8)
        return bases, bits, np.zeros(slots.size, np.uint8)

    def detections(self, start: int, count: int) -> Detections:
        first = PREAMBLE_SLOTS + start
        slots = np.arange(first, first + count, dtype=np.int64)
        bases, bits, _ = self.lookup(slots)
        measured = (_draw(slots, 3) < 0.3).astype(np.uint8)
        outcomes = np.where(bases == measured, bits ^ (_draw(slots, 4) < QBER), _draw(slots, 5) < 0.5).astype(np.uint8)
        several = _draw(slots, 6)
        crossed, doubles = slots[several < 0.01], slots[(several >= 0.01) & (several < 0.02)]
        return Detections(slots, measured, outcomes, first, first + count, doubles, crossed)


def _draw(slots: NDArray[np.int64], what: int) -> NDArray[np.float64]:
    """A uniform number for each slot, the same whenever it is asked for (splitmix64 of slot and purpose)."""
    x = slots.astype(np.uint64) * np.uint64(8) + np.uint64(what)
    for multiplier, shift in ((0x9E3779B97F4A7C15, 30), (0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        x = x * np.uint64(multiplier)
        x ^= x >> np.uint64(shift)
    return np.asarray((x >> np.uint64(11)) / 2.0**53)


class CountedStore(KeyStore):
    """The key store, with what `tests.pair` asks of one."""

    @property
    def count(self) -> int:
        return self._count()


class CountedRefill(Refill):
    """Counts what becomes authentication key."""

    n_bytes = 0

    def settle(self, one: Refilled, answer: bytes) -> Refilled | None:
        settled = super().settle(one, answer)
        self.n_bytes += 0 if settled is None else len(one.pads)
        return settled


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the pair's."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self._pair = pair

    def time(self) -> float:
        return self._pair.now_ns / NS_PER_S

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Threads are none: what they would do is done now."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def turn(self) -> None:
        """Everything that can happen now."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]
                return


class Town:
    """One end's node above its session, and one application that asks all the time."""

    def __init__(self, pair: Pair, end: End, loop: VirtualLoop) -> None:
        self.pair, self.end, self.name = pair, end, end.name
        store: Any = end.store
        self.store: KeyStore = store
        self.refill = end.refill = CountedRefill(store, end.pool)
        self.manager: Inventory = inventory(store, end.name, deliver_simulated=True)
        self.questions = Questions(end.session.request)
        node: Any = SimpleNamespace(
            _refill=self.refill,
            _for_peer=self.manager,
            _loop=loop,
            _questions=self.questions,
            _peer_is_up=lambda: end.session.ready,
            shell=SimpleNamespace(act=lambda effects: end.carry(effects(), pair.now_ns)),
        )
        node._ask_peer = lambda payload: Node._ask_peer(node, payload)
        node._refill_once = lambda number: Node._refill_once(node, number)
        self.delivery = node.delivery = KeyDelivery(
            parse_config(f'role = "{end.name}"\n', Path()),
            self.manager,
            node._ask_peer,
            node._peer_is_up,
            lambda: bool(end.pool.at_floor),
        )
        end.session._accept_request = lambda payload: Node.accept_request(node, payload)
        self.tasks: list[Coroutine[Any, Any, None]] = []
        if not end.alice:
            self.tasks.append(Node._refill_pool(node, end.session.next_segment))  # type: ignore[attr-defined]
        self.delivered, self.refused = 0, Counter[str]()
        self.asks = True

    async def application(self, peer: Town) -> None:
        """Ask for keys; what comes is fetched at the other end at once, and is the same."""
        mine, theirs = (next(sae for sae in SAES if SAES[sae] == f"kme-{one.name}") for one in (self, peer))
        number = 1
        while self.asks:
            try:
                keys = await self.delivery._agree(Owners(mine, theirs), number, KEY_BYTES)
            except KeysRefused as refused:
                self.refused[str(refused).partition(":")[0]] += 1
            else:
                assert len(keys) == number
                assert peer.manager.fetch(theirs, mine, [key_id for key_id, _ in keys]) == keys
                self.delivered += number * KEY_BYTES
            number = number % 3 + 1
            await asyncio.sleep(PAUSE_S)

    def rest(self) -> dict[int, bytes]:
        """What is left of every block; it is handed out by this."""
        found = {}
        while room := self.store.room(1, from_front=True, simulated=True):  # some of them, not all
            for block_id, front, back in room:
                key_id = new_key_id()
                one = Slice(key_id, block_id, front, back - front)
                assert self.store.cut([one], Owners("", ""), from_front=True, ours=True, simulated=True)
                found[block_id] = self.store.release([key_id])[key_id]
        return found


class Day:
    """Hours with light and hours without, by turns.

    Parameters
    ----------
    directory : for the key stores. period_s : how long it is light, and how long it is not.
    """

    def __init__(self, directory: Path, period_s: float) -> None:
        self.period_ns = int(period_s * NS_PER_S)
        made, self.sky = make_pair(sky=EndlessSky())
        ends = []
        for old in (made.alice, made.bob):
            (directory / f"{old.name}.key").write_bytes(old.name.encode().ljust(32))
            store: Any = CountedStore.open(directory / f"{old.name}.sqlite", directory / f"{old.name}.key")
            store._db.execute("PRAGMA synchronous = OFF")
            ends.append(End(old.name, old._make_session, LINK_SECRET[:4160], POOL_BITS, store))
        self.pair = Pair(*ends)
        self.loop = VirtualLoop(self.pair)
        self.towns = [Town(self.pair, end, self.loop) for end in ends]
        self.blocks = self.fed = 0
        self.position = 0

    @property
    def dark(self) -> bool:
        """No block produces key now."""
        return bool(self.pair.now_ns // self.period_ns % 2)

    def step(self, now_ns: int) -> None:
        """Light, and then whatever waits for time to pass; every other dark time is without detections at all."""
        session: Any = self.pair.bob.session
        night = self.dark and now_ns // self.period_ns % 4 == 1
        due = now_ns // (BLOCK_S * NS_PER_S) > self.blocks
        if due and session.ready and not night:
            for _ in range(BATCHES):
                batch = self.sky.detections(self.position, BATCH)
                self.position += BATCH
                self.pair.bob.carry(session.on_detections(batch, now_ns), now_ns)
            self.blocks = now_ns // (BLOCK_S * NS_PER_S)
        self.loop.turn()

    def run(self, hours: float, told: Callable[[str], None] = lambda text: None) -> None:
        """Let the time pass, and then all that is under way come to its end."""
        pair, (alice, bob) = self.pair, self.towns
        pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)
        pair.on_step = self.step
        tasks = [self.loop.create_task(one) for one in
                 (*alice.tasks, *bob.tasks, alice.application(bob), bob.application(alice))]  # fmt: skip
        until_ns, hour = pair.now_ns + int(hours * 3600 * NS_PER_S), 0
        while pair.now_ns < until_ns:
            pair.step()
            for task in tasks:
                if task.done():
                    task.result()
            if pair.now_ns // (3600 * NS_PER_S) > hour:
                hour += 1
                told(f"hour {hour}: {self}")
        for town in self.towns:
            town.asks = False
        pair.settle(30 * NS_PER_S)
        for task in tasks:
            task.cancel()
        self.loop.turn()
        self.loop.close()

    def __str__(self) -> str:
        blocks = self.towns[1].store.count_blocks()
        return f"{blocks} blocks, " + ", ".join(
            f"{town.name}: {town.delivered} bytes delivered, {town.end.pool.least_bits // 128} tags left, "
            f"refused {dict(town.refused)}"
            for town in self.towns
        )

    def account(self) -> dict[str, int]:
        """Bytes made and what became of them, alike at both ends; closes the stores."""
        alice, bob = self.towns
        assert len(alice.questions) == len(bob.questions) == 0
        sizes = [{block["block_id"]: block["n_bytes"] for block in town.store.blocks()} for town in self.towns]
        assert sizes[0] == sizes[1]
        assert all(state == [] for state in (alice.store.unresolved(), bob.store.unresolved()))
        rests = [town.rest() for town in self.towns]
        assert rests[0] == rests[1]
        assert alice.store.waiting_keys() == bob.store.waiting_keys() == 0
        for town in self.towns:
            town.store.close()
        return {
            "made": sum(int(str(n)) for n in sizes[0].values()),
            "delivered": alice.delivered + bob.delivered,
            "authentication": bob.refill.n_bytes,
            "stored": sum(map(len, rests[0].values())),
        }


@contextmanager
def day(directory: Path, period_s: float) -> Iterator[Day]:
    """A day whose blocks produce key while it is light, and whose threads are none."""
    made = Day(directory, period_s)

    def key(tallies: Tallies, *args: Any, **kwargs: Any) -> Any:
        ell_bits = 0 if made.dark else min(SECRET_BITS, tallies.n_z_kept // 8 * 8)
        return replace(key_length(tallies, *args, **kwargs), ell_bits=ell_bits, refusal=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.postprocessing.estimation.key_length", key)
        patch.setattr("alice.session.SEED_PART_BYTES", 1000)
        yield made
