"""Conversations: passages, questions about them, and the answers that cite or abstain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message

from .documents import document_family
from .draw import Draw
from .facts import Fact
from .passages import Family, Passage
from .tables import Table, draw_table, row_family, table_title

__all__ = ["Conversation", "Difficulty", "Turn", "draw_conversation"]

_SYSTEMS = (
    "Answer from the passages and cite the passage number.",
    "Answer only from the passages. If the answer is not there, say that you don't know.",
    "You are a plant assistant.",
    "Use the context to answer. Cite your source.",
    "You are a helpful assistant.",
    "",
)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the conversations of a stage are.

    Attributes:
        passages: Fewest and most passages.
        questions: Questions about one context.
        max_facts: Upper bound on facts in a passage of prose.
        max_columns: Upper bound on columns of a table.
        table_share: Share of contexts made of table rows; the rest is documents, or mixed.
        mixed_share: Share of contexts that mix rows and documents.
        filler: Share of prose passages with sentences that state nothing asked.
        unanswerable: Share of questions that no passage answers.
        closed_book: Share of conversations without passages.
        default_prompt: Share of conversations in the project's own prompt.
    """

    passages: tuple[int, int]
    questions: int
    max_facts: int = 3
    max_columns: int = 6
    table_share: float = 0.45
    mixed_share: float = 0.2
    filler: float = 0.4
    unanswerable: float = 0.35
    closed_book: float = 0.02
    default_prompt: float = 0.78


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: The question.
        answer: The whole answer with its citation.
        marker: Number of the passage that holds the answer, 0 for none.
        value: The answer without its citation.
        kind: Kind of fact.
    """

    question: str
    answer: str
    marker: int
    value: str
    kind: str


@dataclass(frozen=True)
class Conversation:
    """Passages and the turns about them.

    Attributes:
        shape: ``"table row"``, ``"document"``, ``"mixed"`` or ``"closed book"``.
        passages: Contents of the passages, in their order.
        turns: Questions with answers.
        opening: Messages up to and with the first question.
        question_label: What stands before later questions.
    """

    shape: str
    passages: tuple[str, ...]
    turns: tuple[Turn, ...]
    opening: list[Message] = field(repr=False)
    question_label: str = ""

    def messages(self) -> list[Message]:
        """Return all messages, the answers included."""
        messages = list(self.opening)
        for number, turn in enumerate(self.turns):
            if number:
                question = f"{self.question_label}{turn.question}"
                messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages


def draw_conversation(
    draw: Draw, difficulty: Difficulty, *, tables: Sequence[Table] = ()
) -> Conversation:
    """Draw one conversation.

    Args:
        draw: Source of chance, bound to a split.
        difficulty: How hard it is.
        tables: Real tables; a third of the table contexts is drawn from them when there are any.
    """
    if draw.chance(difficulty.closed_book):
        return _closed_book(draw)
    while True:
        shape, families = _context(draw, difficulty, tables)
        passages = [passage for family in families for passage in family.passages]
        draw.shuffle(passages)
        turns = _turns(draw, passages, families, difficulty)
        if turns:
            break
    contents = tuple(passage.content for passage in passages)
    label = draw.choice(("", DEFAULT_PROMPT.question_label))
    opening = _opening(draw, turns[0].question, contents, difficulty.default_prompt)
    return Conversation(shape, contents, tuple(turns), opening, label)


def _closed_book(draw: Draw) -> Conversation:
    family = document_family(draw, passages=1, max_facts=1, filler=0.0)
    turn = _abstain(family.passages[0].facts[0], draw)
    return Conversation("closed book", (), (turn,), DEFAULT_PROMPT.closed_book(turn.question))


def _context(
    draw: Draw, difficulty: Difficulty, tables: Sequence[Table]
) -> tuple[str, list[Family]]:
    count = draw.randint(*difficulty.passages)
    if count > 1 and draw.chance(difficulty.mixed_share):
        first = draw.randint(1, count - 1)
        one = draw.choice((_rows, _documents))(draw, difficulty, first, tables, ())
        names = [fact.subject for p in one.passages for fact in p.facts if fact.kind != "key"]
        known = list(dict.fromkeys(names))
        other = draw.choice((_rows, _documents))(draw, difficulty, count - first, tables, known)
        return "mixed", [one, other]
    if draw.chance(difficulty.table_share):
        return "table row", [_rows(draw, difficulty, count, tables, ())]
    return "document", [_documents(draw, difficulty, count, tables, ())]


def _rows(
    draw: Draw, difficulty: Difficulty, shown: int, tables: Sequence[Table], known: Sequence[str]
) -> Family:
    if tables and not known and draw.chance(0.33):
        suitable = [table for table in draw.choices(tables, k=8) if len(table.rows) >= shown]
        if suitable:
            return row_family(replace(suitable[0], header=table_title(draw)), draw, shown=shown)
    rows = shown + draw.randint(1, 2)
    table = draw_table(draw, rows=rows, max_columns=difficulty.max_columns, known=known)
    return row_family(table, draw, shown=shown)


def _documents(
    draw: Draw, difficulty: Difficulty, shown: int, _tables: Sequence[Table], known: Sequence[str]
) -> Family:
    return document_family(
        draw,
        passages=shown,
        max_facts=difficulty.max_facts,
        filler=difficulty.filler,
        known=known,
    )


def _turns(
    draw: Draw, passages: Sequence[Passage], families: Sequence[Family], difficulty: Difficulty
) -> list[Turn]:
    held = [(n, fact) for n, passage in enumerate(passages, start=1) for fact in passage.facts]
    names = [fact.identity for _, fact in held]
    askable = [(n, fact) for n, fact in held if names.count(fact.identity) == 1]
    absent = [fact for family in families for fact in family.absent]
    absent += _crossed(families)
    absent = [fact for fact in absent if fact.identity not in names]
    draw.shuffle(askable)
    turns: list[Turn] = []
    asked: set[str] = set()
    for _ in range(3 * difficulty.questions):
        if len(turns) == difficulty.questions:
            break
        if absent and draw.chance(difficulty.unanswerable):
            turn = _abstain(draw.choice(absent), draw)
        elif askable:
            marker, fact = askable.pop()
            answer = DEFAULT_PROMPT.answer(fact.value, marker=marker)
            turn = Turn(fact.ask(draw), answer, marker, fact.value, fact.kind)
        else:
            break
        if turn.question.casefold() not in asked:
            asked.add(turn.question.casefold())
            turns.append(turn)
    return turns


def _crossed(families: Sequence[Family]) -> list[Fact]:
    """Ask the attributes of one family of the subjects of another."""
    if len(families) < 2:
        return []
    first, second = ([f for p in family.passages for f in p.facts] for family in families[:2])
    pairs = zip(first, reversed(second), strict=False)
    return [
        a.of(b.subject, b.mentions)
        for a, b in pairs
        if "key" not in (a.kind, b.kind) and all("{a}" in q.lower() for q in a.questions)
    ]


def _abstain(fact: Fact, draw: Draw) -> Turn:
    answer = DEFAULT_PROMPT.abstention_answer
    return Turn(fact.ask(draw), answer, 0, DEFAULT_PROMPT.abstention, fact.kind)


def _opening(
    draw: Draw, question: str, contents: Sequence[str], default_share: float
) -> list[Message]:
    if draw.chance(default_share):
        return DEFAULT_PROMPT.grounded(question, contents)
    numbered = "\n".join(f"[{n}] {content}" for n, content in enumerate(contents, start=1))
    user = draw.choice(
        (
            f"Context:\n{numbered}\n\nQuestion: {question}",
            f"{numbered}\n\n{question}",
            f"Passages:\n{numbered}\nQuestion: {question}\nAnswer with the passage number.",
            "Context information is below.\n---------------------\n"
            f"{numbered}\n---------------------\nGiven the context information and not prior "
            f"knowledge, answer the query.\nQuery: {question}\nAnswer: ",
        )
    )
    system = draw.choice((DEFAULT_PROMPT.system_text, *_SYSTEMS))
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": user}]
