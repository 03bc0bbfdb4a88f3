"""Passages that are, or look like, dated versions of one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from llama_index.core.schema import MetadataMode, NodeWithScore

from phi3_industry.grounding.matching import words_of

__all__ = ["Superseded", "iso_date", "look_like_versions", "newest_first", "same_passage"]

_LEAST_LIKENESS = 0.5


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """A passage that was set aside because a newer version of it was found, too.

    Attributes:
        older: The passage.
        newer_id: Node id of the newest version, which is shown in its place.
        older_date, newer_date: Their dates, as ISO 8601 text.
    """

    older: NodeWithScore
    newer_id: str
    older_date: str
    newer_date: str


def iso_date(node: NodeWithScore, key: str) -> str:
    """Give a node's date as ISO 8601 text; empty if there is none that can be read."""
    value = str(node.node.metadata.get(key, ""))[:10]
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return ""


def same_passage(one: NodeWithScore, other: NodeWithScore) -> bool:
    """Tell whether two nodes of versions of a document are the same passage of it.

    They are if they have the same place in it (the end of ``source_id``) or, where that is not
    known, half of their words in common.
    """
    places = [_place(node) for node in (one, other)]
    return places[0] == places[1] if all(places) else _are_alike(one, other)


def look_like_versions(one: NodeWithScore, other: NodeWithScore, *, date_key: str) -> bool:
    """Tell whether two nodes look like versions of a passage though no metadata says so.

    They do if their documents differ and have one title and different dates, and they are the
    same passage with half of their words in common.
    """
    titles = [str(node.node.metadata.get("title", "")) for node in (one, other)]
    dates = [iso_date(node, date_key) for node in (one, other)]
    return (
        one.node.ref_doc_id != other.node.ref_doc_id
        and bool(titles[0])
        and titles[0] == titles[1]
        and all(dates)
        and dates[0] != dates[1]
        and same_passage(one, other)
        and _are_alike(one, other)
    )


def newest_first(
    order: Sequence[int], nodes: Sequence[NodeWithScore], *, date_key: str
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Put passages that look like versions of one another in the order newest first.

    They keep the places that they have among the others. A small reader answers from the first
    passage that fits and compares no dates.

    Args:
        order: Indexes of the nodes in the order in which they would be numbered.
        nodes: The nodes.
        date_key: Metadata key of a node's date.

    Returns:
        The new order, and for each group of versions its dates, newest first.
    """
    arranged = list(order)
    dates = []
    left = list(order)
    while left:
        first = left.pop(0)
        group = [first]
        for index in left:
            if any(look_like_versions(nodes[index], nodes[i], date_key=date_key) for i in group):
                group.append(index)
        left = [index for index in left if index not in group]
        if len(group) > 1:
            places = [place for place, index in enumerate(arranged) if index in group]
            group.sort(key=lambda index: iso_date(nodes[index], date_key), reverse=True)
            for place, index in zip(places, group, strict=True):
                arranged[place] = index
            dates.append(tuple(iso_date(nodes[index], date_key) for index in group))
    return arranged, dates


def _place(node: NodeWithScore) -> str:
    """What follows the document in a node's ``source_id``: a row or a section; may be empty."""
    return str(node.node.metadata.get("source_id", "")).partition("#")[2]


def _are_alike(one: NodeWithScore, other: NodeWithScore) -> bool:
    """Tell whether two nodes have half of their words in common, counted as often as they occur."""
    texts = (node.node.get_content(metadata_mode=MetadataMode.LLM) for node in (one, other))
    first, second = (Counter(words_of(text)) for text in texts)
    total = first.total() + second.total()
    return bool(total) and 2 * (first & second).total() / total >= _LEAST_LIKENESS
