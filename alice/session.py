"""Alice's half of the conversation, in the order of the data. Sans-I/O: messages in, effects out.

sift -> reconcile -> verify -> estimate -> fix -> amplify -> prepare -> commit; Alice sifts, proposes, decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.datatypes import ReconciledKey, SecretKey
from common.errors import RemoteProtocolError
from common.postprocessing.amplification import draw_seed, seed_bits
from common.postprocessing.estimation import recent_blocks
from common.postprocessing.reconciliation import QberTracker
from common.postprocessing.sifting import alice_sift, decode_announcement
from common.postprocessing.verification import draw_point, verification_tag, verified_key
from common.protocol.block import BITS_PER_BYTE, Block, BlockFacts, certified_digests, refused_facts
from common.protocol.effects import BlockDone, DropPads, Effect, Run, Send
from common.protocol.messages import (
    Announce,
    BlockEnd,
    BlockMessage,
    Commit,
    Committed,
    Fixed,
    FrameResult,
    Prepared,
    Propose,
    Refuse,
    Seed,
    Sift,
    Syndrome,
    Verified,
    Verify,
    Withdraw,
)
from common.protocol.session import Identity, LinkSession, Store
from common.protocol.transitions import Role, State

SEED_PART_BYTES = 1 << 18


class Symbols(Protocol):
    """Alice's memory of what she sent."""

    def lookup(self, slots: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """(bases, bits, intensities), each *(n,) uint8*; raises where a slot is no longer or not yet there."""
        ...

    def release_before(self, slot: int) -> None:
        """Wipe everything before ``slot``."""
        ...


class AliceSession(LinkSession):
    """Alice's end of the link.

    Parameters
    ----------
    symbols : what she sent.
    random_bytes : fresh true random bytes (seeds, hash keys).
    refill_bytes : how much of the next key the authentication pool wants.
    """

    def __init__(
        self,
        config: Config,
        identity: Identity,
        store: Store,
        symbols: Symbols,
        random_bytes: Callable[[int], NDArray[np.uint8]],
        refill_bytes: Callable[[], int],
        accept_request: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(identity, store, accept_request, config.reconciliation)
        self._config = config
        self._symbols = symbols
        self._random_bytes = random_bytes
        self._refill_bytes = refill_bytes
        self._tracker = QberTracker(config.reconciliation.qber_start)
        self._recent = recent_blocks(config)
        self._blocks: dict[int, Block] = {}
        self._last_block = 0

    # -- shared session -----------------------------------------------------------------------------------------------

    def open_blocks(self) -> list[Any]:
        """Every block that has not ended."""
        return list(self._blocks.values())

    def forget(self, block_id: int) -> None:
        """Drop a block's record."""
        self._blocks.pop(block_id, None)

    def must_keep(self, block: Block) -> bool:
        """From the decision on, until Bob has acknowledged."""
        return block.deciding

    def newest_block(self, stored: int) -> int:
        """Also those that gave no key."""
        return max(stored, self._last_block)

    def resolve(self, ours: list[tuple[int, str]], peer: dict[str, Any]) -> list[Effect]:
        """What I had decided I repeat; what I had only prepared is void."""
        effects: list[Effect] = []
        for block_id, state in ours:
            if state == "decided":
                effects += [self.add_pads(block_id, sendable=False), self._commit_again(block_id)]
            else:
                effects.append(Run("store", partial(self.destroy, block_id), lambda _: []))
        return effects

    def _commit_again(self, block_id: int) -> Run:
        def done(record: str) -> list[Effect]:
            return [Send(Commit(block_id, *certified_digests(record)))]

        return self.guarded(Run("store", partial(self.store.certificate_of, block_id), done))

    def handle_block(self, message: BlockMessage) -> list[Effect]:
        """One message of a block."""
        if isinstance(message, Committed):
            return self._on_committed(message)
        block = self._blocks.get(message.block_id)
        if block is None:
            if not isinstance(message, Announce) or message.chunk != 0:
                return self._late(message)
            block = self._open(message.block_id)
            if self.held is not None:
                return self.give_up(block, self.held)
        before = block.state
        if not self.step(block, message, ours=False):
            return []
        match message:
            case Announce():
                return self._on_announce(block, message)
            case BlockEnd():
                return self._on_block_end(block, message)
            case Syndrome():
                return [*block.frames.on_syndrome(message), *self._maybe_verify(block)]
            case FrameResult():
                return [*block.frames.on_result(message), *self._maybe_verify(block)]
            case Verified():
                return self._on_verified(block, message)
            case Prepared():
                block.compare(message)
                return self._maybe_decide(block)
            case Refuse():
                return self._end(block, self.refused(block, message, before))
        raise RemoteProtocolError(f"{message!r} is not for Alice")

    def _late(self, message: BlockMessage) -> list[Effect]:
        """A message of a block that ended here while it was on its way, or that Bob gave up before he announced it."""
        if isinstance(message, Withdraw):
            return [self._take_back(message)]
        if isinstance(message, Refuse):
            self._last_block = max(self._last_block, message.block_id)
        if message.block_id <= self._last_block:
            return []
        raise RemoteProtocolError(f"{message!r} belongs to no open block")

    def _take_back(self, withdrawn: Withdraw) -> Run:
        """Bob does not hold the key that I had decided and never will, so it is nobody's."""

        def work() -> BlockFacts | None:
            if self.store.state_of(withdrawn.block_id) != "decided":
                return None
            record = self.store.certificate_of(withdrawn.block_id)
            self.destroy(withdrawn.block_id, "decided")
            return refused_facts(record, "refused by the peer: " + withdrawn.reason)

        def done(facts: BlockFacts | None) -> list[Effect]:
            return [DropPads(withdrawn.block_id), BlockDone(facts)] if facts is not None else []

        return Run("store", work, done)

    def _end(self, block: Block, effects: list[Effect]) -> list[Effect]:
        self.forget(block.block_id)
        return effects

    def give_up(self, block: Block, reason: str) -> list[Effect]:
        """Refuse a block and forget it."""
        return self._end(block, self.refuse(block, reason))

    def _guard(self, block: Block, run: Run) -> Run:
        return self.block_job(block, run, lambda: self._maybe_verify(block))

    def _say(self, block: Block, message: BlockMessage) -> Send:
        return self.say(block, message)

    # -- 7 sift -------------------------------------------------------------------------------------------------------

    def _open(self, block_id: int) -> Block:
        if block_id <= self._last_block:
            raise RemoteProtocolError(f"block {block_id} was opened before: numbers must grow")
        self._last_block = block_id
        block = Block(
            block_id,
            Role.ALICE,
            self._config,
            self._tracker,
            self._say,
            self._guard,
            self.now_ns,
            self.schedule,
            self.randomness,
        )
        self._blocks[block_id] = block
        return block

    def _on_announce(self, block: Block, message: Announce) -> list[Effect]:
        if message.chunk != block.chunks or message.from_slot < block.to_slot or message.to_slot < message.from_slot:
            raise RemoteProtocolError(f"{message!r}: chunk {message.chunk} does not follow chunk {block.chunks - 1}")
        block.cover(message.from_slot, message.to_slot)
        policy = self._config.detectors.cross_basis

        def work() -> Any:
            heard = decode_announcement(message.payload, message.from_slot, message.to_slot, policy)
            try:
                mine = self._symbols.lookup(heard.slots)
            except RemoteProtocolError as error:
                return str(error)
            self._symbols.release_before(message.to_slot)
            alice_bases, alice_bits, intensities = mine
            levels = intensities if self._config.link.intensities else None
            return heard, *alice_sift(heard.bases, heard.x_bits, alice_bases, alice_bits, levels)

        return [self._guard(block, Run("sift", work, lambda result: self._sifted(block, message.chunk, result)))]

    def _sifted(self, block: Block, chunk: int, result: Any) -> list[Effect]:
        if isinstance(result, str):
            return self.give_up(block, result)
        heard, reply, sifted = result
        block.detections += int(heard.slots.size)
        block.count(sifted, int(heard.slots.size), int(heard.cross_slots.size), heard.double_clicks)
        effects: list[Effect] = [self.say(block, Sift(block.block_id, chunk, reply))]
        effects += block.frames.add(sifted.bits)
        return [*effects, *self._maybe_close(block)]

    def _on_block_end(self, block: Block, message: BlockEnd) -> list[Effect]:
        if message.chunks != block.chunks or message.to_slot != block.to_slot:
            raise RemoteProtocolError(f"{message!r}: {message.chunks} chunks announced, {block.chunks} received")
        block.filled(self.now_ns)
        return self._maybe_close(block)

    # -- 8 reconcile, 9 verify ----------------------------------------------------------------------------------------

    def _maybe_close(self, block: Block) -> list[Effect]:
        if block.state is not State.CLOSED or block.chunks_sifted < block.chunks or block.frames.closed:
            return []
        return [*block.frames.close(), *self._maybe_verify(block)]

    def _maybe_verify(self, block: Block) -> list[Effect]:
        if block.state is not State.CLOSED or not block.frames.complete or block.verifying:
            return []
        if block.frames.kept_bits == 0:
            return self.give_up(block, "no frame could be reconciled")
        if (noise := block.noise()) is not None:
            return self.give_up(block, noise)
        block.verifying = True

        def work() -> tuple[ReconciledKey, bytes, bytes]:
            reconciled = block.reconciled_key = block.reconciled()
            hash_key = draw_point(self._random_bytes)
            return reconciled, hash_key, verification_tag(reconciled.bits.view(), reconciled.bits.n_bits, hash_key)

        def done(result: tuple[ReconciledKey, bytes, bytes]) -> list[Effect]:
            reconciled, hash_key, tag = result
            return [self.say(block, Verify(block.block_id, reconciled.frames, reconciled.frames_failed, hash_key, tag))]

        return [self._guard(block, Run("block", work, done))]

    # -- 10 estimate, 11 amplify --------------------------------------------------------------------------------------

    def _on_verified(self, block: Block, message: Verified) -> list[Effect]:
        if message.equal != 1:
            return self.give_up(block, "verification failed: the reconciled keys differ")
        assert block.reconciled_key is not None
        block.verified = verified_key(block.reconciled_key)
        if (accused := block.counted(message.z_ones_steps, self._recent)) is not None:
            return self.give_up(block, accused)
        return [self._guard(block, Run("block", block.estimate, lambda _: self._propose(block)))]

    def _propose(self, block: Block) -> list[Effect]:
        ledger = block.ledger
        assert ledger is not None
        assert block.verified is not None
        secret_bytes = ledger.ell_bits // BITS_PER_BYTE
        if secret_bytes == 0:
            return self.give_up(block, ledger.refusal or "the key length is 0")
        block.refill_bytes = min(self._refill_bytes(), secret_bytes)
        propose = Propose(block.block_id, secret_bytes, block.refill_bytes, block.tallies_json().encode())
        effects: list[Effect] = [self.say(block, propose)]
        n_seed = seed_bits(self._config.amplification.family, block.verified.bits.n_bits, BITS_PER_BYTE * secret_bytes)

        def work() -> NDArray[np.uint8]:
            return draw_seed(n_seed, self._random_bytes)

        return [*effects, self._guard(block, Run("block", work, lambda seed: self._announce_seed(block, seed, 0)))]

    def _announce_seed(self, block: Block, seed: NDArray[np.uint8], index: int) -> list[Effect]:
        """The seed becomes public only now, when the verified key is fixed; part by part, others may speak between."""
        start, parts = index * SEED_PART_BYTES, -(-seed.size // SEED_PART_BYTES)
        part = seed[start : start + SEED_PART_BYTES].tobytes()
        effects: list[Effect] = [self.say(block, Seed(block.block_id, index, parts, part))]
        if index + 1 < parts:
            after = Run("block", lambda: None, lambda _: self._announce_seed(block, seed, index + 1))
            return [*effects, self._guard(block, after)]
        effects.append(self.say(block, Fixed(block.block_id, *block.digests())))
        assert block.ledger is not None
        secret_bytes = block.ledger.ell_bits // BITS_PER_BYTE

        def work() -> SecretKey:
            return block.amplify(seed, secret_bytes, self.simulated)

        return [*effects, self._guard(block, Run("block", work, lambda key: self._keep(block, key)))]

    # -- 12 key store -------------------------------------------------------------------------------------------------

    def _keep(self, block: Block, secret: SecretKey) -> list[Effect]:
        raw = secret.bits.take()
        certificate = block.certificate(self.identity.software, self.identity.signer)

        def work() -> None:
            self.keep(block, raw, certificate, authenticated=False)

        def done(_: None) -> list[Effect]:
            block.stored = True
            return self._maybe_decide(block)

        return [self._guard(block, Run("store", work, done))]

    def _maybe_decide(self, block: Block) -> list[Effect]:
        """Bob's words are authentic and mine were to him, he has promised, my copy is safe: now the key is good."""
        if block.state is not State.PREPARED or not block.stored or block.deciding:
            return []
        block.deciding = True

        def done(_: None) -> list[Effect]:
            commit = self.say(block, Commit(block.block_id, *block.digests()))
            return [self.add_pads(block.block_id, sendable=False), commit]

        return [self._guard(block, Run("store", lambda: self.store.decide(block.block_id), done))]

    def _on_committed(self, message: Committed) -> list[Effect]:
        """My obligation ends: Bob holds the key as good."""
        block = self._blocks.get(message.block_id)
        if block is not None:
            self.step(block, message, ours=False)
            self.forget(block.block_id)

        def work() -> BlockFacts | None:
            return self.commit(message.block_id, "decided", reported=block is not None)

        def done(settled: BlockFacts | None) -> list[Effect]:
            facts = block.facts(self.now_ns) if block is not None else settled
            told = [BlockDone(facts)] if facts is not None else []
            return [self.add_pads(message.block_id, sendable=True), *told]

        return [Run("store", work, done)]
