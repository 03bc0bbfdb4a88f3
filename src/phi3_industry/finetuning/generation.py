"""Questions made of the documents themselves: by rules from tables, or by a language model."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.schema import BaseNode, MetadataMode

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.duplicates import near_duplicates
from phi3_industry.finetuning.evidence import Evidence, find_whole, folded, gather_evidence
from phi3_industry.finetuning.splits import random_for
from phi3_industry.finetuning.wordings import Wordings, fill
from phi3_industry.grounding.citations import parse_answer
from phi3_industry.grounding.prompt import GroundingPrompt
from phi3_industry.grounding.questions import Question

__all__ = [
    "GeneratedQuestions",
    "ask_model",
    "ask_tables",
    "check_round_trip",
    "knows_answer",
    "reads_answer",
]

_CELL = "cell:"
_MOST_VALUE_CHARS = 120
_MOST_KEY_CHARS = 80
_OBJECT = re.compile(r"\{")

_KNOWN_SHARE = 0.25
"""A model knows an answer if more than this share of its attempts without passages is right.

Source: Divide-Then-Align, arXiv 2505.20871: unknown if at least 6 of 8 samples are wrong.
"""

Dropped = dict[str, list[str]]
"""For each reason the questions that were dropped."""


@dataclass(frozen=True, kw_only=True)
class GeneratedQuestions:
    """Questions that were made, and those that did not pass.

    Attributes:
        questions: The questions.
        dropped: For each reason the questions or passages that were dropped.
    """

    questions: tuple[Question, ...]
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.questions)} questions"]
        lines += [
            f"dropped {len(texts)}: {why} ({texts[0]:.80})" for why, texts in self.dropped.items()
        ]
        return "\n".join(lines)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a questions file, to be read and corrected before it is trained on.

        Raises:
            FileExistsError: The file is there.
        """
        with Path(path).open("x", encoding="utf-8", newline="\n") as file:
            for question in self.questions:
                file.write(json.dumps(asdict(question), ensure_ascii=False) + "\n")
        return Path(path)


def ask_tables(
    nodes: Sequence[BaseNode],
    *,
    wordings: Wordings,
    seed: int,
    unanswerable_share: float = 0.15,
) -> list[Question]:
    """Ask for the cells of table rows, by their own names, without a language model.

    Rows are the nodes that our ingestion makes of tables, or any whose metadata has
    ``kind: "table_row"``, ``row_key``, ``table`` and a ``cell:NAME`` for each cell. A cell is
    asked for if its value stands in the node and no other row of that name gives another one.
    For some rows a column is asked for that another row of the same table has and this one
    leaves empty, or that only other tables have: the documents hold no answer.

    Args:
        nodes: The nodes; what is no table row is passed over.
        wordings: The questions' wording is ``wordings.table``.
        seed: Seed of the draw of wordings.
        unanswerable_share: Share of the questions that are to have no answer.

    Returns:
        The questions in the order of the nodes, unanswerable ones last.
    """
    rows = [node for node in nodes if node.metadata.get("kind") == "table_row"]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    columns: dict[str, None] = {}
    cells: list[tuple[BaseNode, str, str, str]] = []
    for node in rows:
        key = str(node.metadata.get("row_key") or "")
        for column, value in _cells(node):
            columns[column] = None
            values[folded(key), folded(column)].add(folded(value))
            if 0 < len(key) <= _MOST_KEY_CHARS and len(value) <= _MOST_VALUE_CHARS:
                cells.append((node, key, column, value))

    def word(key: str, column: str) -> str:
        chosen = random_for(seed, "wording", key, column).choice(wordings.table)
        return fill(chosen, row=key, column=column)

    asked: dict[tuple[str, str], Question] = {}
    for node, key, column, value in cells:
        name = (folded(key), folded(column))
        if len(values[name]) == 1 and name not in asked:
            asked[name] = Question(
                id=f"table:{_source_of(node)}:{column}",
                question=word(key, column),
                answers=(value,),
                gold_ids=(node.node_id,),
                metadata={"made_by": "table", "row": key, "column": column},
            )
    keys = dict.fromkeys(key for _, key, _, _ in cells)
    absent = [(key, c) for key in keys for c in columns if (folded(key), folded(c)) not in values]
    count = round(len(asked) * unanswerable_share / (1 - unanswerable_share))
    drawn = random_for(seed, "absent").sample(absent, min(count, len(absent)))
    return [
        *asked.values(),
        *(
            Question(
                id=f"table:absent:{key}:{column}",
                question=word(key, column),
                answers=(),
                metadata={"made_by": "table", "row": key, "column": column},
            )
            for key, column in drawn
        ),
    ]


