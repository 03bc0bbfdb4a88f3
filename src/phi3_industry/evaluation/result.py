"""What came of a comparison: the answers, the verdict, and their forms for reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

from phi3_industry.evaluation.arms import ArmSummary, summarise
from phi3_industry.evaluation.contrasts import (
    Clusters,
    Contrast,
    Measure,
    cluster_questions,
    contrast,
    planned_contrasts,
)
from phi3_industry.evaluation.costs import ArmCost, Prices, Upkeep, cheapest_first, cost_arms
from phi3_industry.evaluation.export import as_csv, as_json
from phi3_industry.evaluation.judging import Judgement
from phi3_industry.evaluation.report import render_report
from phi3_industry.evaluation.rows import AnswerRow, Passage
from phi3_industry.evaluation.strata import StratumSummary, summarise_strata
from phi3_industry.evaluation.table import summary_text, tables
from phi3_industry.evaluation.verdict import Recommendation, recommend
from phi3_industry.evaluation.ways import AUTO, PLAIN
from phi3_industry.grounding.questions import Question

__all__ = ["ComparisonResult"]


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """What came of asking the same questions under several strategies.

    Attributes:
        questions: The questions.
        strategies: The strategies, the cheapest first.
        rows: One scored answer for each question and strategy, by question and then strategy.
        passages: Every passage that a strategy was shown, by node id.
        seed: Seed of the bootstrap.
        margin: The loss that one would accept for a lower price, as a share.
        prices: What tokens, the machine and fine-tuning cost, if that is known.
        upkeep: How long fine-tuning and indexing take, if that is known.
        judgement: What a judge said of the answers, if there was one.
        settings: What the engine says of itself, such as its model.
    """

    questions: tuple[Question, ...]
    strategies: tuple[str, ...]
    rows: tuple[AnswerRow, ...]
    passages: Mapping[str, Passage]
    seed: int = 0
    margin: float = 0.02
    prices: Prices | None = None
    upkeep: Upkeep | None = None
    judgement: Judgement | None = None
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return self.summary()

    @cached_property
    def by_strategy(self) -> dict[str, list[AnswerRow]]:
        """The answers of each strategy, in the order of the questions."""
        return {
            name: [row for row in self.rows if row.strategy == name] for name in self.strategies
        }

    @cached_property
    def arms(self) -> dict[str, ArmSummary]:
        """What each strategy reached."""
        return {name: summarise(name, rows) for name, rows in self.by_strategy.items()}

    @cached_property
    def clusters(self) -> Clusters:
        """Which questions were drawn together for the intervals of differences."""
        return cluster_questions(self.questions, self.passages.values())

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons that were planned before the answers were seen."""
        return planned_contrasts(self.by_strategy, clusters=self.clusters, seed=self.seed)

    @cached_property
    def strata(self) -> tuple[StratumSummary, ...]:
        """What each strategy reached on each kind of question."""
        return summarise_strata(
            self.questions, self.by_strategy, clusters=self.clusters, seed=self.seed
        )

    @cached_property
    def costs(self) -> dict[str, ArmCost]:
        """What each strategy costs; empty without prices."""
        return cost_arms(self.arms, self.prices, self.upkeep) if self.prices else {}

    @cached_property
    def cheapest_first(self) -> list[str]:
        """The strategies in the order of their cost; the verdict goes by it."""
        return cheapest_first(self.arms, self.costs)

    @cached_property
    def recommendation(self) -> Recommendation:
        """The verdict; printing it prints its sentence."""
        return recommend(
            {name: self.by_strategy[name] for name in self.cheapest_first},
            clusters=self.clusters,
            margin=self.margin,
            seed=self.seed,
        )

    @cached_property
    def choosing(self) -> Contrast | None:
        """``auto`` against the best of the fixed strategies, on all questions treated rightly.

        The best is picked from the same answers, which favours it a little; ``None`` if ``auto``
        was not asked, or nothing beside it.
        """
        fixed = [name for name in self.strategies if name not in (AUTO, *PLAIN.values())]
        if AUTO not in self.strategies or not fixed:
            return None
        best = max(fixed, key=lambda name: self.arms[name].right.successes)
        return contrast(
            self.by_strategy,
            AUTO,
            best,
            measure="right",
            clusters=self.clusters,
            seed=self.seed,
        )

    @property
    def reading_harm(self) -> Contrast | None:
        """What the adapter costs, or gains, in reading.

        Right values with passages and adapter less those with passages alone, so that a negative
        difference is harm; ``None`` if one of the two was not asked.
        """
        asked = {"rag", "rag_fine_tuned"} <= set(self.strategies) and self.contrasts
        return self.find("rag_fine_tuned", "rag", measure="value_match") if asked else None

    def find(self, first: str, second: str, *, measure: Measure = "right") -> Contrast:
        """Give a planned contrast.

        Args:
            first: The strategy that is looked at.
            second: The strategy it is compared with.
            measure: ``"right"`` or ``"value_match"``.

        Returns:
            The contrast.

        Raises:
            KeyError: It was not planned, or one of the strategies was not asked.
        """
        for found in self.contrasts:
            if (found.measure, found.first, found.second) == (measure, first, second):
                return found
        known = [f"{one.first} - {one.second} on {one.measure}" for one in self.contrasts]
        raise KeyError(
            f"There is no contrast {first} - {second} on {measure}; there are: "
            f"{', '.join(known) or 'none'}."
        )

    def table(self) -> str:
        """The strategies side by side, as plain text of at most 100 columns.

        Below stand the kinds of questions, if there are several, and the costs, if prices are
        known.
        """
        return tables(self)

    def summary(self) -> str:
        """The table, the verdict, and what to know about them."""
        return summary_text(self)

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write everything, answers and passages included, as one JSON file.

        Args:
            path: The file; one that is there is replaced.
        """
        # half a surrogate pair, which a questions file can hold, is escaped and stays valid JSON
        Path(path).write_text(as_json(self), encoding="utf-8", errors="backslashreplace")

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the scored answers as CSV, one line for each question and strategy.

        A text that a spreadsheet would take for a formula gets an apostrophe before it.

        Args:
            path: The file, in UTF-8; one that is there is replaced.
        """
        Path(path).write_text(as_csv(self), encoding="utf-8", errors="backslashreplace", newline="")

    def to_html(
        self,
        path: str | PathLike[str],
        *,
        title: str = "RAG, fine-tuning, or both?",
        date: str = "",
        settings: Mapping[str, str] | None = None,
        figures: Mapping[str, str] | None = None,
    ) -> None:
        """Write the report: one file that needs no other and runs no script.

        Args:
            path: The file; one that is there is replaced.
            title: Its heading.
            date: When the questions were asked, as it is to be printed.
            settings: More of what should be known, such as the hardware, by name.
            figures: Pictures to show, such as a loss curve, by caption: each a ``data:`` URI, see
                :func:`phi3_industry.evaluation.report.image_data_uri`.

        Raises:
            ValueError: A figure is no ``data:`` URI of an image.
        """
        page = render_report(
            self, title=title, date=date, settings=settings or {}, figures=figures or {}
        )
        Path(path).write_text(page, encoding="utf-8")
