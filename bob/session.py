"""Bob's half of the conversation, in the order of the data. Sans-I/O: detections and messages in, effects out.

sift -> reconcile -> verify -> estimate -> fix -> amplify -> prepare -> commit; Bob fills and closes blocks, checks the
length, promises once Alice's words are authentic, and commits when she has decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.datatypes import Detections
from common.errors import AuthenticationError, RemoteProtocolError
from common.postprocessing.estimation import recent_blocks
from common.postprocessing.reconciliation.tracker import QberTracker
from common.postprocessing.sifting import MAX_CHUNK_DETECTIONS
from common.protocol.block import BITS_PER_BYTE, Block, BlockFacts, certified_digests, compare
from common.protocol.effects import BlockDone, Effect, Errand, Job, Send
from common.protocol.jobs import announcement, join_and_tag, sift_at_bob, sifted_chunk
from common.protocol.messages import (
    NONCE_BYTES,
    Announce,
    BlockEnd,
    BlockMessage,
    Commit,
    Committed,
    Fixed,
    Prepared,
    Propose,
    Seed,
    Sift,
    Verified,
    Verify,
    Withdraw,
)
from common.protocol.session import Greeting, Identity, LinkSession, Store
from common.protocol.story import Await, Do, Refused, Story, Tale, Together, Until
from common.protocol.transitions import Role, State, may_refuse

CHUNK_SLOTS = 1 << 25
"""A chunk is announced at the latest after this many slots, so that Alice need not keep symbols for long."""
MAX_PIECE = MAX_CHUNK_DETECTIONS // 2
"""A chunk announces less than `chunk_detections` slots (at most as many) and one piece more."""
BLOCK_NUMBERS_PER_START = 1 << 32
HOPELESS = 0.16
"""Error rate of the check basis above which a block is not decoded. This saves work, and is no bound of the proof:
1 - h(0.16) = 0.366 of the bits would still pay for 6.3 % errors in Z at f_EC 1.08. But a check basis as wrong as this
means a polarisation that has turned, or an eavesdropper: the block is given up, and the operator is told."""
R, L = 2, 3


class BobBlock(Block):
    """Bob's side of a block."""

    unanswered = 0
    """Slots that were announced and that Alice has not answered."""
    z_ones = 0
    """Ones among his sifted bits; secret."""


