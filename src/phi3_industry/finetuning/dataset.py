"""Documents, questions, a glossary and conversations become rows to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import LLM
from llama_index.core.schema import BaseNode

from phi3_industry.errors import TrainingDataError
from phi3_industry.finetuning.assembly import Assembly, TokenCounter
from phi3_industry.finetuning.checks import label_suspects
from phi3_industry.finetuning.conversations import (
    Conversation,
    exchange_rows,
    load_conversations,
)
from phi3_industry.finetuning.drafts import Drafter, Renderer
from phi3_industry.finetuning.duplicates import find_copies, near_duplicates
from phi3_industry.finetuning.evidence import Evidence, gather_evidence, is_house_knowledge
from phi3_industry.finetuning.generation import (
    GeneratedQuestions,
    ask_model,
    ask_tables,
    check_round_trip,
    knows_answer,
    reads_answer,
)
from phi3_industry.finetuning.glossary import Glossary, load_glossary, with_house_form
from phi3_industry.finetuning.records import MOST_CHARS
from phi3_industry.finetuning.report import TrainingReport, judge, spread
from phi3_industry.finetuning.rows import Split, TrainingRow, count_rows
from phi3_industry.finetuning.shares import SliceShares
from phi3_industry.finetuning.splits import hold_out, random_for, split_questions
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.finetuning.wordings import DEFAULT_WORDINGS, Wordings
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, GroundingPrompt
from phi3_industry.grounding.questions import Question, load_questions
from phi3_industry.grounding.relevance import DEFAULT_RELEVANCE, RelevancePrompt

__all__ = ["SliceShares", "TrainingSetBuilder"]

Files = str | PathLike[str] | Sequence[str | PathLike[str]]
"""One file, or several."""

_Item = TypeVar("_Item")


class RetrieverSource(Protocol):
    """What a knowledge base offers: retrievers over its documents."""

    def as_retriever(self, *, similarity_top_k: int) -> BaseRetriever:
        """Give a retriever of the best ``similarity_top_k`` nodes."""
        ...


class TrainingSetBuilder:
    """Builds rows by the very prompt and retriever that serve.

    Each answerable question is shown its passage among hard distractors of random number, in
    random order: the best that the user's own retriever finds, or any of what it finds, one as
    often as the other. Some questions are shown the distractors alone, and the answer abstains.
    Further slices show two versions, a hostile passage, the house's terms, one passage to judge;
    see :data:`~phi3_industry.finetuning.rows.Slice`. Source of the recipe: RAFT, arXiv
    2403.10131, with the abstentions of Divide-Then-Align, arXiv 2505.20871.

    Args:
        source: A knowledge base (anything with ``as_retriever``) or a LlamaIndex retriever.
        llm: Counts tokens, so that no row is longer than what it can be served; ``None`` leaves
            lengths to the trainer.
        prompt: The prompt module; the adapter is bound to it.
        relevance: The wording in which a reranker will ask for relevance.
        wordings: The sentences of questions and passages that the builder makes itself; English
            unless others are given.
        closed_book: ``"abstain"`` teaches to abstain where the passages hold no answer, whatever
            the model knows by itself; ``"allow"`` to answer then, marked by
            ``wordings.unsourced``.
        num_passages: The least and the most passages of a row, gold included; the most should
            be no fewer than are shown in serving. A row that grows too long for the model's
            window shows fewer.
        candidates: Passages to retrieve for each question, from which distractors are drawn. A
            retriever that is given as such returns what it is set to.
        seed: Seed of every draw. The same questions and store give the same rows.

    Raises:
        TypeError: The source is neither.
        ValueError: A number or a choice is outside its range.

    Example:
        >>> builder = TrainingSetBuilder(knowledge_base, llm=llm)  # doctest: +SKIP
        >>> print(builder.build("questions.jsonl").report.summary())  # doctest: +SKIP
    """

    def __init__(
        self,
        source: RetrieverSource | BaseRetriever,
        llm: TokenCounter | None = None,
        *,
        prompt: GroundingPrompt = DEFAULT_PROMPT,
        relevance: RelevancePrompt = DEFAULT_RELEVANCE,
        wordings: Wordings = DEFAULT_WORDINGS,
        closed_book: Literal["abstain", "allow"] = "abstain",
        num_passages: tuple[int, int] = (1, 5),
        candidates: int = 12,
        seed: int = 0,
    ) -> None:
        least, most = num_passages
        if not 1 <= least <= most:
            raise ValueError(
                f"num_passages is {num_passages}; it must be (least, most) with 1 <= least <= most."
            )
        if candidates <= most:
            raise ValueError(
                f"candidates is {candidates}; it must be above the {most} passages of a row."
            )
        if closed_book not in ("abstain", "allow"):
            raise ValueError(f"closed_book is {closed_book!r}; it must be 'abstain' or 'allow'.")
        if isinstance(source, BaseRetriever):
            self._retriever = source
        elif hasattr(source, "as_retriever"):
            self._retriever = source.as_retriever(similarity_top_k=candidates)
        else:
            raise TypeError(
                f"source is a {type(source).__name__}; it must be a knowledge base or a retriever."
            )
        self._source = source
        self._llm = llm
        self._renderer = Renderer(prompt=prompt, relevance=relevance, wordings=wordings)
        self._answers_known = closed_book == "allow"
        self._num_passages = num_passages
        self._seed = seed

    def generate_questions(
        self,
        *,
        llm: LLM | None = None,
        reader: LLM | None = None,
        nodes: Sequence[BaseNode] | None = None,
        per_node: int = 2,
        limit: int | None = None,
        unanswerable_share: float = 0.15,
        show_progress: bool = False,
    ) -> GeneratedQuestions:
        """Make questions of the documents; read them before they are trained on.

        Rows of tables are asked for by rules, in ``wordings.table``; everything else is asked
        about by ``llm``, if one is given. A question stays if the retriever finds its passage
        by it, the ``reader`` its answer, and no other says the same.

        Args:
            llm: Any LlamaIndex LLM, to ask about text; ``None`` asks about tables alone.
            reader: Any LlamaIndex LLM that has to find the answers; ``None`` asks nobody.
            nodes: The nodes to ask about; those of the knowledge base if ``None``.
            per_node: Questions of the LLM for each node.
            limit: The most questions to check and keep, drawn by the seed.
            unanswerable_share: Share of the tables' questions that the documents cannot answer;
                in [0, 1).
            show_progress: Whether to show progress bars.

        Raises:
            TypeError: The source is a retriever, which cannot list its nodes, and none are given.
            ValueError: A number is outside its range.
            TrainingDataError: The LLM failed on every node.
        """
        if per_node < 1 or (limit is not None and limit < 1):
            raise ValueError(f"per_node is {per_node} and limit {limit}; both must be at least 1.")
        if not 0 <= unanswerable_share < 1:
            raise ValueError(
                f"unanswerable_share is {unanswerable_share}; it must be at least 0 and below 1."
            )
        nodes = _nodes_of(self._source) if nodes is None else nodes
        wordings = self._renderer.wordings
        questions = ask_tables(
            nodes, wordings=wordings, seed=self._seed, unanswerable_share=unanswerable_share
        )
        dropped: Mapping[str, Sequence[str]] = {}
        if llm is not None:
            text = [node for node in nodes if node.metadata.get("kind") != "table_row"]
            asked, dropped = ask_model(
                text,
                llm,
                wordings=wordings,
                per_node=per_node,
                progress=_progress(show_progress, "Asking about passages", "passage"),
            )
            questions += asked
        if limit is not None and len(questions) > limit:
            questions = random_for(self._seed, "limit").sample(questions, limit)
        checked = check_round_trip(
            questions,
            self._retriever,
            reader=reader,
            prompt=self._renderer.prompt,
            progress=_progress(show_progress, "Checking questions", "question"),
        )
        return GeneratedQuestions(
            questions=checked.questions, dropped={**dropped, **checked.dropped}
        )

    def build(
        self,
        questions: str | PathLike[str] | Sequence[Question] | None = None,
        *,
        glossary: str | PathLike[str] | Glossary | None = None,
        conversations: Files = (),
        replay: Files = (),
        shares: SliceShares | None = None,
        rows_per_question: int = 1,
        validation_share: float = 0.1,
        reader: LLM | None = None,
        known_samples: int = 0,
        show_progress: bool = False,
    ) -> TrainingSet:
        """Build a training set of what there is: questions, a glossary, conversations.

        A question with ``answers`` becomes a grounded row, or a replay row where it has no
        ``reference`` and others of the set have one. A question without ``answers`` becomes a
        row that abstains. A question whose metadata says ``"closed_book": true`` is house
        knowledge that no document holds: it is answered without passages. Where the metadata
        says ``"stale": ["36 bar"]``, a passage with that answer is an older version.

        Args:
            questions: A questions file or its questions. ``None`` makes them of the knowledge
                base's tables, if nothing else is given.
            glossary: A glossary or its file. Questions about its terms that have no reference
                get one in the form that it gives.
            conversations: Files of conversations to learn from, see
                :func:`~phi3_industry.finetuning.conversations.load_conversations`.
            replay: Such files of general exchanges, so that what the base can do stays.
            shares: How many rows of each slice to make.
            rows_per_question: Rows made of each question, each with passages of its own draw.
            validation_share: Share of the questions to hold out, by source document; in [0, 1).
            reader: Any LlamaIndex LLM, to read each answer from its passage; where it reads
                another one, the label is called suspect.
            known_samples: How often ``reader`` is asked each question without passages, to find
                those whose answer the model knows by itself; 0 asks nobody. Above 1 it should
                be set to a temperature above 0.
            show_progress: Whether to show a progress bar.

        Returns:
            The rows, with a report of what was made and dropped and whether it can teach.

        Raises:
            FileNotFoundError: There is no such file.
            TrainingDataError: A file cannot be read, or too few rows came of it all.
            ValueError: A number is outside its range.
        """
        if rows_per_question < 1:
            raise ValueError(f"rows_per_question is {rows_per_question}; it must be at least 1.")
        if not 0 <= validation_share < 1:
            raise ValueError(
                f"validation_share is {validation_share}; it must be at least 0 and below 1."
            )
        if known_samples < 0 or (known_samples and reader is None):
            raise ValueError(
                f"known_samples is {known_samples}; it must be 0, or above 0 with a reader to ask."
            )
        house = load_glossary(glossary) if isinstance(glossary, str | PathLike) else glossary
        chats, general = _load(conversations), _load(replay)
        assembly = Assembly(self._renderer, self._llm)
        asked = self._questions(questions, house, chats or general, assembly)
        progress = _progress(show_progress, "Retrieving passages", "question")
        evidence = [gather_evidence(question, self._retriever) for question in progress(asked)]
        assembly.drop("no retrieved passage holds the answer", _without_gold(evidence))
        suspects = label_suspects(evidence, house)
        misread, known = self._ask_reader(evidence, reader, known_samples)
        if misread:
            suspects["the reader finds another answer"] = misread
        splits, split_by = split_questions(evidence, share=validation_share, seed=self._seed)
        leaks = _leaks(evidence, splits)
        kept = [item for item in evidence if item.question.id not in leaks]
        exchanges = [
            row
            for files, slice_ in ((chats, "conversation"), (general, "replay"))
            for row in self._exchange_rows(files, slice_, validation_share)
        ]
        exchanges, copied = _without_copies(exchanges)
        for split in get_args(Split):
            part = [item for item in kept if splits[item.question.id] == split]
            assembly.make(
                part,
                self._drafter(part, house),
                shares=shares or SliceShares(),
                rows_per_question=rows_per_question,
                split=split,
                known=known,
                exchanges=[row for row in exchanges if row.split == split],
            )
        rows = assembly.rows
        repeated = _repeated([item for item in kept if splits[item.question.id] == "train"])
        unfound = [item.question.id for item in evidence if item.gold and not item.found]
        doubtful = {question_id for ids in suspects.values() for question_id in ids}
        return TrainingSet(
            rows=rows,
            prompt_fingerprint=self._renderer.prompt.fingerprint,
            report=TrainingReport(
                questions=len(asked),
                counts=count_rows(rows),
                wanted=assembly.wanted,
                dropped=assembly.dropped,
                leaks=[*leaks, *copied],
                repeated=repeated,
                unfound=unfound,
                suspects=suspects,
                prompt_tokens=spread(assembly.prompt_tokens),
                answer_chars=spread([len(row.answer) for row in rows]),
                split_by=split_by,
                verdict=judge(
                    rows,
                    questions=len(asked),
                    repeated=len(repeated),
                    suspects=len(doubtful),
                    unfound=len(unfound),
                ),
            ),
        )

    def _questions(
        self,
        questions: str | PathLike[str] | Sequence[Question] | None,
        glossary: Glossary | None,
        has_conversations: object,
        assembly: Assembly,
    ) -> list[Question]:
        """Read or make the questions, in the house's form, without those that are far too long."""
        if questions is None and glossary is None and not has_conversations:
            questions = self.generate_questions().questions
            if not questions:
                raise TrainingDataError(
                    "The knowledge base holds no table whose cells could be asked for. Give "
                    "questions, or make some with generate_questions(llm=...)."
                )
        elif isinstance(questions, str | PathLike):
            questions = load_questions(questions)
        kept: list[Question] = []
        seen: set[str] = set()
        for number, question in enumerate(questions or (), start=1):
            if question.id in seen:
                raise TrainingDataError(
                    f"The id '{question.id}' is there already. Give each question its own.",
                    record=number,
                    field="id",
                )
            seen.add(question.id)
            texts = (question.question, question.reference or "", *question.answers)
            if sum(map(len, texts)) > MOST_CHARS:
                assembly.drop(f"it has more than {MOST_CHARS} characters", [question.id])
            else:
                kept.append(question)
        return with_house_form(kept, glossary) if glossary else kept

    def _ask_reader(
        self, evidence: Sequence[Evidence], reader: LLM | None, known_samples: int
    ) -> tuple[list[str], frozenset[str]]:
        """Find the questions that a reader answers otherwise, and those it knows by itself."""
        if reader is None:
            return [], frozenset()
        prompt = self._renderer.prompt
        misread = [e.question.id for e in evidence if reads_answer(e, reader, prompt) is False]
        known = (
            item.question.id
            for item in evidence
            if knows_answer(item.question, reader, prompt, samples=known_samples)
        )
        return misread, frozenset(known)

    def _drafter(self, evidence: Sequence[Evidence], glossary: Glossary | None) -> Drafter:
        return Drafter(
            num_passages=self._num_passages,
            wordings=self._renderer.wordings,
            relevance=self._renderer.relevance,
            glossary=glossary,
            answers_known=self._answers_known,
            seed=self._seed,
            values=list(dict.fromkeys(item.quote for item in evidence if item.quote)),
        )

    def _exchange_rows(
        self, conversations: Sequence[Conversation], slice_: Any, share: float
    ) -> list[TrainingRow]:
        groups = {conversation.id: [conversation.id] for conversation in conversations}
        held = hold_out(groups, round(len(groups) * share), seed=self._seed)
        return exchange_rows(conversations, slice_, held_out=held)


