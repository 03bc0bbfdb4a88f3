"""Keys and values of text that was read before: system prompts, passages, the chat so far.

Reading costs nearly all of the time to the first word, and much of it is the same text again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from phi3_industry.engines.packing import SequenceCache

if TYPE_CHECKING:
    import torch

__all__ = ["PrefixCache", "PrefixStatistics", "shares_next_block"]

_BLOCK_TOKENS = 32
_MOST_COMPARED = 64

Beginning = tuple[str | None, bool]
"""What a text is read with: the adapter's internal name, and whether the rotary factors are long.

Base model, revision, dtype, quantisation and chat template are those of one engine, and so is its
cache. An adapter gets a new internal name each time it is loaded.
"""


@dataclass
class PrefixStatistics:
    """What a prefix cache has done.

    Attributes:
        lookups: Texts that were looked up.
        hits: Texts of which some beginning was held.
        tokens_reused: Tokens that were not computed again.
        nbytes: Bytes that are held.
        evicted: Blocks that made room for others.
    """

    lookups: int = 0
    hits: int = 0
    tokens_reused: int = 0
    nbytes: int = 0
    evicted: int = 0


@dataclass(eq=False)
class _Block:
    """Some tokens of a text, with what comes before and after them in the texts that were read."""

    parent: _Block | None
    tokens: tuple[int, ...]
    content: torch.Tensor | None = None  # (layers, 2, kv_heads, tokens, head_dim)
    children: dict[tuple[int, ...], _Block] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.content.nbytes if self.content is not None else 0


class PrefixCache:
    """Keeps the beginnings of texts in blocks of 32 tokens, of which a text may use a part.

    Blocks form a tree, so that what several texts share is held once. The block that was used
    longest ago goes first when the bytes run out; it is always the end of some text. For one
    thread alone.

    Args:
        max_bytes: The most bytes to hold; 0 holds nothing.

    Attributes:
        statistics: What it has done.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.statistics = PrefixStatistics()
        self._roots: dict[Beginning, _Block] = {}
        self._by_use: OrderedDict[_Block, None] = OrderedDict()

    def reusable(self, ids: Sequence[int], *, adapter: str | None, long_rope: bool) -> int:
        """Count the tokens at the beginning of a text that need not be computed.

        At least one is left over: the model has to say what follows it.
        """
        return sum(count for _, count in self._path(ids, (adapter, long_rope)))

    def fill(self, cache: SequenceCache, ids: Sequence[int], *, adapter: str | None) -> None:
        """Put what is held of a text into the empty cache of its sequence."""
        path = list(self._path(ids, (adapter, cache.long_rope)))
        self.statistics.lookups += 1
        if not path:
            return
        self.statistics.hits += 1
        for block, count in path:
            assert block.content is not None  # noqa: S101 - only roots are without
            cache.append(block.content[:, :, :, :count], room=len(ids))
            self.statistics.tokens_reused += count
        self._used([block for block, _ in path])

    def keep(self, cache: SequenceCache, ids: Sequence[int], *, adapter: str | None) -> None:
        """Hold what was computed of a text.

        Args:
            cache: The sequence's cache.
            ids: Its tokens; those that the cache does not hold yet are passed over.
            adapter: Internal name of the adapter that it was read with.
        """
        if not self.max_bytes or not cache.length:
            return
        block_bytes = cache.read(0, 1).nbytes * _BLOCK_TOKENS
        most = min(cache.length // _BLOCK_TOKENS, self.max_bytes // block_bytes)
        path: list[_Block] = []
        parent = self._roots.setdefault((adapter, cache.long_rope), _Block(None, ()))
        for first in range(0, most * _BLOCK_TOKENS, _BLOCK_TOKENS):
            tokens = tuple(ids[first : first + _BLOCK_TOKENS])
            block = parent.children.get(tokens)
            if block is None:
                content = cache.read(first, first + _BLOCK_TOKENS).clone()
                block = parent.children[tokens] = _Block(parent, tokens, content)
                self.statistics.nbytes += block.nbytes
            path.append(block)
            parent = block
        self._used(path)
        while self.statistics.nbytes > self.max_bytes:
            self._forget(next(iter(self._by_use)))
            self.statistics.evicted += 1

    def drop_adapter(self, adapter: str) -> None:
        """Forget what was read with an adapter."""
        for beginning in [key for key in self._roots if key[0] == adapter]:
            below = list(self._roots[beginning].children.values())
            while below:
                block = below.pop()
                below += block.children.values()
                self._forget(block)
            del self._roots[beginning]

    def clear(self) -> None:
        """Forget everything."""
        self._roots.clear()
        self._by_use.clear()
        self.statistics.nbytes = 0

    def _path(self, ids: Sequence[int], beginning: Beginning) -> Iterator[tuple[_Block, int]]:
        """Walk along the blocks that hold the beginning of a text, with how much of each fits.

        Only the last may fit in part: where a text goes on otherwise than those before it.
        """
        block = self._roots.get(beginning)
        first = 0
        while block is not None:
            wanted = tuple(ids[first : min(first + _BLOCK_TOKENS, len(ids) - 1)])
            child = block.children.get(wanted)
            if child is None:
                recent = islice(reversed(block.children.values()), _MOST_COMPARED)
                fitting = [(_common(other.tokens, wanted), other) for other in recent]
                count, child = max(fitting, key=lambda pair: pair[0], default=(0, block))
                if count:
                    yield child, count
                return
            yield child, len(wanted)
            block = child
            first += _BLOCK_TOKENS

    def _used(self, path: Sequence[_Block]) -> None:
        """Note the use of a text's blocks, the last first: what follows them goes before them."""
        for block in reversed(path):
            self._by_use[block] = None
            self._by_use.move_to_end(block)

    def _forget(self, block: _Block) -> None:
        del self._by_use[block]
        if block.parent is not None:
            block.parent.children.pop(block.tokens, None)
        self.statistics.nbytes -= block.nbytes


def _common(tokens: Sequence[int], others: Sequence[int]) -> int:
    """Count the tokens that two texts have in common at their beginning."""
    pairs = enumerate(zip(tokens, others, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(tokens), len(others)))


def shares_next_block(ids: Sequence[int], other_ids: Sequence[int], *, known: int) -> bool:
    """Say whether two texts have the block in common that follows their known tokens.

    Args:
        ids: A text.
        other_ids: Another text.
        known: Tokens at the beginning of the first text that need not be computed.
    """
    end = known + _BLOCK_TOKENS
    return end < len(ids) and ids[:end] == other_ids[:end]