def ask_model(
    nodes: Sequence[BaseNode],
    llm: LLM,
    *,
    wordings: Wordings,
    per_node: int = 2,
    progress: Callable[[Sequence[BaseNode]], Iterator[BaseNode]] = iter,
) -> tuple[list[Question], Dropped]:
    """Let a language model ask about each node.

    Args:
        nodes: The nodes.
        llm: Any LlamaIndex LLM.
        wordings: The request is ``wordings.generation``.
        per_node: Questions for each node.
        progress: Wraps the nodes, to show how far it is.

    Returns:
        The questions whose answer stands in their node, and what was dropped and why. A request
        that fails costs its node alone.

    Raises:
        TrainingDataError: Every request failed.
    """
    questions: list[Question] = []
    dropped: Dropped = defaultdict(list)
    failed: Exception | None = None
    answered = 0
    for node in progress(nodes):
        text = node.get_content(metadata_mode=MetadataMode.LLM)
        request = fill(wordings.generation, count=str(per_node), passage=text)
        try:
            reply = llm.chat([ChatMessage(role="user", content=request)]).message.content or ""
        except Exception as error:  # one request must not cost the questions of all others
            failed = error
            dropped[f"the request failed ({type(error).__name__})"].append(_source_of(node))
            continue
        answered += 1
        found = list(_pairs(reply))[:per_node]
        if not found:
            dropped["the reply holds no question"].append(_source_of(node))
        for number, (asked, answer) in enumerate(found, start=1):
            quote = find_whole(answer, text)
            if not quote:
                dropped["its answer does not stand in the passage"].append(asked)
                continue
            questions.append(
                Question(
                    id=f"model:{node.node_id}:{number}",
                    question=asked,
                    answers=(quote,),
                    gold_ids=(node.node_id,),
                    metadata={"made_by": "model"},
                )
            )
    if failed is not None and not answered:
        raise TrainingDataError(
            f"The language model failed on each of {len(nodes)} passages, last with "
            f"{type(failed).__name__}: {failed}"
        ) from failed
    return questions, dropped


def check_round_trip(
    questions: Sequence[Question],
    retriever: BaseRetriever,
    *,
    reader: LLM | None = None,
    prompt: GroundingPrompt,
    progress: Callable[[Sequence[Question]], Iterator[Question]] = iter,
) -> GeneratedQuestions:
    """Keep the questions that lead back to where they came from, each one once.

    Args:
        questions: The questions.
        retriever: It has to find the passage by the question.
        reader: It has to read the answer from the passage; ``None`` asks nobody.
        prompt: The wording by which the reader is asked.
        progress: Wraps the questions, to show how far it is.
    """
    dropped: Dropped = defaultdict(list)
    repeats = set(near_duplicates([q.question + "\n".join(q.answers) for q in questions]))
    kept: list[Question] = []
    for number, question in enumerate(progress(questions)):
        if number in repeats:
            dropped["it is a near-duplicate of another one"].append(question.question)
            continue
        evidence = gather_evidence(question, retriever)
        if question.answerable and not evidence.found:
            dropped["the retriever does not find its passage"].append(question.question)
        elif reader is not None and reads_answer(evidence, reader, prompt) is False:
            dropped["the reader does not find its answer"].append(question.question)
        else:
            kept.append(question)
    return GeneratedQuestions(questions=tuple(kept), dropped=dict(dropped))


def reads_answer(evidence: Evidence, reader: LLM, prompt: GroundingPrompt) -> bool | None:
    """Ask a reader for the answer with its passage alone; ``None`` if there is no passage."""
    if evidence.gold is None:
        return None
    messages = prompt.grounded(evidence.question.question, [evidence.gold.text])
    return _is_right(_ask(reader, messages), evidence.question, prompt)


def knows_answer(question: Question, reader: LLM, prompt: GroundingPrompt, *, samples: int) -> bool:
    """Ask a reader without any passage, and tell whether it knows the answer by itself."""
    if not question.answerable or not samples:
        return False
    messages = prompt.closed_book(question.question)
    right = [_is_right(_ask(reader, messages), question, prompt) for _ in range(samples)]
    return sum(right) > _KNOWN_SHARE * samples


def _ask(llm: LLM, messages: Sequence[Mapping[str, str]]) -> str:
    chat = [ChatMessage(role=message["role"], content=message["content"]) for message in messages]
    return llm.chat(chat).message.content or ""


def _is_right(answer: str, question: Question, prompt: GroundingPrompt) -> bool:
    parsed = parse_answer(answer, abstention=prompt.abstention)
    return not parsed.abstained and any(find_whole(one, parsed.body) for one in question.answers)


def _cells(node: BaseNode) -> Iterator[tuple[str, str]]:
    """Give the cells of a row but its key, as the node's text spells them."""
    text = f"; {node.get_content(metadata_mode=MetadataMode.NONE)};"
    for name, value in node.metadata.items():
        if not name.startswith(_CELL) or str(value) == str(node.metadata.get("row_key")):
            continue
        column = name.removeprefix(_CELL)
        if isinstance(value, str):
            spelled: str | None = value
        else:  # a number in the metadata has lost how it was spelled: 12.50 became 12.5
            found = re.search(rf"; {re.escape(column)}: (-?[\d.]+);", text)
            spelled = found[1] if found else None
        if spelled and f"; {column}: {spelled};" in text:
            yield column, spelled


def _source_of(node: BaseNode) -> str:
    return str(node.metadata.get("source_id") or node.node_id)


def _pairs(reply: str) -> Iterator[tuple[str, str]]:
    """Find the JSON objects of a reply, whatever stands around them."""
    decoder = json.JSONDecoder()
    end = 0
    for start in _OBJECT.finditer(reply):
        if start.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(reply, start.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        pair = _pair(value)
        if pair:
            yield pair


def _pair(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    asked, answer = value.get("question"), value.get("answer")
    if not isinstance(asked, str) or not isinstance(answer, str):
        return None
    return (asked.strip(), answer.strip()) if asked.strip() and answer.strip() else None
