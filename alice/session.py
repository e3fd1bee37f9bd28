"""Alice's half of the conversation, in the order of the data. Sans-I/O: messages in, effects out.

sift -> reconcile -> verify -> estimate -> fix -> amplify -> prepare -> commit; Alice sifts, proposes, decides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.errors import RemoteProtocolError
from common.postprocessing.amplification import draw_seed
from common.postprocessing.estimation import recent_blocks
from common.postprocessing.reconciliation.tracker import QberTracker
from common.postprocessing.sifting import decode_announcement
from common.postprocessing.verification import draw_point
from common.protocol.block import Block, BlockFacts, certified_digests, refused_facts
from common.protocol.effects import BlockDone, DropPads, Effect, Errand, Job, Send
from common.protocol.jobs import join_and_tag, nothing, sift_at_alice, sifted_chunk
from common.protocol.messages import (
    Announce,
    BlockEnd,
    BlockMessage,
    Commit,
    Committed,
    Fixed,
    Prepared,
    Propose,
    Refuse,
    Seed,
    Sift,
    Verified,
    Verify,
    Withdraw,
)
from common.protocol.session import Greeting, Identity, LinkSession, Store, SymbolMemory
from common.protocol.story import Await, Begin, Do, Refused, Tale, Together, Until
from common.protocol.transitions import Role, State

SEED_PART_BYTES = 1 << 18


class AliceSession(LinkSession):
    """Alice's end of the link.

    Parameters
    ----------
    symbols : what she sent.
    random_bytes : fresh true random bytes (seeds, hash keys).
    refill_bytes : how much of the next key the authentication pool wants.
    """

    _blocks: dict[int, Block]

    def __init__(
        self,
        config: Config,
        identity: Identity,
        store: Store,
        symbols: SymbolMemory,
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
        self._last_block = 0

    # -- shared session -----------------------------------------------------------------------------------------------

    def newest_block(self, stored: int) -> int:
        """Also those that produced no key."""
        return max(stored, self._last_block)

    def resolve(self, ours: list[tuple[int, str]], peer: Greeting) -> list[Effect]:
        """What I had decided I repeat; what I had only prepared is void."""
        effects: list[Effect] = []
        for block_id, state in ours:
            if state == "decided":
                effects += self.add_pads(block_id, sendable=False)
                effects += self._talk.begin(self._commit_again(block_id))
            else:
                effects += self.in_store(self.destroy, block_id)
        return effects

    def handle_block(self, message: BlockMessage) -> list[Effect]:
        """One message of a block."""
        block = self._blocks.get(message.block_id)
        if isinstance(message, Committed):
            if block is not None:
                self.step(block, message, ours=False)
            return self._lasting.begin(self._settle(message, block))
        if block is None:
            if not isinstance(message, Announce) or message.chunk != 0:
                return self._late(message)
            block = self._open(message.block_id)
            block.story.begin(self._tell(block))
            if self.held is not None:
                return self.give_up(block, self.held)
        return self.hear(block, message)

    def _late(self, message: BlockMessage) -> list[Effect]:
        """A message of a block that ended here while it was on its way, or that Bob gave up before he announced it."""
        if isinstance(message, Withdraw):
            return self._lasting.begin(self._take_back(message))
        if isinstance(message, Refuse):
            self._last_block = max(self._last_block, message.block_id)
        if message.block_id <= self._last_block:
            return []
        raise RemoteProtocolError(f"{message!r} belongs to no open block")

    def _open(self, block_id: int) -> Block:
        if block_id <= self._last_block:
            raise RemoteProtocolError(f"block {block_id} was opened before: numbers must grow")
        self._last_block = block_id
        block = Block(
            block_id,
            Role.ALICE,
            self._config,
            self._tracker,
            self.say,
            self.give_up,
            self.now_ns,
            self.schedule,
            self.randomness,
        )
        self._blocks[block_id] = block
        return block

    # -- the story of a block -----------------------------------------------------------------------------------------

    def _tell(self, block: Block) -> Tale:
        """A block from its first chunk to the moment at which its key is stored here and promised by Bob."""
        yield from self._fill(block)
        yield from self._reconcile(block)
        yield from self._verify(block)
        yield from self._propose(block)
        yield Together(self._make(block, (yield from self._announce_seed(block))), self._hear_promise(block))
        yield from self._talk.begin(self._decide(block))

    # -- 7 sift -------------------------------------------------------------------------------------------------------

    def _fill(self, block: Block) -> Tale:
        """Chunks are sifted as they are announced, side by side, until Bob has told the last."""
        while block.state is State.FILLING:
            yield from self._next_chunk(block)
        yield Until(block.all_sifted)

    def _next_chunk(self, block: Block) -> Tale:
        message = yield Await(Announce, BlockEnd)
        if isinstance(message, BlockEnd):
            if message.chunks != block.chunks or message.to_slot != block.to_slot:
                raise RemoteProtocolError(f"{message!r}: {message.chunks} chunks announced, {block.chunks} received")
            block.filled(self.now_ns)
            return
        if message.chunk != block.chunks or not block.to_slot <= message.from_slot <= message.to_slot:
            raise RemoteProtocolError(f"{message!r}: chunk {message.chunk} does not follow chunk {block.chunks - 1}")
        block.cover(message.from_slot, message.to_slot)
        yield Begin(self._sift(block, message))

    def _sift(self, block: Block, message: Announce) -> Tale:
        result = yield Do("sift", Errand(self._look_up, (message,)))
        if isinstance(result, str):
            raise Refused(result)
        counts, reply, share = result
        block.detections += counts[0]
        block.count(sifted := sifted_chunk(share), *counts)
        yield self.say(block, Sift(block.block_id, message.chunk, reply))
        yield from block.frames.add(sifted.bits)

    def _look_up(self, message: Announce) -> Job | str:
        """Fetch what I sent in the announced slots, and forget all before; words if the slots are not there."""
        heard = decode_announcement(
            message.payload, message.from_slot, message.to_slot, self._config.detectors.cross_basis
        )
        try:
            bases, bits, intensities = self._symbols.lookup(heard.slots)
        except RemoteProtocolError as error:
            return str(error)
        self._symbols.release_before(message.to_slot)
        return Job(sift_at_alice, (heard, bases, bits, intensities if self._config.link.intensities else None))

    # -- 8 reconcile --------------------------------------------------------------------------------------------------

    def _reconcile(self, block: Block) -> Tale:
        yield from block.frames.close()
        yield Until(lambda: block.frames.complete)
        if block.frames.kept_bits == 0:
            raise Refused("no frame could be reconciled")
        if (noise := block.noise()) is not None:
            raise Refused(noise)

    # -- 9 verify -----------------------------------------------------------------------------------------------------

    def _verify(self, block: Block) -> Tale:
        frames = block.frames
        packed, point, tag = yield Do("block", Errand(self._with_point, (frames.parts(), frames.kept_bits)))
        block.reconciled(packed)
        yield self.say(block, Verify(block.block_id, frames.frames_kept, frames.frames_failed, point, tag))
        verdict = yield Await(Verified)
        if verdict.equal != 1:
            raise Refused("verification failed: the reconciled keys differ")
        block.verified_by_both()
        if (accused := block.counted(verdict.z_ones_steps, self._recent)) is not None:
            raise Refused(accused)

    def _with_point(self, parts: tuple[NDArray[np.uint8], ...], n_bits: int) -> Job:
        return Job(join_and_tag, (parts, n_bits, draw_point(self._random_bytes)))

    # -- 10 estimate --------------------------------------------------------------------------------------------------

    def _propose(self, block: Block) -> Tale:
        ledger = block.ledger = yield Do("block", block.estimation())
        if block.secret_bytes == 0:
            raise Refused(ledger.refusal or "the key length is 0")
        block.refill_bytes = min(self._refill_bytes(), block.secret_bytes)
        tallies = block.tallies_json().encode()
        yield self.say(block, Propose(block.block_id, block.secret_bytes, block.refill_bytes, tallies))

    # -- 11 amplify ---------------------------------------------------------------------------------------------------

    def _announce_seed(self, block: Block) -> Tale:
        """The seed becomes public only now, when the verified key is fixed; part by part, others may speak between."""
        n_bits = block.seed_bits(block.secret_bytes)
        seed = yield Do("block", Errand(draw_seed, (n_bits, self._random_bytes)))
        starts = range(0, seed.size, SEED_PART_BYTES)
        for index, start in enumerate(starts):
            if index:
                yield Do("block", Job(nothing))
            part = seed[start : start + SEED_PART_BYTES].tobytes()
            yield self.say(block, Seed(block.block_id, index, len(starts), part))
        yield self.say(block, Fixed(block.block_id, *block.digests()))
        return seed

    def _make(self, block: Block, seed: NDArray[np.uint8]) -> Tale:
        amplified = block.amplify(seed, block.secret_bytes, self.simulated)
        del seed  # the job's alone: megabytes
        raw = yield from amplified
        deed = block.deed(self.identity.software, self.identity.signer)
        yield Do("store", Errand(self.keep, (deed, raw, False)))

    def _hear_promise(self, block: Block) -> Tale:
        """Bob's words were authentic and mine were to him: he holds his key."""
        block.compare((yield Await(Prepared)))

    # -- 12 key store: what I owe from here on ------------------------------------------------------------------------

    def _decide(self, block: Block) -> Tale:
        """He has promised and my copy is safe: now the key is good."""
        yield Do("store", Errand(self.store.decide, (block.block_id,)))
        commit = self.say(block, Commit(block.block_id, *block.digests()))
        yield from self.add_pads(block.block_id, sendable=False)
        yield commit

    def _commit_again(self, block_id: int) -> Tale:
        certificate = yield Do("store", Errand(self.store.certificate_of, (block_id,)))
        yield Send(Commit(block_id, *certified_digests(certificate)))

    def _settle(self, message: Committed, block: Block | None) -> Tale:
        """My obligation ends: Bob holds the key as good."""
        self.forget(message.block_id)
        settled = yield Do("store", Errand(self.commit, (message.block_id, "decided", block is not None)))
        yield from self.add_pads(message.block_id, sendable=True)
        facts = block.facts(self.now_ns) if block is not None else settled
        if facts is not None:
            yield BlockDone(facts)

    def _take_back(self, withdrawn: Withdraw) -> Tale:
        """Bob does not hold the key that I had decided and never will, so it is nobody's."""
        facts = yield Do("store", Errand(self._undecide, (withdrawn,)))
        if facts is not None:
            yield DropPads(withdrawn.block_id)
            yield BlockDone(facts)

    def _undecide(self, withdrawn: Withdraw) -> BlockFacts | None:
        if self.store.state_of(withdrawn.block_id) != "decided":
            return None
        certificate = self.store.certificate_of(withdrawn.block_id)
        self.destroy(withdrawn.block_id, "decided")
        return refused_facts(certificate, "refused by the peer: " + withdrawn.reason)