class BobSession(LinkSession):
    """Bob's end of the link.

    Parameters
    ----------
    instance : this process's start counter; makes block numbers unique and growing.
    random_bytes : fresh bytes that nobody can foresee (they become public).
    """

    _blocks: dict[int, BobBlock]

    def __init__(
        self,
        config: Config,
        identity: Identity,
        store: Store,
        instance: int,
        random_bytes: Callable[[int], NDArray[np.uint8]],
        accept_request: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(identity, store, accept_request, config.reconciliation)
        self._config = config
        self._random_bytes = random_bytes
        self._tracker = QberTracker(config.reconciliation.qber_start)
        self._recent = recent_blocks(config)
        self._filling: BobBlock | None = None
        self._next_block = instance * BLOCK_NUMBERS_PER_START + 1
        self._waiting: list[Detections] = []
        self._seen_slot = self._void_until = 0
        self._check_counts: list[tuple[int, int, int]] = []

    def _nonce(self) -> bytes:
        return self._random_bytes(NONCE_BYTES).tobytes()

    def take_check_counts(self) -> list[tuple[int, int, int]]:
        """(first slot, right, wrong) X outcomes of every sifted chunk since the last call: public."""
        counts, self._check_counts = self._check_counts, []
        return counts

    # -- shared session -----------------------------------------------------------------------------------------------

    def forget(self, block_id: int) -> None:
        """Drop the record of an ended block, and what waits to be announced of it."""
        if self._filling is not None and self._filling.block_id == block_id:
            self._filling = None
            self._waiting.clear()
        super().forget(block_id)

    def resolve(self, ours: list[tuple[int, str]], peer: Greeting) -> list[Effect]:
        """What Alice has not decided she never will; what she has decided she repeats.

        Numbers go on above hers: a store that was set back counts starts again, and would give two blocks one number.
        """
        self._next_block = max(self._next_block, peer.newest_block + 1)
        void = [block_id for block_id, state in ours if state == "pending" and block_id not in peer.decided]
        return [effect for block_id in void for effect in self.in_store(self.destroy, block_id)]

    def handle_block(self, message: BlockMessage) -> list[Effect]:
        """One message of a block."""
        block = self._blocks.get(message.block_id)
        if isinstance(message, Commit):
            if block is not None:
                self.step(block, message, ours=False)
            return self._lasting.begin(self._commit(message, block))
        if block is not None:
            return self.hear(block, message)
        if message.block_id < self._next_block:
            return []
        raise RemoteProtocolError(f"{message!r} belongs to no open block")

    def void_filling(self, reason: str, now_ns: int) -> list[Effect]:
        """The open block's detections are not to be trusted or kept up with: refuse it whole."""
        self.now_ns = now_ns
        self._waiting.clear()
        block, self._filling = self._filling, None
        return self.give_up(block, reason) if block is not None and may_refuse(block.state, self.role) else []

    def void(self, from_slot: int, to_slot: int, reason: str, now_ns: int) -> list[Effect]:
        """Detections of these slots are not to be trusted, those that came and those that may still come.

        Every block that reaches beyond ``from_slot`` is refused, also one that is full; up to ``to_slot`` detections
        are dropped, until slot numbers begin anew.
        """
        self.now_ns, self._void_until = now_ns, to_slot
        filling_to = self._waiting[-1].to_slot if self._waiting else 0
        effects: list[Effect] = []
        for block in list(self._blocks.values()):
            reach = max(block.to_slot, filling_to) if block is self._filling else block.to_slot
            if reach > from_slot and may_refuse(block.state, self.role):
                effects += self.give_up(block, reason)
        return effects

    @property
    def filling_detections(self) -> int:
        """Detections of the open block that have been announced: what dropping it would throw away."""
        return 0 if self._filling is None else self._filling.detections

    @property
    def backlog_detections(self) -> int:
        """Slots announced and not yet sifted: what a slow link or a slow Alice makes grow."""
        return sum(block.unanswered for block in self._blocks.values())

    def _closed(self) -> list[BobBlock]:
        """Blocks that are full and not yet at their end, in order."""
        return [block for block in self._blocks.values() if block is not self._filling]

    @property
    def backlog_blocks(self) -> int:
        """Blocks that are closed and not yet at their end."""
        return len(self._closed())

    @property
    def backlog_bits(self) -> int:
        """Bits of closed blocks whose frames have no result: what slow error correction leaves."""
        return sum(block.frames.open_bits for block in self._closed())

    @property
    def late_bits(self) -> int:
        """The same of blocks that should have been corrected while the last closed one filled."""
        return sum(block.frames.open_bits for block in self._closed()[:-1])

    # -- 6 gate: detections come in -----------------------------------------------------------------------------------

    def on_detections(self, detections: Detections, now_ns: int) -> list[Effect]:
        """More detections, contiguous with the last; opens and closes blocks. Dropped while there is no handshake."""
        self.now_ns = now_ns
        if detections.from_slot < self._seen_slot:
            self._void_until = 0
        self._seen_slot = detections.to_slot
        if detections.from_slot < self._void_until:
            detections = detections.later(self._void_until)
            if detections.from_slot == detections.to_slot:
                return []
        return [effect for piece in detections.pieces(MAX_PIECE) for effect in self._on_piece(piece)]

    def _on_piece(self, detections: Detections) -> list[Effect]:
        if not self.ready or self.held is not None:
            return []
        self._waiting.append(detections)
        block = self._filling or self._open()
        count = sum(map(len, self._waiting))
        wanted = self._config.blocks.block_size_detections - block.detections
        span = detections.to_slot - self._waiting[0].from_slot
        announced = sum(batch.announced for batch in self._waiting)
        if count < wanted and announced < self._config.blocks.chunk_detections and span < CHUNK_SLOTS:
            return []
        batches, self._waiting = tuple(self._waiting), []
        return self._fill(block, batches, last=count >= wanted)

    def _open(self) -> BobBlock:
        block_id = self._next_block
        self._next_block += 1
        block = BobBlock(
            block_id,
            Role.BOB,
            self._config,
            self._tracker,
            self.say,
            self.give_up,
            self.now_ns,
            self.schedule,
            self.randomness,
        )
        self._filling = self._blocks[block_id] = block
        block.story.begin(self._tell(block))
        return block

    def next_segment(self) -> int:
        """A number for authentication key that no block brings: above all blocks so far, below all that follow."""
        self._next_block += 1
        return self._next_block - 1

    def _fill(self, block: BobBlock, batches: tuple[Detections, ...], *, last: bool) -> list[Effect]:
        """One chunk more of a block; its last one makes room for the next block."""
        number, announced = block.chunks, sum(batch.announced for batch in batches)
        block.cover(batches[0].from_slot, batches[-1].to_slot)
        block.detections += sum(map(len, batches))
        block.unanswered += announced
        if last:
            self._filling = None
            block.filled(self.now_ns)
        return block.story.begin(self._sift(block, number, batches, announced, last))

    # -- the story of a block -----------------------------------------------------------------------------------------

    def _tell(self, block: BobBlock) -> Tale:
        """A block from its opening to the promise of its key; its chunks are sifted meanwhile."""
        yield Until(block.all_sifted)
        yield from block.frames.close()
        yield from self._verify(block, (yield Await(Verify)))
        yield from self._make(block, (yield Await(Propose)))
        yield self.say(block, Prepared(block.block_id, *block.digests()))

    # -- 7 sift -------------------------------------------------------------------------------------------------------

    def _sift(
        self, block: BobBlock, number: int, batches: tuple[Detections, ...], announced: int, last: bool
    ) -> Tale:
        """Announce one chunk, and keep of it what Alice answers."""
        joined = yield from self._announce(block, number, batches, last)
        del batches  # until Alice answers the joined chunk alone is kept
        reply = yield Await(Sift)
        if reply.chunk != number:
            raise RemoteProtocolError(f"{reply!r}: chunk {reply.chunk} is not waiting for a reply")
        block.unanswered -= announced
        job = Job(sift_at_bob, (joined, reply.payload, bool(self._config.link.intensities)))
        share, ones = yield Do("sift", job)
        sifted = sifted_chunk(share)
        self._check_counts.append((joined.from_slot, *check_outcomes(sifted.x_counts)))
        block.count(sifted, len(joined), int(joined.cross_slots.size), int(joined.double_slots.size))
        block.z_ones += ones
        self._refuse_hopeless(block)
        yield from block.frames.add(sifted.bits)

    def _announce(self, block: BobBlock, number: int, batches: tuple[Detections, ...], last: bool) -> Tale:
        joined, payload = yield Do("sift", Job(announcement, (batches,)))
        ends = joined.from_slot, joined.to_slot
        yield self.say(block, Announce(block.block_id, number, *ends, self._nonce(), payload))
        if last:
            yield self.say(block, BlockEnd(block.block_id, block.chunks, block.to_slot))
        return joined

    def _refuse_hopeless(self, block: BobBlock) -> None:
        if hopeless(*check_outcomes(block.x_counts)):
            block.z_ones_steps = share_steps(block.z_ones, int(block.n_z.sum()))
            why = block.judge_devices() or "the polarisation is off, or somebody listens"
            raise Refused(f"the check basis shows too many errors for any key: {why}")

    # -- 8 reconcile, 9 verify ----------------------------------------------------------------------------------------

    def _verify(self, block: BobBlock, message: Verify) -> Tale:
        frames = block.frames
        yield Until(lambda: frames.complete)
        if (noise := block.noise()) is not None:
            raise Refused(noise)
        if (message.frames_kept, message.frames_failed) != (frames.frames_kept, frames.frames_failed):
            raise RemoteProtocolError(f"{message!r}: the two ends keep different frames")
        packed, _, tag = yield Do("block", Job(join_and_tag, (frames.parts(), frames.kept_bits, message.hash_key)))
        block.reconciled(packed)
        if tag != message.tag:
            yield self.say(block, Verified(block.block_id, 0, 0, self._nonce()))
            return
        block.verified_by_both()
        steps = share_steps(block.z_ones, int(block.n_z.sum()))
        block.counted(steps, self._recent)  # said all the same: Alice's sums are to know of this block
        yield self.say(block, Verified(block.block_id, 1, steps, self._nonce()))

    # -- 10 estimate, 11 amplify --------------------------------------------------------------------------------------

    def _make(self, block: BobBlock, message: Propose) -> Tale:
        """Make and keep the key, once the length is within my own bound and all that Alice said is authentic."""
        self._check(block, message)
        block.refill_bytes = message.refill_bytes
        agreed = Together(self._judge(block, message), self._hear_seed(block))
        raw = yield from block.amplify((yield agreed)[1], message.secret_bytes, self.simulated)
        deed = block.deed(self.identity.software, self.identity.signer)
        yield Do("store", Errand(self.keep, (deed, raw, True)))

    def _check(self, block: BobBlock, message: Propose) -> None:
        """What can be said of a proposal before anything is computed."""
        if block.verified is None:
            raise RemoteProtocolError(f"{message!r}: a length is proposed for keys that differ")
        if block.device_fault is not None:
            raise Refused(block.device_fault)
        ours, theirs = block.tallies_json(), message.payload.decode(errors="replace")
        if ours != theirs:
            raise Refused(f"the tallies differ in {_first_difference(ours, theirs)!r}")

    def _judge(self, block: BobBlock, message: Propose) -> Tale:
        """Alice may propose at most what my own arithmetic allows."""
        ledger = block.ledger = yield Do("block", block.estimation())
        if BITS_PER_BYTE * message.secret_bytes > ledger.ell_bits or message.refill_bytes > message.secret_bytes:
            raise Refused(f"{message.secret_bytes} bytes proposed, my bound is {ledger.ell_bits} bits")

    def _hear_seed(self, block: BobBlock) -> Tale:
        """Until FIXED: what Alice said of this block is authentic, and she heard what I said."""
        parts: list[bytes] = []
        wanted = 1
        while len(parts) < wanted:
            message = yield Await(Seed)
            if message.index != len(parts) or message.index >= message.parts:
                raise RemoteProtocolError(f"{message!r}: seed part {message.index} does not follow")
            parts.append(message.payload)
            wanted = message.parts
        block.compare((yield Await(Fixed)))
        return tuple(parts)

    # -- 12 key store: what I owe from here on ------------------------------------------------------------------------

    def _commit(self, message: Commit, block: BobBlock | None) -> Tale:
        """Alice has decided: commit, and say so as often as she asks; withdraw what is not held here (any more)."""
        talk = self._talk
        held, settled = yield Do("store", Errand(self._commit_here, (message, block is not None)))
        if not held:
            yield from self._while(talk, Withdraw(message.block_id, b"its key is not held here"))
            return
        yield from self.add_pads(message.block_id, sendable=True)
        yield from self._while(talk, Committed(message.block_id))
        if block is not None:
            block.state = State.COMMITTED
            self.forget(block.block_id)
        facts = block.facts(self.now_ns) if block is not None else settled
        if facts is not None:
            yield BlockDone(facts)

    def _while(self, talk: Story, message: BlockMessage) -> list[Effect]:
        """Say this unless another session has begun by now."""
        return [] if talk.over else [Send(message)]

    def _commit_here(self, message: Commit, reported: bool) -> tuple[bool, BlockFacts | None]:
        if self.store.state_of(message.block_id) is None:
            return False, None
        try:
            compare(message, certified_digests(self.store.certificate_of(message.block_id)))
        except AuthenticationError:
            self.destroy(message.block_id)
            raise
        return True, self.commit(message.block_id, "pending", reported)


def check_outcomes(x_counts: NDArray[np.int64]) -> tuple[int, int]:
    """(right, wrong) of the X symbols measured in X; ``x_counts``: *(intensities, 4, 2)*."""
    x = x_counts.sum(axis=0)
    return int(x[R, 0] + x[L, 1]), int(x[R, 1] + x[L, 0])


def share_steps(part: int, whole: int) -> int:
    """A share in steps of 2^-16, to the nearest; a whole one is a step less."""
    return min(((part << 17) // max(whole, 1) + 1) >> 1, (1 << 16) - 1)


def hopeless(right: int, wrong: int) -> bool:
    """Whether the error rate of the check basis is surely above ``HOPELESS``: decoding would be work for nothing."""
    n = right + wrong
    return n > 0 and wrong > HOPELESS * n + 5.0 * math.sqrt(HOPELESS * (1.0 - HOPELESS) * n)


def _first_difference(ours: str, theirs: str) -> str:
    """Name of our first field that is not in the peer's text; nobody has authenticated that, so it is not parsed."""
    fields, others = (text[2:-1].split(', "') for text in (ours, theirs))
    return next((field.split('"')[0] for field in fields if field not in others), "their form")
