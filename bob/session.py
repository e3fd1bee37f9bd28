"""Bob's half of the conversation, in the order of the data. Sans-I/O: detections and messages in, effects out.

sift -> reconcile -> verify -> estimate -> fix -> amplify -> prepare -> commit; Bob fills and closes blocks, checks the
length, promises once Alice's words are authentic, and commits when she has decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bob.batches import Chunk
from common.config import Config
from common.datatypes import Detections, ReconciledKey, SecretKey
from common.errors import AuthenticationError, RemoteProtocolError
from common.postprocessing.amplification import seed_bits, seed_fault
from common.postprocessing.estimation import recent_blocks
from common.postprocessing.reconciliation import QberTracker
from common.postprocessing.sifting import MAX_CHUNK_DETECTIONS, SiftedChunk, bob_sift, encode_announcement
from common.postprocessing.verification import verification_tag, verified_key
from common.protocol.block import BITS_PER_BYTE, Block, BlockFacts, certified_digests, compare
from common.protocol.effects import BlockDone, Effect, Run
from common.protocol.messages import (
    NONCE_BYTES,
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
    """Bob's side of a block: the detections under way, the 1s among his sifted bits, the proposal under examination."""

    def begin(self) -> BobBlock:
        """Fresh records."""
        self.announced: dict[int, Chunk] = {}
        self.z_ones = 0
        self.verify: Verify | None = None
        self.propose: Propose | None = None
        self.length_accepted = False
        self.amplifying = False
        self.seed_parts: list[bytes] = []
        self.seed_total = 0
        return self


