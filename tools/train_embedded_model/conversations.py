"""Conversations: passages, questions about them, and the answers that cite or abstain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message

from .documents import document_family
from .draw import Draw
from .drills import drill_family
from .facts import Fact
from .passages import Family, Passage
from .real_text import RealText
from .tables import Table, draw_table, row_family, table_title
from .values import near_miss

__all__ = ["Conversation", "Difficulty", "Turn", "draw_conversation", "draw_turns"]

_QUESTION_MARK = "\0"
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
        real_text: Share of conversations about real text, where there is any.
        default_prompt: Share of conversations in the project's own prompt.
        drills: Share of contexts that are drills.
        many_wordings: Share of training questions in any of many languages, or in none.
        near_misses: Share of unanswerable questions that ask a held fact of a name one character
            away from its subject.
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
    real_text: float = 0.06
    default_prompt: float = 0.78
    drills: float = 0.0
    many_wordings: float = 0.0
    near_misses: float = 0.0


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        question: The question.
        answer: The whole answer with its citation.
        marker: Number of the passage that holds the answer, 0 for none.
        value: The answer without its citation.
        kind: Kind of fact.
        attribute: What is asked of the subject; empty where nothing names it.
    """

    question: str
    answer: str
    marker: int
    value: str
    kind: str
    attribute: str = ""


@dataclass(frozen=True)
class Conversation:
    """Passages and questions about them, each asked on its own.

    Attributes:
        shape: ``"table row"``, ``"document"``, ``"mixed"``, ``"drill"``, ``"real text"`` or
            ``"closed book"``.
        passages: Contents of the passages, in their order.
        turns: Questions with answers.
        system: System messages, none or one.
        around_question: Text of the user's message before and after the question.
    """

    shape: str
    passages: tuple[str, ...]
    turns: tuple[Turn, ...]
    system: tuple[Message, ...] = field(repr=False)
    around_question: tuple[str, str] = field(repr=False)

    def prompt(self, question: str) -> list[Message]:
        """Return the messages that ask a question."""
        before, after = self.around_question
        return [*self.system, {"role": "user", "content": f"{before}{question}{after}"}]


def draw_conversation(
    draw: Draw, difficulty: Difficulty, *, tables: Sequence[Table] = ()
) -> Conversation:
    """Draw one conversation.

    Args:
        draw: Source of chance, bound to a split.
        difficulty: How hard it is.
        tables: Real tables; a third of the table contexts is drawn from them when there are any.
    """
    draw.many_wordings = difficulty.many_wordings
    if draw.chance(difficulty.closed_book):
        return _closed_book(draw)
    while True:
        if draw.text is not None and draw.chance(difficulty.real_text):
            shape = "real text"
            contents, turns = _real_text(draw, draw.text, difficulty)
        else:
            shape, families = _context(draw, difficulty, tables)
            passages = [passage for family in families for passage in family.passages]
            draw.shuffle(passages)
            contents = tuple(passage.content for passage in passages)
            turns = draw_turns(draw, passages, families, difficulty)
        if turns:
            break
    system, around = _opening(draw, contents, difficulty.default_prompt)
    return Conversation(shape, contents, tuple(turns), system, around)


def _closed_book(draw: Draw) -> Conversation:
    family = document_family(draw, passages=1, max_facts=1, filler=0.0)
    turn = _abstain(family.passages[0].facts[0], draw)
    return Conversation(
        "closed book", (), (turn,), *_split(DEFAULT_PROMPT.closed_book(_QUESTION_MARK))
    )


def _real_text(
    draw: Draw, text: RealText, difficulty: Difficulty
) -> tuple[tuple[str, ...], list[Turn]]:
    """Real passages with what people asked about them, and gaps to fill."""
    asked = text.draw(draw, passages=draw.randint(*difficulty.passages))
    turns = []
    for question, marker, value in asked.questions:
        answer = DEFAULT_PROMPT.answer(value, marker=marker)
        if not marker:
            answer, value = DEFAULT_PROMPT.abstention_answer, DEFAULT_PROMPT.abstention
        turns.append(Turn(question, answer, marker, value, "real text"))
    return asked.passages, turns[: difficulty.questions]