def _load(files: Files) -> list[Conversation]:
    paths = [files] if isinstance(files, str | PathLike) else files
    return [conversation for path in paths for conversation in load_conversations(Path(path))]


def _nodes_of(source: object) -> Sequence[BaseNode]:
    """List the nodes of a knowledge base."""
    list_nodes = getattr(getattr(source, "vector_store", None), "get_nodes", None)
    if not callable(list_nodes):
        raise TypeError(
            f"A {type(source).__name__} does not list its nodes. Pass nodes=, or build with a "
            "knowledge base."
        )
    nodes: Sequence[BaseNode] = list_nodes()
    return nodes


def _without_gold(evidence: Sequence[Evidence]) -> list[str]:
    return [
        item.question.id
        for item in evidence
        if item.gold is None and item.question.answerable and not is_house_knowledge(item.question)
    ]


def _leaks(evidence: Sequence[Evidence], splits: Mapping[str, Split]) -> list[str]:
    """Find held-out questions that training nearly repeats: the question, or its passage."""
    train, held = (
        [item for item in evidence if splits[item.question.id] == split]
        for split in get_args(Split)
    )
    leaks = {held[i].question.id for i in find_copies(_asked(held), _asked(train))}
    shown = [item for item in held if item.gold]
    leaks |= {
        shown[i].question.id for i in find_copies(_golds(shown), list(dict.fromkeys(_golds(train))))
    }
    return [item.question.id for item in held if item.question.id in leaks]


