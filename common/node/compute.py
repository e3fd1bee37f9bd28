"""Where heavy work runs: one executor for kernels that release the interpreter's lock."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Executor, ThreadPoolExecutor

from common.kernels.clmul import OVERRIDE, Path, active_path, force_path
from common.kernels.reference_amplification import self_test

log = logging.getLogger("qkd.node")
#: A self-test that takes longer than this has compiled.
COMPILED_S = 3.0


def cores() -> int:
    """Cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def make_executor(threads: int = 0, name: str = "compute") -> Executor:
    """Threads, as many as cores unless told. A site with more machines puts its own executor here."""
    return ThreadPoolExecutor(threads or cores(), thread_name_prefix=name)


def make_pinned_executor(threads: int) -> Executor:
    """Threads that each stay on a core of their own: many short shares of one task otherwise end up on one."""
    own = iter(sorted(os.sched_getaffinity(0)) * threads)
    return ThreadPoolExecutor(
        threads, thread_name_prefix="pinned", initializer=lambda: os.sched_setaffinity(0, {next(own)})
    )


def amplification_path() -> Path:
    """How this process amplifies: by the path that the environment variable ``QKD_CLMUL`` names, or by the fastest.

    Raises
    ------
    ConfigurationError : this machine lacks the path.
    """
    force_path(os.environ.get(OVERRIDE))
    return active_path()


def warm_up() -> None:
    """Compile or load the kernels that the first block would wait for, and test them.

    Raises
    ------
    ConfigurationError, LocalProtocolError : a path that this machine lacks was asked for; wrong results.
    """
    path, begin = amplification_path(), time.monotonic()
    log.info("privacy amplification by %s: loading kernels (compiling them the first time takes half a minute)", path)
    self_test(path)
    seconds = time.monotonic() - begin
    log.info("privacy amplification: self-test passed, kernels %s in %.1f s",
             "compiled" if seconds > COMPILED_S else "loaded", seconds)  # fmt: skip