def _context(
    draw: Draw, difficulty: Difficulty, tables: Sequence[Table]
) -> tuple[str, list[Family]]:
    count = draw.randint(*difficulty.passages)
    if draw.chance(difficulty.drills):
        return "drill", [drill_family(draw, passages=count)]
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


def draw_turns(
    draw: Draw, passages: Sequence[Passage], families: Sequence[Family], difficulty: Difficulty
) -> list[Turn]:
    """Draw questions about passages, some of which no passage answers.

    Args:
        draw: Source of chance.
        passages: The passages in the order in which they are numbered.
        families: The families that they belong to, for what a reader may miss in them.
        difficulty: How many questions, and the share without an answer.
    """
    held = [(n, fact) for n, passage in enumerate(passages, start=1) for fact in passage.facts]
    names = [fact.identity for _, fact in held]
    askable = [(n, fact) for n, fact in held if names.count(fact.identity) == 1]
    absent = [fact for family in families for fact in family.absent]
    absent += _crossed(families)
    absent = [fact for fact in absent if fact.identity not in names]
    turns: list[Turn] = []
    asked: set[str] = set()
    wanted = min(difficulty.questions, 3 * len(askable) + 2)
    for _ in range(3 * wanted):
        if len(turns) == wanted:
            break
        if absent and draw.chance(difficulty.unanswerable):
            turn = _abstain(_near_miss(draw, held, names, difficulty) or draw.choice(absent), draw)
        elif askable:
            marker, fact = draw.choice(askable)
            answer = DEFAULT_PROMPT.answer(fact.value, marker=marker)
            turn = Turn(fact.ask(draw), answer, marker, fact.value, fact.kind, fact.attribute)
        else:
            break
        if turn.question.casefold() not in asked:
            asked.add(turn.question.casefold())
            turns.append(turn)
    return turns


def _near_miss(
    draw: Draw,
    held: Sequence[tuple[int, Fact]],
    names: Sequence[tuple[str, str]],
    difficulty: Difficulty,
) -> Fact | None:
    """Now and then ask a held fact of a name that is one character away from its subject."""
    if not difficulty.near_misses or not held or not draw.chance(difficulty.near_misses):
        return None
    _, fact = draw.choice(held)
    stranger = near_miss(fact.subject, draw)
    mentions = tuple(m.replace(fact.subject, stranger) for m in fact.mentions if fact.subject in m)
    other = fact.of(stranger, mentions)
    known = {subject for subject, _ in names}
    if not mentions or other.identity[0] in known or not draw.allows(stranger):
        return None
    return other


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
    draw: Draw, contents: Sequence[str], default_share: float
) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """Draw the system message and what stands around the question."""
    if draw.chance(default_share):
        return _split(DEFAULT_PROMPT.grounded(_QUESTION_MARK, contents))
    numbered = "\n".join(f"[{n}] {content}" for n, content in enumerate(contents, start=1))
    around = draw.choice(
        (
            (f"Context:\n{numbered}\n\nQuestion: ", ""),
            (f"{numbered}\n\n", ""),
            (f"Passages:\n{numbered}\nQuestion: ", "\nAnswer with the passage number."),
            (
                "Context information is below.\n---------------------\n"
                f"{numbered}\n---------------------\nGiven the context information and not prior "
                "knowledge, answer the query.\nQuery: ",
                "\nAnswer: ",
            ),
        )
    )
    system = draw.choice((DEFAULT_PROMPT.system_text, *_SYSTEMS))
    return ({"role": "system", "content": system},) if system else (), around


def _split(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[str, str]]:
    """Take the question's stand-in out of a prompt."""
    *system, user = messages
    before, _, after = user["content"].rpartition(_QUESTION_MARK)
    return tuple(system), (before, after)
