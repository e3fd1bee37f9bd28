"""What a node says of its load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.node.lag import LAG_BINS_MS, split
from common.node.load import Load, memory_bytes


def test_jobs_wait_until_they_are_called_and_are_charged_to_their_lane() -> None:
    load = Load()

    def busy() -> int:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return 7

    job, other = load.job("block", busy), load.job("block", lambda: 1)
    assert load.document()["jobs_waiting"] == {"block": 2}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(job).result() == 7
    found = load.document()
    assert found["jobs_waiting"] == {"block": 1}
    assert 0.02 <= found["cpu_s"]["block"] <= found["cpu_s"]["all"]
    assert other() == 1
    assert load.document()["jobs_waiting"] == {"block": 0}


def test_a_fault_of_a_stage_is_not_swallowed_and_still_counted() -> None:
    load = Load()
    with contextlib.suppress(ZeroDivisionError), load.stage("symbols"):
        raise ZeroDivisionError
    assert "symbols" in load.document()["cpu_s"]


async def test_a_blocked_event_loop_is_seen() -> None:
    load = Load()
    watching = asyncio.ensure_future(load.watch())
    await asyncio.sleep(0)
    end = time.perf_counter() + 0.06
    while time.perf_counter() < end:  # what a loop must never do
        pass
    for _ in range(10):  # the loop looks at its timers in every turn
        await asyncio.sleep(0)
    lag = load.document()["loop_lag_ms"]
    watching.cancel()
    assert lag["worst"] >= 45.0
    assert sum(lag["recent_causes"].values()) == pytest.approx(lag["recent_worst"], abs=0.1)
    assert lag["recent_causes"]["own_work"] + lag["recent_causes"]["processor"] > 40.0
    assert list(lag["at_most"]) == [f"{edge:g}" for edge in LAG_BINS_MS]
    assert load.document()["loop_lag_ms"]["recent_worst"] == 0.0


def test_memory_is_told() -> None:
    assert memory_bytes() > 1 << 20


def test_a_lag_is_split_into_causes_that_add_up_to_it() -> None:
    assert split(10.0, 3.0, 5.0) == {"own_work": 3.0, "processor": 5.0, "interpreter": 2.0}
    assert split(4.0, 9.0, 3.0) == {"own_work": 1.0, "processor": 3.0, "interpreter": 0.0}
    assert split(4.0, 9.0, 30.0) == {"own_work": 0.0, "processor": 4.0, "interpreter": 0.0}
