"""The comparison as data: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phi3_industry.evaluation.arms import ArmSummary, Rate
from phi3_industry.evaluation.contrasts import Contrast

if TYPE_CHECKING:
    from phi3_industry.evaluation.result import ComparisonResult

__all__ = ["as_csv", "as_json"]

_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.])")
"""How a text begins that a spreadsheet would run. A signed number is none."""

_COLUMNS = (
    "question_id",
    "stratum",
    "question",
    "answers",
    "reference",
    "strategy",
    "answer",
    "body",
    "right",
    "exact_match",
    "value_match",
    "house_match",
    "number_match",
    "token_f1",
    "terms_right",
    "gold_shown",
    "citation_right",
    "cites_gold",
    "quotes",
    "quotes_exact",
    "abstained",
    "latency_s",
    "machine_s",
    "prompt_tokens",
    "completion_tokens",
    "cited",
    "passages",
    "used_strategy",
    "reason",
    "error",
)


def as_json(result: ComparisonResult) -> str:
    """Write everything as JSON text.

    Args:
        result: The comparison.

    Returns:
        One object; ``rows`` refer to ``questions`` and ``passages`` by id.
    """
    content = {
        "format": "phi3-industry comparison",
        "version": 2,
        "seed": result.seed,
        "margin": result.margin,
        "settings": dict(result.settings),
        "strategies": list(result.strategies),
        "arms": {name: _arm(arm) for name, arm in result.arms.items()},
        "strata": [
            {
                "name": stratum.name,
                "questions": stratum.questions,
                "arms": {name: _arm(arm) for name, arm in stratum.arms.items()},
                "contrasts": [_contrast(contrast) for contrast in stratum.contrasts],
            }
            for stratum in result.strata
        ],
        "prices": None if result.prices is None else asdict(result.prices),
        "upkeep": None if result.upkeep is None else asdict(result.upkeep),
        "costs": {name: asdict(cost) for name, cost in result.costs.items()},
        "judgement": None if result.judgement is None else asdict(result.judgement),
        "cheapest_first": result.cheapest_first,
        "clusters": {"level": result.clusters.level, "count": result.clusters.count},
        "contrasts": [_contrast(contrast) for contrast in result.contrasts],
        "choosing": None if result.choosing is None else _contrast(result.choosing),
        "recommendation": asdict(result.recommendation),
        "questions": [
            {**asdict(question), "metadata": dict(question.metadata), "stratum": question.stratum}
            for question in result.questions
        ],
        "rows": [asdict(row) for row in result.rows],
        "passages": {node_id: asdict(passage) for node_id, passage in result.passages.items()},
    }
    return json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n"


def as_csv(result: ComparisonResult) -> str:
    """Write the scored answers as CSV text with a heading.

    Args:
        result: The comparison.

    Returns:
        One line for each question and strategy. Lists are JSON; a score that makes no sense is
        empty; a text that would be a formula begins with an apostrophe.
    """
    questions = {question.id: question for question in result.questions}
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for row in result.rows:
        question = questions[row.question_id]
        names = {node_id: result.passages[node_id].source_id for node_id in row.passages}
        cells = {
            **asdict(row),
            "cites_gold": row.cites_gold,
            "stratum": question.stratum,
            "question": question.question,
            "answers": list(question.answers),
            "reference": question.wanted,
            "cited": [names.get(citation.node_id or "") for citation in row.citations],
            "passages": list(names.values()),
        }
        writer.writerow({name: _cell(cells[name]) for name in _COLUMNS})
    return buffer.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


def _contrast(found: Contrast) -> dict[str, Any]:
    return {**asdict(found), "questions_needed": found.questions_needed}


def _arm(arm: ArmSummary) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for name in arm.__dataclass_fields__:
        value = getattr(arm, name)
        measured[name] = value
        if isinstance(value, Rate):
            ends = value.interval
            measured[name] = {
                "successes": value.successes,
                "trials": value.trials,
                "share": value.share,
                "interval": None if ends is None else [ends.low, ends.high],
            }
    return measured
