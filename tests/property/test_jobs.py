"""Jobs are values: every one of a whole block, done by another process, gives what it gives here."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from types import FunctionType
from typing import Any

import numpy as np
import pytest

from common.datatypes import Detections
from common.postprocessing.estimation import estimate
from common.postprocessing.reconciliation import frame
from common.protocol import jobs
from common.protocol.effects import Job
from tests.property import test_protocol
from tests.property.test_protocol import Feeder, finish, give_key, make_pair, short_blocks_give_key  # noqa: F401

ALL = {
    jobs.announcement,
    jobs.sift_at_alice,
    jobs.sift_at_bob,
    frame.first_syndrome,
    frame.next_syndrome,
    frame.correct,
    jobs.join_and_tag,
    estimate,
    jobs.nothing,
    jobs.hash_with,
}


def lengths_as_here() -> None:
    """Blocks this short have no key: in the other process lengths are set as in this one."""
    give_key(pytest.MonkeyPatch(), 1024)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), lengths_as_here) as pool:
        yield pool


def do(raw: bytes) -> bytes:
    job: Job = pickle.loads(raw)
    return pickle.dumps(job.function(*job.arguments))


def same(one: Any, other: Any) -> None:
    """Equal, down to every array and attribute."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif type(one).__module__.split(".")[0] == "common":
        _, here, _, there = *one.__reduce_ex__(4)[1:3], *other.__reduce_ex__(4)[1:3]
        same(state(here), state(there))
    else:
        assert one == other


def state(of: Any) -> list[Any]:
    return sorted(of.items()) if isinstance(of, dict) else [] if of is None else list(of)


class Elsewhere:
    """Does every job in the other process, and goes on with what comes back."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self.done: list[Job] = []

    def __call__(self, job: Job) -> Any:
        raw = pickle.dumps(job)
        here, there = do(raw), self._pool.submit(do, raw).result()
        same(pickle.loads(here), pickle.loads(there))
        self.done.append(job)
        return pickle.loads(there)


def one_block() -> dict[int, bytes]:
    pair, sky = make_pair()
    Feeder(pair, sky)
    finish(pair, 1)
    return pair.alice.store.committed()


def test_a_block_whose_jobs_are_all_done_elsewhere(monkeypatch: pytest.MonkeyPatch, elsewhere: Executor) -> None:
    """The same keys, and what this end handed out of its secrets is overwritten here all the same."""
    hopeful = test_protocol.SETTINGS.replace("[reconciliation]", "[reconciliation]\nqber_start = 0.012")
    monkeypatch.setattr(test_protocol, "SETTINGS", hopeful)  # so the first frame takes several rounds
    wanted = one_block()
    away = Elsewhere(elsewhere)
    monkeypatch.setattr(Job, "__call__", lambda job: away(job))
    assert one_block() == wanted
    assert {job.function for job in away.done} == ALL
    secrets = [secret for job in away.done for secret in handed_out(job) if secret.size]
    assert len(secrets) >= 14
    assert not any(secret.any() for secret in secrets)


def handed_out(job: Job) -> list[np.ndarray]:
    """The secret arrays that a job has of its block."""
    if job.function is jobs.join_and_tag:
        return list(job.arguments[0])
    if job.function is jobs.hash_with:
        return [job.arguments[2]]
    if job.function is frame.correct:
        return [job.arguments[1]]
    return [job.arguments[1]] if job.function is frame.first_syndrome else []


def test_every_public_function_of_both_modules_is_a_job_of_some_block() -> None:
    public = {
        one
        for module in (jobs, frame)
        for name, one in vars(module).items()
        if isinstance(one, FunctionType) and one.__module__ == module.__name__ and not name.startswith("_")
    }
    assert public - {jobs.sifted_chunk} == ALL - {estimate}


def test_nothing_of_a_job_is_printed() -> None:
    secret = np.full(3, 77, np.uint8)
    assert "77" not in repr(Job(frame.first_syndrome, (secret,)))


def test_the_comparison_sees_a_difference_in_any_depth() -> None:
    def one(slot: int) -> Any:
        numbers = np.array([slot], np.int64)
        return [(Detections(numbers, numbers.astype(np.uint8), numbers.astype(np.uint8), 0, 9), 1)]

    same(one(3), one(3))
    with pytest.raises(AssertionError):
        same(one(3), one(4))
