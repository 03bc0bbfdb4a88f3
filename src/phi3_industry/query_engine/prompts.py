"""The engine's prompts as LlamaIndex's templates, to be read and replaced by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from llama_index.core.chat_engine.condense_question import DEFAULT_PROMPT as CONDENSE_QUESTION
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType

from phi3_industry.errors import ConfigurationError
from phi3_industry.grounding.prompt import GroundingPrompt

__all__ = ["CONDENSE_QUESTION", "CONDENSE_QUESTION_KEY", "read_prompts", "replace_prompts"]

CONDENSE_QUESTION_KEY = "condense_question"
"""The template that makes a follow-up a question of its own; the others are GroundingPrompt's."""


def read_prompts(prompt: GroundingPrompt, condense: BasePromptTemplate) -> PromptDictType:
    """Give all prompts by name; those of the grounding prompt are named after its fields."""
    texts = {name: PromptTemplate(text) for name, text in asdict(prompt).items()}
    return {**texts, CONDENSE_QUESTION_KEY: condense}


def replace_prompts(prompt: GroundingPrompt, given: Mapping[str, object]) -> GroundingPrompt:
    """Give the grounding prompt with other texts.

    Args:
        prompt: The prompt as it is.
        given: Templates or texts by the names of :func:`read_prompts`.

    Raises:
        ConfigurationError: A name is unknown.
    """
    known = set(asdict(prompt)) | {CONDENSE_QUESTION_KEY}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigurationError(
            f"There are no prompts {unknown} here; there are {sorted(known)}. The question and "
            "the passages are put in between by the engine, for training and serving alike."
        )
    texts = {
        name: template.get_template() if isinstance(template, BasePromptTemplate) else str(template)
        for name, template in given.items()
        if name != CONDENSE_QUESTION_KEY
    }
    return replace(prompt, **texts)
