"""Kills, full disks, damage, crowds and enemies: what a store is like afterwards.

    python benchmarks/crash_campaign.py                 # everything, 1,000 kills; some minutes
    python benchmarks/crash_campaign.py --trials 20     # everything, smaller

Each row of the table is one kind of trouble and counts how the trials ended:

- old state: exactly what was acknowledged before, or what is not touched by the damage;
- new state: the step that was under way is there, whole;
- typed error: one of the library's errors, which names the file or folder;
- WRONG: anything else, such as another answer, a lost acknowledgement, a foreign exception.

The exit status is 1 if anything was wrong. POSIX only; failing writes need a C compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss  # noqa: F401 - loaded before forking, for speed
from damaged_stores import (
    Outcomes,
    damaged_files,
    malicious_stores,
    swapped_files,
    version_of,
)
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.errors import StoreError, StoreLockedError
from phi3_industry.vector_stores import FaissSQLiteVectorStore

Rows = Iterator[tuple[str, Outcomes]]
HERE = Path(__file__).parent
TRIALS = HERE.parent / "tests" / "unit" / "vector_stores" / "crash_trials.py"
COLUMNS = ("old state", "new state", "typed error", "WRONG")


def in_fork(work: Callable[[], Any]) -> Any:
    """Return what a forked child returns, or what killed it, so that its harm stays its own."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = work()
        except BaseException as error:
            found = f"WRONG: {error!r}"
        os.write(write_end, json.dumps(found).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return json.loads(data) if data else "WRONG: the process died"


# Killed writers


def killed_writers(folder: Path, trials: int, workers: int = 4) -> Rows:
    """Kill writers, several at a time, each in a store of its own."""
    shares = [len(range(worker, trials, workers)) for worker in range(workers)]
    running = [
        subprocess.Popen(
            [sys.executable, str(TRIALS), str(folder / str(seed)), str(share), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, share in enumerate(shares)
    ]
    counts: Outcomes = Counter()
    for process in running:
        found = json.loads(process.communicate()[0])
        counts.update(f"{state} state" for state in found["states"] if state != "wrong")
        counts.update(f"WRONG: {problem}" for problem in found["problems"])
    yield "writer killed (SIGKILL)", counts


# Writes that fail


STEPS: list[Callable[[FaissSQLiteVectorStore], object]] = [
    lambda store: store.replace_document("d", "h1", version_of(1)),
    lambda store: store.persist(),
    lambda store: store.replace_document("d", "h2", version_of(2)),
    lambda store: store.add(version_of(5, document="e")),
    lambda store: store.persist(),
    lambda store: store.delete("e"),
    lambda store: store.rebuild(),
]


def states() -> list[Any]:
    """What a store holds after each step."""
    with tempfile.TemporaryDirectory() as folder:
        found: list[Any] = [[0, {}]]
        with FaissSQLiteVectorStore(Path(folder) / "store") as store:
            for step in STEPS:
                step(store)
                found.append([store.count, store.document_hashes()])
        return found


def run_steps(folder: Path, guard: Callable[[], Any], release: Callable[[], Any]) -> list[Any]:
    """Take the steps while calls fail; return how many were acknowledged, and the error."""
    done, error = 0, ""
    store = FaissSQLiteVectorStore(folder)
    guard()
    try:
        for step in STEPS:
            step(store)
            done += 1
        store.close()
    except StoreError as caught:
        error = str(caught) or "?"
    return [done, error, release()]


def judge(folder: Path, done: int, error: str, expected: list[Any]) -> str:
    """Compare what is there with what was acknowledged; the next writer must get on, too."""
    with FaissSQLiteVectorStore(folder) as store:
        found = [store.count, store.document_hashes()]
        if store.verify().count != found[0]:
            return "WRONG: verify counts otherwise"
        later = expected[min(done + 1, len(STEPS))]
        if found not in (expected[done], later):
            return f"WRONG: {done} steps acknowledged, found {found}"
        ids = store.query(VectorStoreQuery([1.0] * 8, similarity_top_k=99)).ids
        if len(ids) != found[0]:
            return "WRONG: a query misses nodes"
        store.add(version_of(9, document="f"))
    if error:
        return "typed error"
    return "old state" if found == expected[done] else "new state"


def failing_writes(folder: Path, trials: int) -> Rows:
    """The N-th write, rename or fsync fails, for every N; once, or from then on."""
    library = folder / "failing_io.so"
    compiler = shutil.which("cc")
    if compiler is None:
        print("failing writes are left out: there is no C compiler", flush=True)
        return
    source = str(HERE / "failing_io.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True
    )
    finished = subprocess.run(
        [sys.executable, __file__, "--preloaded", str(folder), "--trials", str(trials)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(finished.stderr)
    for title, counts in json.loads(finished.stdout):
        yield title, Counter(counts)


def every_write(folder: Path, trials: int) -> list[tuple[str, Outcomes]]:
    shim = ctypes.CDLL(None)
    expected = in_fork(states)
    rows = []
    for title, stays in (("N-th write fails", 0), ("all writes from the N-th fail", 1)):
        counts: Outcomes = Counter()
        # every N when there is time, evenly spread ones otherwise
        total = _trial(folder, shim, expected, number=10**6, stays=stays)[1]
        for number in range(0, total, max(1, total // trials)):
            counts[_trial(folder, shim, expected, number=number, stays=stays)[0]] += 1
        rows.append((f"{title} (of {total})", counts))
    return rows


def _trial(
    folder: Path, shim: ctypes.CDLL, expected: list[Any], *, number: int, stays: int
) -> tuple[str, int]:
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)

    def work() -> list[Any]:
        return run_steps(store, lambda: shim.arm(number, stays), lambda: _disarm(shim))

    found = in_fork(work)
    if isinstance(found, str):
        return f"{found} (call {number})", 0
    done, error, calls = found
    judged = str(in_fork(lambda: judge(store, done, error, expected)))
    return (f"{judged} (call {number})" if "WRONG" in judged else judged), calls


def _disarm(shim: ctypes.CDLL) -> int:
    calls = int(shim.calls())
    shim.arm(-1, 0)
    return calls


def full_disks(folder: Path, trials: int) -> Rows:
    """No file may grow beyond a limit, for limits from nothing to more than is needed."""
    expected, counts = in_fork(states), Counter[str]()
    for number in range(trials):
        store = folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        room = int(400_000 * (number / trials) ** 2)

        def work(store: Path = store, room: int = room) -> list[Any]:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            return run_steps(
                store,
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard)),
                lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
            )

        found = in_fork(work)
        if not isinstance(found, str):
            done, error, _ = found
            found = str(in_fork(lambda s=store, d=done, e=error: judge(s, d, e, expected)))
        counts[f"{found} (room {room})" if "WRONG" in found else found] += 1
    yield "disk full", counts


# Crowds


def write_in_turns(folder: str, name: str, rounds: int, results: Any) -> None:
    acknowledged, counts = [], Counter[str]()
    for number in range(rounds):
        nodes = version_of(number, document=f"{name}-{number}", count=2)
        try:
            with FaissSQLiteVectorStore(folder) as store:
                store.add(nodes)
            acknowledged += [node.node_id for node in nodes]
        except StoreLockedError:
            counts["typed error"] += 1
            time.sleep(0.01)
        except Exception as error:
            counts[f"WRONG: {error!r}"] += 1
    results.put((acknowledged, counts))


def many_writers(folder: Path, rounds: int, writers: int = 8) -> Rows:
    """Each acknowledged node is there; who may not write is told so."""
    context = multiprocessing.get_context("fork")
    results, store = context.Queue(), str(folder / "store")
    with FaissSQLiteVectorStore(store) as first:
        first.add(version_of(0))
    processes = [
        context.Process(target=write_in_turns, args=(store, f"w{number}", rounds, results))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    found, killed = results_of(processes, results)
    counts: Outcomes = sum((refused for _, refused in found), killed)
    with FaissSQLiteVectorStore(store) as last:
        there = {node.node_id for node in last.get_nodes()}
        last.verify()
    for acknowledged, _ in found:
        for node_id in acknowledged:
            counts["new state" if node_id in there else f"WRONG: {node_id} is lost"] += 1
    yield f"{writers} writers at once", counts


def results_of(processes: list[Any], results: Any) -> tuple[list[Any], Outcomes]:
    """What each process put into `results`, and a WRONG for each that died without doing so."""
    found: list[Any] = []
    while len(found) < len(processes):
        alive = any(process.is_alive() for process in processes)  # asked before the queue is
        try:
            found.append(results.get(timeout=1.0))
        except queue.Empty:
            if not alive:
                break
    for process in processes:
        process.join()
    died = [process.exitcode for process in processes if process.exitcode]
    return found, Counter(f"WRONG: a process ended with {code}" for code in died)


def read_for_ever(folder: str, acknowledged: Any, done: Any, results: Any) -> None:
    counts: Outcomes = Counter()

    def read() -> None:
        with FaissSQLiteVectorStore(folder, read_only=True) as store:
            while not done.is_set():
                at_least = acknowledged.value
                try:
                    counts[_one_version(store, at_least)] += 1
                except Exception as error:
                    counts[f"WRONG: {error!r}"] += 1

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(dict(counts))


def _one_version(store: FaissSQLiteVectorStore, at_least: int) -> str:
    vector = VectorStoreQuery([1.0] * 8, similarity_top_k=99)
    words = VectorStoreQuery(query_str="part3 part4", mode="text_search", similarity_top_k=99)
    by_vector, by_words = store.query_many([vector, words])
    versions = {node.metadata["version"] for node in [*by_vector.nodes, *by_words.nodes]}
    if len(by_vector.ids) != 12 or len(by_words.ids) != 2 or len(versions) != 1:
        return f"WRONG: {len(by_vector.ids)} nodes of {versions}"
    (version,) = versions
    if version < at_least:
        return f"WRONG: version {version} after {at_least} was acknowledged"
    return "old state" if version == at_least else "new state"


def many_readers(folder: Path, seconds: float) -> Rows:
    """16 readers in 4 processes: each answer is of one version, none older than acknowledged."""
    context = multiprocessing.get_context("fork")
    results, done = context.Queue(), context.Event()
    acknowledged, path = context.Value("i", 0), str(folder / "store")
    with FaissSQLiteVectorStore(path) as writer:
        writer.replace_document("d", "h0", version_of(0))
    readers = [
        context.Process(target=read_for_ever, args=(path, acknowledged, done, results))
        for _ in range(4)
    ]
    for process in readers:
        process.start()
    with FaissSQLiteVectorStore(path) as writer:
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            number += 1
            writer.replace_document("d", f"h{number}", version_of(number))
            acknowledged.value = number
            if number % 10 == 0:
                writer.persist()
    done.set()
    found, counts = results_of(readers, results)
    for read in found:
        counts.update(read)
    yield f"16 readers, {number} updates", counts


# The table


def cases(trials: int) -> dict[str, Callable[[Path], Rows]]:
    steps = max(16, min(512, trials // 2))
    return {
        "kill": lambda folder: killed_writers(folder, trials),
        "write": lambda folder: failing_writes(folder, trials),
        "disk": lambda folder: full_disks(folder, max(8, min(100, trials // 8))),
        "damage": lambda folder: damaged_files(folder, steps=steps),
        "swap": swapped_files,
        "malice": malicious_stores,
        "writers": lambda folder: many_writers(folder, max(4, trials // 16)),
        "readers": lambda folder: many_readers(folder, max(2.0, trials / 33)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=1000, help="kills; the rest in proportion")
    parser.add_argument("--case", choices=sorted(cases(1)), action="append")
    parser.add_argument("--preloaded", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.preloaded:
        print(json.dumps(every_write(arguments.preloaded, arguments.trials)))
        return 0
    print(f"{'':34}" + "".join(f"{column:>13}" for column in COLUMNS), flush=True)
    total: Outcomes = Counter()
    for name, run in cases(arguments.trials).items():
        if arguments.case and name not in arguments.case:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for title, counts in run(Path(folder)):
                total.update(show(title, counts))
    show("all", total)
    return 1 if total["WRONG"] else 0


def show(title: str, counts: Outcomes) -> Outcomes:
    summed: Outcomes = Counter()
    for found, number in counts.items():
        summed["WRONG" if found.startswith("WRONG") else found] += number
    cells = "".join(f"{summed[column]:>13,}" for column in COLUMNS)
    print(f"{title:34}{cells}", flush=True)
    wrong = [f"{found} ({number} times)" for found, number in counts.items() if ":" in found]
    for line in wrong[:5]:
        print(f"    {line}", flush=True)
    return summed


if __name__ == "__main__":
    sys.exit(main())
