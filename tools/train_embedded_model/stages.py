"""The stages of training, easy to hard; a stage is left on exact match, never on the clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .conversations import Difficulty

__all__ = ["ALL_SHAPES", "STAGES", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        difficulty: What its conversations look like.
        promote_at: Share of held-out answers that must be exact to go on to the next stage.
        recall: Share of items that are random tokens to recall.
    """

    difficulty: Difficulty
    promote_at: float
    recall: float = 0.04


ALL_SHAPES = Difficulty(
    passages=(1, 6),
    questions=12,
    max_facts=4,
    max_columns=10,
    mixed_share=0.3,
    filler=0.5,
    unanswerable=0.32,
)
"""What scores are taken on, and the vocabulary is learned from."""

STAGES = (
    Stage(
        difficulty=Difficulty(
            passages=(2, 3),
            questions=5,
            unanswerable=0.0,
            closed_book=0.0,
            real_text=0.0,
            default_prompt=1.0,
            drills=1.0,
        ),
        promote_at=0.75,
        recall=0.4,
    ),
    Stage(
        difficulty=Difficulty(
            passages=(1, 3),
            questions=12,
            max_facts=2,
            max_columns=3,
            mixed_share=0.1,
            filler=0.2,
            unanswerable=0.3,
            drills=0.2,
        ),
        promote_at=0.6,
    ),
    Stage(
        difficulty=Difficulty(
            passages=(1, 5), questions=12, max_facts=3, max_columns=5, drills=0.05
        ),
        promote_at=0.55,
    ),
    Stage(difficulty=ALL_SHAPES, promote_at=0.84),
    Stage(
        difficulty=replace(ALL_SHAPES, unanswerable=0.33, many_wordings=0.35, near_misses=0.2),
        promote_at=1.1,
    ),
)
"""The last stage is never left."""
