"""Thousands of bad inputs for every command: `python -m tests.trials.fuzz`. Ends with 1 if one is met badly.

Each case runs in a worker process with limits of time and memory, in a folder of its own; a sample runs once more as a
program. What is met badly is kept with its command, as `FAILED/KIND-NUMBER`.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing as mp
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click

from tests.trials import cases, material
from tests.trials.cases import KINDS, Case
from tests.trials.material import Material
from tests.trials.programs import Seen, invoke, is_one_document

PATIENCE_S, PROGRAM_S = 20.0, 120.0
"""Of a case in a worker, and of a program, most of which is the start of Python on a machine that may be busy."""
MOST_BYTES = 2 << 30
SAMPLE = 40
"""Every so many cases one runs as a program of its own, too."""
GOOD = "good"


@dataclass(frozen=True)
class Verdict:
    """What came of one case, in a word; ``text`` is what the command said."""

    kind: str
    number: int
    word: str
    text: str = ""
    code: int | None = None
    seconds: float = 0.0


def judge(case: Case, seen: Seen) -> str:
    """`good`, or what is wrong with the answer."""
    if seen.code is None or "Traceback (most recent call last)" in seen.said + seen.stdout:
        return "traceback"
    if seen.code not in case.expected:
        return f"exit code {seen.code}"
    if seen.code in (2, 3) and not seen.said.strip() and not seen.stdout.strip():
        return "silent"
    if seen.code == 2 and case.named and not any(word in seen.said for word in case.named):
        return "the file is not named"
    if "--json" in case.command and seen.code in (0, 1) and not is_one_document(seen.stdout):
        return "not one JSON document"
    return GOOD


def run_here(name: str, number: int, where: Material, seed: int, folder: Path) -> Verdict:
    """One case in this process."""
    case = cases.build(name, number, where, folder, seed)
    begin = time.monotonic()
    with contextlib.chdir(folder):
        seen = invoke(case.command)
    return Verdict(name, number, judge(case, seen), seen.said or seen.stdout, seen.code, time.monotonic() - begin)


def run_program(name: str, number: int, where: Material, seed: int, folder: Path) -> Verdict:
    """The same as a program of its own."""
    case = cases.build(name, number, where, folder, seed)
    program, *arguments = case.command
    module = {"qkd": "common.cli.main", "alice": "alice", "bob": "bob"}[program]
    start = [
        sys.executable,
        "-c",
        f"import sys; from {module}{'' if program == 'qkd' else '.__main__'} import main; main()",
    ]
    begin = time.monotonic()
    try:
        done = subprocess.run([*start, *arguments], capture_output=True, cwd=folder, timeout=PROGRAM_S)
    except subprocess.TimeoutExpired:
        return Verdict(name, number, "hang (program)")
    said, out = done.stderr.decode(errors="replace"), done.stdout.decode(errors="replace")
    word = judge(case, Seen(done.returncode, said, out))
    return Verdict(
        name, number, word if word == GOOD else f"{word} (program)", said, done.returncode, time.monotonic() - begin
    )


# -- workers ----------------------------------------------------------------------------------------------------------


def _work(pipe: Connection, where: Material, seed: int) -> None:
    os.setsid()
    sys.setrecursionlimit(1000)
    from common.planning import figures

    figures.make_figures = few_figures  # type: ignore[assignment]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (task := pipe.recv()) is not None:
        folder, name, number = task
        pipe.send(run_here(name, number, where, seed, Path(folder)))


def few_figures(out: Path, points: object, tell: object) -> list[Path]:
    """The one with the results in it; the others take half a minute and read nothing."""
    from common.planning import figures

    out.mkdir(parents=True, exist_ok=True)
    return figures._rates(out / "fig3", [], points)  # type: ignore[arg-type]


class Worker:
    """One process that is made anew when it hangs or dies."""

    def __init__(self, where: Material, seed: int) -> None:
        self._where, self._seed = where, seed
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = mp.Pipe()
        self._process = mp.get_context("fork").Process(
            target=_work, args=(theirs, self._where, self._seed), daemon=True
        )
        self._process.start()
        theirs.close()

    def run(self, folder: Path, name: str, number: int) -> Verdict:
        """One case; what hangs is ended and told."""
        self._pipe.send((str(folder), name, number))
        begin = time.monotonic()
        try:
            if self._pipe.poll(PATIENCE_S):
                return self._pipe.recv()  # type: ignore[no-any-return]
            word = "hang"
        except EOFError:
            word = f"the process died ({self._process.exitcode})"
        self._process.kill()
        self._process.join()
        self._start()
        return Verdict(name, number, word, seconds=time.monotonic() - begin)

    def stop(self) -> None:
        """At the end."""
        self._pipe.send(None)
        self._process.join(5)


@contextlib.contextmanager
def own_folder(base: Path, name: str, number: int) -> Iterator[Path]:
    """An empty one, for the time of a case."""
    folder = base / f"{re.sub('[^a-z0-9]+', '-', name)}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(failed: Path, base: Path, verdict: Verdict, where: Material, seed: int) -> None:
    """The input of a case that was met badly, made again, beside what was said."""
    target = failed / f"{re.sub('[^a-z0-9]+', '-', verdict.kind)}-{verdict.number}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with own_folder(base, verdict.kind, verdict.number) as folder:
        case = cases.build(verdict.kind, verdict.number, where, folder, seed)
        for path in case.spoiled:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 26:
                (target / f"{path.name}.is").write_text(os.popen(f"ls -ld '{path}'").read())
            else:
                shutil.copy(path, target / path.name)
    command = json.dumps(case.command)
    (target / "verdict.txt").write_text(
        f"{verdict.word}\n{command}\n{verdict.code}\n{verdict.text}\n", errors="replace"
    )


def fuzz(
    tasks: list[tuple[str, int]], where: Material, base: Path, failed: Path, seed: int, processes: int, sample: int
) -> list[Verdict]:
    """All cases; a program of its own for every ``sample``-th (0: for none)."""
    verdicts: list[Verdict] = []
    todo, lock = iter(enumerate(tasks)), threading.Lock()

    def drive(worker: Worker) -> None:
        while True:
            with lock:
                turn, task = next(todo, (0, None))
            if task is None:
                worker.stop()
                return
            with own_folder(base, *task) as folder:
                found = [worker.run(folder, *task)]
            if found[0].word == "hang":  # on a machine that is busy with other things, once more
                with own_folder(base, *task) as folder:
                    found = [worker.run(folder, *task)]
            if sample and turn % sample == 0:
                with own_folder(base, *task) as folder:
                    found.append(run_program(*task, where, seed, folder))
            with lock:
                verdicts.extend(found)
                for verdict in found:
                    if verdict.word != GOOD:
                        keep(failed, base, verdict, where, seed)

    with ThreadPoolExecutor(processes) as pool:
        for driven in [pool.submit(drive, Worker(where, seed)) for _ in range(processes)]:
            driven.result()
    return verdicts


def table(verdicts: list[Verdict]) -> str:
    """By kind: how many, exit codes, the longest, what was met badly."""
    lines = [f"{'kind':<28}{'inputs':>7}  {'exit codes':<34}{'longest':>8}  met badly"]
    by_kind: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_kind[verdict.kind].append(verdict)
    for name, ones in by_kind.items():
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(Counter(str(one.code) for one in ones).items()))
        bad = Counter(one.word for one in ones if one.word != GOOD)
        longest = max(one.seconds for one in ones)
        lines.append(f"{name:<28}{len(ones):>7}  {codes:<34}{longest:>6.1f} s  {dict(bad) or 'none'}")
    bad = sum(one.word != GOOD for one in verdicts)
    return "\n".join([*lines, f"{len(verdicts)} inputs, {bad} met badly"])


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Only this kind (repeat).")
@click.option("--case", "number", type=int, help="Only this case of --only, here and with its traceback.")
@click.option("--share", default=1.0, show_default=True, help="Of all cases.")
@click.option("--seed", default=0, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--sample", default=SAMPLE, show_default=True, help="Every so many, as a program too (0: none).")
@click.option("--failed", type=click.Path(path_type=Path), default=Path("fuzz-failed"), show_default=True)
def main(
    only: tuple[str, ...], number: int | None, share: float, seed: int, processes: int, sample: int, failed: Path
) -> None:
    """Meet every command with bad inputs and print the table of verdicts."""
    names = only or tuple(KINDS)
    with tempfile.TemporaryDirectory(prefix="qkd-fuzz-") as place:
        where, base = Material(Path(place) / "good"), Path(place)
        where.folder.mkdir()
        material.make(where.folder)
        if number is not None:
            with own_folder(base, names[0], number) as folder:
                print(run_here(names[0], number, where, seed, folder))
            return
        tasks = [(name, number) for name in names for number in range(round(KINDS[name][0] * share))]
        verdicts = fuzz(tasks, where, base, failed, seed, processes, sample)
    print(table(verdicts))
    sys.exit(any(one.word != GOOD for one in verdicts))


if __name__ == "__main__":
    main()
