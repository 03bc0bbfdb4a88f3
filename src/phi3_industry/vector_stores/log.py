"""How far SQLite's write-ahead log is committed and whole, by the log's own checksums.

SQLite takes the first damaged frame of a log for the log's end and says nothing. Whoever knows how
far the log went when a change was acknowledged can tell the two apart. Only the log is read here:
it carries no locks, while opening and closing the database or its shared memory beside SQLite
would drop SQLite's locks on them.

Source: "WAL-mode File Format", https://www.sqlite.org/walformat.html, and section 4 of
https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["DamagedLogError", "LogPosition", "committed_part"]

# The head of the log; of each frame, of which the checksum covers the first eight bytes.
_HEAD = struct.Struct(">III4x8sII")
_FRAME_HEAD = struct.Struct(">II8sII")
# The last bit says in which order the bytes are of the words that are summed.
_MAGIC = 0x377F0682
_MODULUS = 2**32
_READ_BYTES = 2**18

_Sums = tuple[int, int]
_Words = npt.NDArray[np.uint32]


class DamagedLogError(Exception):
    """The head of a log does not match its checksum."""


@dataclass(frozen=True)
class LogPosition:
    """A place in a log up to which transactions are committed.

    Attributes:
        salt: What tells one filling of the log from the next, as hexadecimal digits. SQLite draws
            it anew when it starts to write from the beginning again, which it does only when all
            before is in the database.
        frames: How many pages are logged up to there.
    """

    salt: str
    frames: int


@dataclass(frozen=True)
class _Layout:
    salt: bytes
    page_bytes: int
    word_type: str
    sums: _Sums

    @property
    def frame_bytes(self) -> int:
        return _FRAME_HEAD.size + self.page_bytes


def committed_part(path: Path, *, after: LogPosition | None = None) -> LogPosition | None:
    """Read how far a log is committed and whole.

    Args:
        path: The log.
        after: A place up to which it is known to be; what is before is not read again, unless the
            log was started anew.

    Returns:
        The end of the last transaction up to which everything matches its checksums; ``None`` if
        there is no log or it is empty.

    Raises:
        DamagedLogError: The head is damaged, so that nothing in the log can be trusted.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        layout = _layout(file.read(_HEAD.size))
        if layout is None:
            return None
        salt = layout.salt.hex()
        known = after.frames if after is not None and after.salt == salt else 0
        return LogPosition(salt, _last_commit(file, layout, known=known))


def _layout(head: bytes) -> _Layout | None:
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise DamagedLogError
    magic, _, page_bytes, salt, *stored = _HEAD.unpack(head)
    word_type = ">u4" if magic & 1 else "<u4"
    words = np.frombuffer(head[:24], dtype=word_type)[np.newaxis]
    (sums,) = _chained(words, (0, 0))
    if magic & ~1 != _MAGIC or sums != tuple(stored) or not 512 <= page_bytes <= 65536:
        raise DamagedLogError
    return _Layout(salt=salt, page_bytes=page_bytes, word_type=word_type, sums=sums)


def _last_commit(file: BinaryIO, layout: _Layout, *, known: int) -> int:
    """Return how many frames there are up to the last commit before the chain breaks."""
    sums, number, committed = layout.sums, known, known
    if known:
        file.seek(_HEAD.size + (known - 1) * layout.frame_bytes)
        *_, first, second = _FRAME_HEAD.unpack(file.read(_FRAME_HEAD.size))
        sums = (first, second)
    file.seek(_HEAD.size + known * layout.frame_bytes)
    for frames in _blocks_of_frames(file, layout.frame_bytes):
        covered = np.hstack([frames[:, :8], frames[:, _FRAME_HEAD.size :]])
        chain = _chained(covered.view(layout.word_type), sums)
        for frame, sums in zip(frames, chain, strict=True):
            page, pages_after, salt, *stored = _FRAME_HEAD.unpack_from(frame)
            if not page or salt != layout.salt or tuple(stored) != sums:
                return committed
            number += 1
            if pages_after:  # only the last frame of a transaction has it
                committed = number
    return committed


def _blocks_of_frames(file: BinaryIO, frame_bytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    count = max(1, _READ_BYTES // frame_bytes)
    while block := file.read(count * frame_bytes):
        whole = len(block) // frame_bytes
        yield np.frombuffer(block, np.uint8, whole * frame_bytes).reshape(whole, frame_bytes)


def _chained(rows: _Words, sums: _Sums) -> Iterator[_Sums]:
    """Yield the checksums after each of some rows of words.

    SQLite adds words two by two: ``a += first + b; b += second + a``, modulo 2**32. All in all
    each word counts as often as a Fibonacci number says, so that a row is summed at once.
    """
    weights, (before, middle, behind) = _weights(rows.shape[1])
    words = rows.astype(np.uint32, copy=False)
    # einsum is four times as fast as a matrix product, which for whole numbers uses no BLAS
    sums_of_rows = zip(*(np.einsum("ij,j->i", words, w).tolist() for w in weights), strict=True)
    a, b = sums
    for row_a, row_b in sums_of_rows:
        a, b = (
            (row_a + before * a + middle * b) % _MODULUS,
            (row_b + middle * a + behind * b) % _MODULUS,
        )
        yield a, b


@lru_cache(maxsize=4)
def _weights(count: int) -> tuple[tuple[_Words, _Words], tuple[int, int, int]]:
    """How often each of some words counts in either sum, and how often what was before does."""
    fibonacci = [0, 1]
    while len(fibonacci) < count + 2:
        fibonacci.append((fibonacci[-1] + fibonacci[-2]) % _MODULUS)
    first = np.array(fibonacci[count - 1 :: -1], dtype=np.uint32)
    second = np.array(fibonacci[count:0:-1], dtype=np.uint32)
    return (first, second), (fibonacci[count - 1], fibonacci[count], fibonacci[count + 1])
