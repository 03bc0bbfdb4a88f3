"""The part of the report in which each question opens to its answers and their passages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phi3_industry.evaluation.markup import Markup, element, join
from phi3_industry.evaluation.provenance_html import provenance_item
from phi3_industry.evaluation.rows import AnswerRow, CitedPassage, Passage
from phi3_industry.evaluation.wording import duration, label
from phi3_industry.grounding.questions import Question

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["questions_section", "strata_filters"]

_FILTERS = (("all", "all"), ("differ", "strategies differ"), ("wrong", "some wrong"))


def questions_section(result: ComparisonResult) -> Markup:
    """Write every question with a mark for each strategy, openable to the answers.

    Args:
        result: The comparison.

    Returns:
        A section of the report.
    """
    rows: dict[str, list[AnswerRow]] = {}
    for row in result.rows:
        rows.setdefault(row.question_id, []).append(row)
    order = ", ".join(label(name) for name in result.strategies)
    return element(
        "section",
        element("h2", "Every question"),
        element(
            "p",
            f"One mark for each strategy, in the order {order}: ",
            element("span", "✓", class_="right"),
            " right, ",
            element("span", "◐", class_="partly"),
            " right value in another format, ",
            element("span", "✗", class_="mark off"),
            " wrong or made up, – abstained though there is an answer, ! failed.",
            class_="note",
        ),
        _filters(result),
        *(_question(result, question, rows[question.id]) for question in result.questions),
    )


def strata_filters(result: ComparisonResult) -> str:
    """Write the CSS by which the buttons show one kind of question."""
    return "".join(
        f"body:has(#show-{key}:checked) .question:not(.{key}) {{ display: none; }}\n"
        for key in _stratum_keys(result).values()
    )


def _stratum_keys(result: ComparisonResult) -> dict[str, str]:
    """Give each kind of question a CSS class, which its own name may not be."""
    return {stratum.name: f"kind-{number}" for number, stratum in enumerate(result.strata)}


def _filters(result: ComparisonResult) -> Markup:
    keys = _stratum_keys(result)
    kinds = [(key, label(name)) for name, key in keys.items()] if len(keys) > 1 else []
    buttons = [
        join(
            element("input", type="radio", name="show", id=f"show-{key}", checked=key == "all"),
            element("label", text, for_=f"show-{key}"),
        )
        for key, text in (*_FILTERS, *kinds)
    ]
    return element("div", *buttons, class_="filters", role="group", aria_label="Show questions")


def _question(result: ComparisonResult, question: Question, rows: list[AnswerRow]) -> Markup:
    marks = [_mark(row) for row in rows]
    kinds = [
        "question",
        "differ" if len({sign for sign, _, _ in marks}) > 1 else "",
        "wrong" if any(sign != "✓" for sign, _, _ in marks) else "",
        _stratum_keys(result)[question.stratum],
    ]
    signs = [
        element("span", sign, class_=f"mark {kind}", title=f"{label(row.strategy)}: {meaning}")
        for row, (sign, kind, meaning) in zip(rows, marks, strict=True)
    ]
    return element(
        "details",
        element(
            "summary",
            element("span", question.question, dir="auto"),
            element("span", *signs, class_="marks"),
        ),
        element(
            "div",
            _wanted(question),
            element(
                "div",
                *(_answer(result, row, mark) for row, mark in zip(rows, marks, strict=True)),
                class_="answers",
            ),
            _passages(result, question, rows),
            class_="inside",
        ),
        class_=" ".join(filter(None, kinds)),
    )


def _mark(row: AnswerRow) -> tuple[str, str, str]:
    """Give the sign of an answer, its CSS class and its meaning."""
    if row.error:
        return "!", "off", "failed"
    if row.house_match is None:
        return ("✓", "right", "abstained, rightly") if row.abstained else ("✗", "off", "made up")
    if row.abstained:
        return "–", "", "abstained"
    if row.right:
        return "✓", "right", "right"
    if row.value_match:
        return "◐", "partly", "right value, other format"
    return "✗", "off", "wrong"


def _wanted(question: Question) -> Markup:
    if not question.answerable:
        return element("p", "The documents hold no answer.", class_="wanted")
    others = [answer for answer in question.answers if answer != question.wanted]
    return element(
        "p",
        "Wanted: ",
        element("b", question.wanted or "", dir="auto"),
        f" · value: {' / '.join(others)}" if others else "",
        class_="wanted",
    )


def _answer(result: ComparisonResult, row: AnswerRow, mark: tuple[str, str, str]) -> Markup:
    sign, kind, meaning = mark
    facts = [_citation(result, citation) for citation in row.citations]
    if row.provenance:
        facts.append(provenance_item(row.provenance))
    if row.reason:
        facts.append(element("li", row.reason, dir="auto"))
    return element(
        "article",
        element(
            "h3",
            element("span", label(row.strategy)),
            element("span", f"{sign} {meaning} · {duration(row.latency_s)}", class_=_tone(kind)),
        ),
        element(
            "p",
            row.error or row.answer or "(empty)",
            class_="said wrong-answer" if row.error else "said",
            dir="auto",
        ),
        element("ul", *facts) if facts else "",
        class_="answer",
    )


def _tone(kind: str) -> str:
    return {"off": "wrong-answer"}.get(kind, kind)


def _citation(result: ComparisonResult, citation: CitedPassage) -> Markup:
    if citation.node_id is None:
        return element("li", f"[{citation.marker}] cites a passage that is not there")
    passage = result.passages.get(citation.node_id)
    source = passage.source_id if passage else citation.node_id
    state = f"stands there: “{citation.quote}”" if citation.verified else "does not stand there"
    return element("li", f"[{citation.marker}] {source} – {state}", dir="auto")


def _passages(result: ComparisonResult, question: Question, rows: list[AnswerRow]) -> Markup:
    shown = dict.fromkeys(node_id for row in rows for node_id in row.passages)
    if not shown:
        return join()
    cited: dict[str, list[str]] = {}
    for row in rows:
        for citation in row.citations:
            if citation.node_id is not None:
                cited.setdefault(citation.node_id, []).append(label(row.strategy))
    gold = set(question.gold_ids)
    entries = [
        _passage(
            result.passages[node_id],
            is_gold=not gold.isdisjoint(result.passages[node_id].names),
            cited_by=list(dict.fromkeys(cited.get(node_id, []))),
        )
        for node_id in shown
    ]
    return element("dl", *entries, class_="passages")


def _passage(passage: Passage, *, is_gold: bool, cited_by: list[str]) -> Markup:
    tags = ["holds the answer"] if is_gold else []
    tags += [f"cited by {', '.join(cited_by)}"] if cited_by else []
    return join(
        element(
            "dt",
            passage.source_id,
            *(join(" ", element("span", tag, class_="tag")) for tag in tags),
        ),
        element("dd", passage.text, class_="gold" if is_gold else False, dir="auto"),
    )