def _repeated(evidence: Sequence[Evidence]) -> list[str]:
    return [evidence[i].question.id for i in near_duplicates(_asked(evidence))]


def _asked(evidence: Sequence[Evidence]) -> list[str]:
    return [f"{item.question.question}\n{item.wanted or ''}" for item in evidence]


def _golds(evidence: Sequence[Evidence]) -> list[str]:
    return [item.gold.text for item in evidence if item.gold]


def _without_copies(rows: Sequence[TrainingRow]) -> tuple[list[TrainingRow], list[str]]:
    """Leave out held-out exchanges that training nearly repeats."""
    train = [row for row in rows if row.split == "train"]
    held = [row for row in rows if row.split == "validation"]
    copies = set(find_copies([_said(row) for row in held], [_said(row) for row in train]))
    kept = [row for index, row in enumerate(held) if index not in copies]
    return train + kept, [held[index].question_id for index in sorted(copies)]


def _said(row: TrainingRow) -> str:
    return f"{row.prompt[-1]['content']}\n{row.answer}"


def _progress(show: bool, title: str, unit: str) -> Callable[[Sequence[_Item]], Iterator[_Item]]:
    """Give what shows how far a loop is; it does nothing unless it is to show."""
    if not show:
        return iter

    def shown(items: Sequence[_Item]) -> Iterator[_Item]:
        from tqdm import tqdm

        return iter(tqdm(items, desc=title, unit=unit))

    return shown
