"""Where heavy work runs: one executor for kernels that release the interpreter's lock."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor


def cores() -> int:
    """Cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def make_executor(threads: int = 0, name: str = "compute") -> Executor:
    """Threads, as many as cores unless told. A site with more machines puts its own executor here."""
    return ThreadPoolExecutor(threads or cores(), thread_name_prefix=name)
