"""How much memory and processor time the processes of a server take together."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

__all__ = ["MemoryWatch", "server_cpu_s", "server_mb"]

_EVERY_S = 2.0
# behind the name in /proc/PID/stat, as proc(5) counts its fields
_PARENT, _FIRST_TIME, _LAST_TIME = 1, 11, 15


def server_mb(process_id: int) -> float:
    """Memory of a process and all that it started, in MB, with what they share counted once.

    It is the sum of their proportional set sizes (PSS): a page that n of them have mapped counts
    as 1/n of a page with each. The sum of their resident sets would count PostgreSQL's shared
    buffers once for each process.
    """
    return sum(_pss_kb(member) for member in _family(process_id)) * 1024 / 1e6


def server_cpu_s(process_id: int) -> float:
    """Seconds of processor time of a process and all that it started, ended ones included."""
    ticks = 0
    for fields in _family(process_id).values():
        ticks += sum(int(field) for field in fields[_FIRST_TIME:_LAST_TIME])
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(process_id: int) -> dict[int, list[str]]:
    """The process and those that it started, each with its line of numbers."""
    lines = {int(path.parent.name): _fields(path) for path in Path("/proc").glob("[0-9]*/stat")}
    parents = {member: int(fields[_PARENT]) for member, fields in lines.items() if fields}
    family = {process_id}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return {member: lines.get(member, []) for member in family}


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return []


def _pss_kb(process_id: int) -> int:
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class MemoryWatch:
    """Looks every two seconds how much memory a server holds.

    Args:
        server: The server, with a ``process_id``; ``None`` if there is none to watch.

    Attributes:
        most_mb: The most that was seen, in MB.
    """

    def __init__(self, server: Any | None) -> None:
        self.most_mb = 0.0
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        if self._server is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._server is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.most_mb = max(self.most_mb, server_mb(self._server.process_id))
