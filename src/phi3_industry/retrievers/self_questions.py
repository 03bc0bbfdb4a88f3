"""Questions that a corpus asks itself, so that weights can be fitted where nobody wrote any.

A question is a piece of a passage, about as long as what people ask, and the right answers are the
*other* passages of the same document; the passage itself is taken out of what is found. Asked for
itself, a passage is found by its very words, and words alone would seem to suffice; but a reader's
question has some words of the passage that answers it, and not all. What finds the neighbours of
a text by a few of its words may find answers, too. On the three sets of docs/benchmarks.md no fit
of this kind was sure enough of its gain to be adopted. Only how meaning and words compare is
learned this way. Pieces of words cannot be judged by questions in the corpus's own word forms, nor
the document by questions that every passage of it answers: their weights keep their proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llama_index.core.schema import BaseNode, MetadataMode

__all__ = ["SelfQuestion", "self_questions"]

_WORDS = 8
#: Where words are longer than this on average, they are not put apart by spaces.
_LONGEST_WORD = 20
_CHARS = 16


@dataclass(frozen=True, kw_only=True)
class SelfQuestion:
    """A question made of a passage.

    Attributes:
        text: The question.
        node_id: The passage.
        others: The other passages of its document; at least one.
    """

    text: str
    node_id: str
    others: frozenset[str]


def self_questions(nodes: Sequence[BaseNode], *, most: int, seed: int = 0) -> list[SelfQuestion]:
    """Make questions from passages, by a rule that knows no language.

    Args:
        nodes: Passages; those that are alone in their document are passed over.
        most: The most questions.
        seed: Draws passages and pieces.

    Returns:
        Questions of different passages: eight words, or 16 characters where words are not put
        apart by spaces.
    """
    documents: dict[str, list[str]] = {}
    for node in nodes:
        documents.setdefault(node.ref_doc_id or node.node_id, []).append(node.node_id)
    generator = np.random.default_rng(seed)
    questions: list[SelfQuestion] = []
    for place in generator.permutation(len(nodes)):
        if len(questions) == most:
            break
        node = nodes[place]
        family = documents[node.ref_doc_id or node.node_id]
        text = _piece(node.get_content(metadata_mode=MetadataMode.NONE), generator)
        if text and len(family) > 1:
            others = frozenset(family) - {node.node_id}
            questions.append(SelfQuestion(text=text, node_id=node.node_id, others=others))
    return questions


def _piece(text: str, generator: np.random.Generator) -> str:
    words = text.split()
    if len(text) > _LONGEST_WORD * len(words):
        joined = " ".join(words)
        begin = int(generator.integers(max(1, len(joined) - _CHARS + 1)))
        return joined[begin : begin + _CHARS].strip()
    begin = int(generator.integers(max(1, len(words) - _WORDS + 1)))
    return " ".join(words[begin : begin + _WORDS])