class BobSession(LinkSession):
    """Bob's end of the link.

    Parameters
    ----------
    instance : this process's start counter; makes block numbers unique and growing.
    random_bytes : fresh bytes that nobody can foresee (they become public).
    """

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
        self._blocks: dict[int, BobBlock] = {}
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

    def open_blocks(self) -> list[Any]:
        """Every block that has not ended."""
        return list(self._blocks.values())

    def forget(self, block_id: int) -> None:
        """Drop a block's record."""
        block = self._blocks.pop(block_id, None)
        if block is not None and block is self._filling:
            self._filling = None
            self._waiting.clear()

    def must_keep(self, block: Block) -> bool:
        """From the promise on, until Alice has decided."""
        return block.state in (State.PREPARED, State.DECIDED)

    def resolve(self, ours: list[tuple[int, str]], peer: dict[str, Any]) -> list[Effect]:
        """What Alice has not decided she never will; what she has decided she repeats.

        Numbers go on above hers: a store that was set back counts starts again, and would give two blocks one number.
        """
        self._next_block = max(self._next_block, int(peer["newest_block"]) + 1)
        return [
            Run("store", partial(self.destroy, block_id), lambda _: [])
            for block_id, state in ours
            if state == "pending" and block_id not in peer["decided"]
        ]

    def handle_block(self, message: BlockMessage) -> list[Effect]:
        """One message of a block."""
        if isinstance(message, Commit):
            return self._on_commit(message)
        block = self._blocks.get(message.block_id)
        if block is None:
            if message.block_id < self._next_block:
                return []
            raise RemoteProtocolError(f"{message!r} belongs to no open block")
        before = block.state
        if not self.step(block, message, ours=False):
            return []
        match message:
            case Sift():
                return self._on_sift(block, message)
            case Syndrome():
                return block.frames.on_syndrome(message)
            case FrameResult():
                return block.frames.on_result(message)
            case Verify():
                block.verify = message
                return self._maybe_verify(block)
            case Propose():
                return self._on_propose(block, message)
            case Seed():
                return self._on_seed(block, message)
            case Fixed():
                return self._on_fixed(block, message)
            case Refuse() | Withdraw():
                return self._end(block, self.refused(block, message, before))
        raise RemoteProtocolError(f"{message!r} is not for Bob")

    def _end(self, block: Block, effects: list[Effect]) -> list[Effect]:
        self.forget(block.block_id)
        return effects

    def give_up(self, block: Block, reason: str) -> list[Effect]:
        """Refuse a block and forget it."""
        return self._end(block, self.refuse(block, reason))

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

    def _guard(self, block: BobBlock, run: Run) -> Run:
        return self.block_job(block, run, lambda: self._maybe_verify(block))

    @property
    def filling_detections(self) -> int:
        """Detections of the open block that have been announced: what shedding it would throw away."""
        return 0 if self._filling is None else self._filling.detections

    @property
    def backlog_detections(self) -> int:
        """Slots announced and not yet sifted: what a slow link or a slow Alice makes grow."""
        return sum(chunk.announced for block in self._blocks.values() for chunk in block.announced.values())

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
        chunk = Chunk(self._waiting.copy())
        self._waiting.clear()
        return self._announce(block, chunk, last=count >= wanted)

    def _open(self) -> BobBlock:
        block_id = self._next_block
        self._next_block += 1
        block = BobBlock(
            block_id,
            Role.BOB,
            self._config,
            self._tracker,
            self.say,
            self._guard,
            self.now_ns,
            self.schedule,
            self.randomness,
        ).begin()
        self._filling = self._blocks[block_id] = block
        return block

    def next_segment(self) -> int:
        """A number for authentication key that no block brings: above all blocks so far, below all that follow."""
        self._next_block += 1
        return self._next_block - 1

    def _announce(self, block: BobBlock, chunk: Chunk, *, last: bool) -> list[Effect]:
        number = block.chunks
        block.cover(chunk.from_slot, chunk.to_slot)
        block.detections += chunk.count
        block.announced[number] = chunk
        if last:
            self._filling = None
            block.filled(self.now_ns)

        def done(payload: bytes) -> list[Effect]:
            said = Announce(block.block_id, number, chunk.from_slot, chunk.to_slot, self._nonce(), payload)
            effects: list[Effect] = [self.say(block, said)]
            if last:
                effects.append(self.say(block, BlockEnd(block.block_id, block.chunks, block.to_slot)))
            return effects

        return [self._guard(block, Run("sift", lambda: encode_announcement(chunk.detections()), done))]

    # -- 7 sift, 8 reconcile ------------------------------------------------------------------------------------------

    def _on_sift(self, block: BobBlock, message: Sift) -> list[Effect]:
        chunk = block.announced.get(message.chunk)
        if chunk is None or message.chunk != min(block.announced):
            raise RemoteProtocolError(f"{message!r}: chunk {message.chunk} is not waiting for a reply")
        del block.announced[message.chunk]
        levels = bool(self._config.link.intensities)

        def work() -> tuple[SiftedChunk, int, Detections]:
            announced = chunk.detections()
            sifted = bob_sift(announced, message.payload, intensities=levels)
            return sifted, sifted.ones(), announced

        return [self._guard(block, Run("sift", work, partial(self._sifted, block)))]

    def _sifted(self, block: BobBlock, result: tuple[SiftedChunk, int, Detections]) -> list[Effect]:
        sifted, ones, announced = result
        self._check_counts.append((announced.from_slot, *check_outcomes(sifted.x_counts)))
        block.count(sifted, len(announced), int(announced.cross_slots.size), int(announced.double_slots.size))
        block.z_ones += ones
        if hopeless(*check_outcomes(block.x_counts)):
            block.z_ones_steps = share_steps(block.z_ones, int(block.n_z.sum()))
            why = block.judge_devices() or "the polarisation is off, or somebody listens"
            return self.give_up(block, f"the check basis shows too many errors for any key: {why}")
        effects = block.frames.add(sifted.bits)
        if block.state is not State.FILLING and block.chunks_sifted == block.chunks:
            effects += block.frames.close()
        return effects

    # -- 9 verify -----------------------------------------------------------------------------------------------------

    def _maybe_verify(self, block: BobBlock) -> list[Effect]:
        message = block.verify
        if message is None or not block.frames.complete or block.verifying:
            return []
        if (noise := block.noise()) is not None:
            return self.give_up(block, noise)
        block.verifying = True
        if (message.frames_kept, message.frames_failed) != (len(block.frames.kept()), block.frames.frames_failed):
            raise RemoteProtocolError(f"{message!r}: the two ends keep different frames")

        def work() -> tuple[ReconciledKey, bytes]:
            reconciled = block.reconciled_key = block.reconciled()
            return reconciled, verification_tag(reconciled.bits.view(), reconciled.bits.n_bits, message.hash_key)

        def done(result: tuple[ReconciledKey, bytes]) -> list[Effect]:
            reconciled, tag = result
            if tag != message.tag:
                return [self.say(block, Verified(block.block_id, 0, 0, self._nonce()))]
            block.verified = verified_key(reconciled)
            steps = share_steps(block.z_ones, int(block.n_z.sum()))
            block.counted(steps, self._recent)  # said all the same: Alice's sums are to know of this block
            return [self.say(block, Verified(block.block_id, 1, steps, self._nonce()))]

        return [self._guard(block, Run("block", work, done))]

    # -- 10 estimate, 11 amplify --------------------------------------------------------------------------------------

    def _on_propose(self, block: BobBlock, message: Propose) -> list[Effect]:
        if block.verified is None:
            raise RemoteProtocolError(f"{message!r}: a length is proposed for keys that differ")
        if block.device_fault is not None:
            return self.give_up(block, block.device_fault)
        ours, theirs = block.tallies_json(), message.payload.decode(errors="replace")
        if ours != theirs:
            return self.give_up(block, f"the tallies differ in {_first_difference(ours, theirs)!r}")
        block.propose = message
        block.refill_bytes = message.refill_bytes
        return [self._guard(block, Run("block", block.estimate, lambda _: self._judge(block)))]

    def _judge(self, block: BobBlock) -> list[Effect]:
        """Alice may propose at most what my own arithmetic allows."""
        ledger, message = block.ledger, block.propose
        assert ledger is not None
        assert message is not None
        if BITS_PER_BYTE * message.secret_bytes > ledger.ell_bits or message.refill_bytes > message.secret_bytes:
            return self.give_up(block, f"{message.secret_bytes} bytes proposed, my bound is {ledger.ell_bits} bits")
        block.length_accepted = True
        return self._maybe_amplify(block)

    def _on_seed(self, block: BobBlock, message: Seed) -> list[Effect]:
        if message.index != len(block.seed_parts) or message.index >= message.parts:
            raise RemoteProtocolError(f"{message!r}: seed part {message.index} does not follow")
        block.seed_parts.append(message.payload)
        block.seed_total = message.parts
        return []

    def _on_fixed(self, block: BobBlock, message: Fixed) -> list[Effect]:
        """What Alice said of this block is authentic, and she heard what I said: the key may be made and promised."""
        if not block.seed_parts or len(block.seed_parts) < block.seed_total:
            raise RemoteProtocolError(f"{message!r}: {len(block.seed_parts)} of {block.seed_total} seed parts came")
        block.compare(message)
        return self._maybe_amplify(block)

    def _maybe_amplify(self, block: BobBlock) -> list[Effect]:
        message = block.propose
        if message is None or block.state is not State.FIXED or not block.length_accepted or block.amplifying:
            return []
        assert block.verified is not None
        block.amplifying = True
        secret_bits = BITS_PER_BYTE * message.secret_bytes
        wanted = seed_bits(self._config.amplification.family, block.verified.bits.n_bits, secret_bits)
        parts = block.seed_parts.copy()
        block.seed_parts.clear()

        def work() -> SecretKey:
            seed = np.frombuffer(b"".join(parts), dtype=np.uint8)
            if (fault := seed_fault(seed, wanted)) is not None:
                raise RemoteProtocolError(fault)
            return block.amplify(seed, message.secret_bytes, self.simulated)

        return [self._guard(block, Run("block", work, lambda secret: self._keep(block, secret.bits.take())))]

    # -- 12 key store -------------------------------------------------------------------------------------------------

    def _keep(self, block: BobBlock, raw: NDArray[np.uint8]) -> list[Effect]:
        certificate = block.certificate(self.identity.software, self.identity.signer)

        def work() -> None:
            self.keep(block, raw, certificate, authenticated=True)

        def done(_: None) -> list[Effect]:
            return [self.say(block, Prepared(block.block_id, *block.digests()))]

        return [self._guard(block, Run("store", work, done))]

    def _on_commit(self, message: Commit) -> list[Effect]:
        """Alice has decided: commit, and say so as often as she asks; withdraw what is not held here (any more)."""
        block = self._blocks.get(message.block_id)
        if block is not None:
            self.step(block, message, ours=False)

        def work() -> tuple[bool, BlockFacts | None]:
            if self.store.state_of(message.block_id) is None:
                return False, None
            try:
                compare(message, certified_digests(self.store.certificate_of(message.block_id)))
            except AuthenticationError:
                self.destroy(message.block_id)
                raise
            return True, self.commit(message.block_id, "pending", reported=block is not None)

        committed = self.while_session_lasts(Committed(message.block_id))
        not_held = self.while_session_lasts(Withdraw(message.block_id, b"its key is not held here"))

        def done(result: tuple[bool, BlockFacts | None]) -> list[Effect]:
            held, settled = result
            if not held:
                return not_held()
            effects: list[Effect] = [self.add_pads(message.block_id, sendable=True), *committed()]
            if block is not None:
                block.state = State.COMMITTED
                self.forget(block.block_id)
            facts = block.facts(self.now_ns) if block is not None else settled
            return [*effects, BlockDone(facts)] if facts is not None else effects

        return [Run("store", work, done)]


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
