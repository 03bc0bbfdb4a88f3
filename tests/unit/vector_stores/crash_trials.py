"""Kills writers at random moments and checks what they leave. Run by test_durability.py.

Usage: ``python crash_trials.py FOLDER TRIALS SEED``. Prints one JSON object. It is a process of
its own because each trial is a fork of a process that has not yet started any thread.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import faiss  # noqa: F401 - loaded before forking, for speed
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery

from phi3_industry.vector_stores import FaissSQLiteVectorStore
from phi3_industry.vector_stores.lexical import index_text

DOCUMENTS = 4
NODES = 3


def document_nodes(version: int) -> list[TextNode]:
    document = f"d{version % DOCUMENTS}"
    return [
        TextNode(
            id_=f"{document}-{number}",
            text=f"version{version} part{number}",
            # consecutive versions lie far apart on a circle, whatever their number
            embedding=[math.cos(2.4 * version), math.sin(2.4 * version), number / 2, 0.5],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)},
        )
        for number in range(NODES)
    ]


def write_for_ever(folder: Path, acknowledged: int) -> None:
    store = FaissSQLiteVectorStore(folder)
    for version in range(10**9):
        store.replace_document(f"d{version % DOCUMENTS}", f"h{version}", document_nodes(version))
        os.write(acknowledged, version.to_bytes(4, "little"))
        if version % 5 == 4:
            store.persist()
        if version % 17 == 16:
            store.close()


def expected_hashes(last: int) -> dict[str, str]:
    versions = range(max(0, last - DOCUMENTS + 1), last + 1)
    return {f"d{version % DOCUMENTS}": f"h{version}" for version in versions}


def check(folder: Path, last: int) -> str:
    """Return ``"old"`` if what was acknowledged is there, ``"new"`` if one step more is.

    Anything else that it returns is what is wrong.
    """
    if not (folder / "store.sqlite").exists():
        return "old" if last < 0 else "the store is not there"
    with FaissSQLiteVectorStore(folder) as store:
        hashes = store.document_hashes()
        if hashes not in (expected_hashes(last), expected_hashes(last + 1)):
            return f"acknowledged {last}, found {hashes}"
        if store.verify().count != NODES * len(hashes):
            return f"{store.count} nodes for {hashes}"
        for content_hash in hashes.values():
            for wanted in document_nodes(int(content_hash[1:])):
                by_vector = store.query(VectorStoreQuery(query_embedding=wanted.embedding))
                by_words = store.query(VectorStoreQuery(query_str=wanted.text, mode="text_search"))
                found = [by_vector.nodes[0].get_content(), by_words.nodes[0].get_content()]
                if found != [wanted.text, wanted.text]:
                    return f"looked for {wanted.text!r} and found {found}"
        store.add(document_nodes(0))  # the next writer can go on
    return "old" if hashes == expected_hashes(last) else "new"


def trial(folder: Path, steps: int, share: float) -> tuple[int, str]:
    """Kill a writer somewhere in the step after some acknowledged ones, and look what it left.

    Times are counted in steps, because how long one takes depends on what else the machine does.
    """
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            write_for_ever(folder, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    acknowledged = b"".join(os.read(read_end, 4) for _ in range(steps))
    step_s = (time.perf_counter() - began) / steps if steps else 0.1
    time.sleep(share * step_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as pipe:
        acknowledged += pipe.read()
    last = len(acknowledged) // 4 - 1
    return last, check(folder, last)


def main() -> None:
    folder, trials, seed = Path(sys.argv[1]) / "store", int(sys.argv[2]), int(sys.argv[3])
    random_numbers = random.Random(seed)
    folder.parent.mkdir(exist_ok=True)
    index_text("warm up")
    acknowledged, states, problems = [], [], []
    for number in range(trials):
        # each check runs in a fork too, so that this process never starts FAISS's threads
        steps, share = random_numbers.randrange(20) if number % 4 else 0, random_numbers.random()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            last, problem = -1, "the check died"
            try:
                last, problem = trial(folder, steps, share)
            except Exception as error:
                problem = repr(error)
            os.write(write_end, json.dumps([last, problem]).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            last, problem = json.loads(pipe.read())
        os.waitpid(child, 0)
        acknowledged.append(last)
        states.append(problem if problem in ("old", "new") else "wrong")
        if states[-1] == "wrong":
            problems.append(f"trial {number} ({steps + share:.4f} steps): {problem}")
    json.dump({"acknowledged": acknowledged, "states": states, "problems": problems}, sys.stdout)


if __name__ == "__main__":
    main()
