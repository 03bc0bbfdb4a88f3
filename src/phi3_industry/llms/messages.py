"""LlamaIndex messages become turns of a chat template, and token events become its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    LogProb,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)

from phi3_industry.engines.base import GenerationRequest, TokenEvent

__all__ = ["calls_as_text", "log_probabilities", "plain_message", "raw_response"]

_ROLES: Mapping[MessageRole, str] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    # Phi-3 has no turn for tool results; what a tool said is said to the model
    MessageRole.TOOL: "user",
    MessageRole.FUNCTION: "user",
}


def plain_message(message: ChatMessage) -> dict[str, str]:
    """Turn a LlamaIndex message into role and text; tool calls are JSON, as the model wrote them.

    Raises:
        ValueError: The message holds something else than text.
    """
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    others = [
        type(block).__name__
        for block in message.blocks
        if not isinstance(block, TextBlock | ToolCallBlock)
    ]
    if others:
        raise ValueError(
            f"A message holds {others}; Phi-3 reads text alone. Send TextBlocks, or describe the "
            "rest in words."
        )
    parts = [block.text for block in message.blocks if isinstance(block, TextBlock)]
    if calls:
        parts.append(calls_as_text(calls))
    return {"role": _ROLES[message.role], "content": "\n".join(parts)}


def calls_as_text(calls: Sequence[ToolCallBlock]) -> str:
    """Write tool calls in the form in which the model is made to write them."""
    listed = [{"name": call.tool_name, "arguments": call.tool_kwargs} for call in calls]
    return json.dumps({"tool_calls": listed}, ensure_ascii=False)


def raw_response(last: TokenEvent, request: GenerationRequest, *, model: str) -> dict[str, Any]:
    """Describe how an answer came about, as plain JSON."""
    raw: dict[str, Any] = {
        "model": model,
        "adapter": request.adapter,
        "finish_reason": last.finish_reason,
    }
    if last.usage is not None:
        raw["usage"] = {
            "prompt_tokens": last.usage.prompt_tokens,
            "completion_tokens": last.usage.completion_tokens,
            "total_tokens": last.usage.total_tokens,
        }
    return raw


def log_probabilities(
    events: Sequence[TokenEvent], request: GenerationRequest
) -> list[list[LogProb]] | None:
    """Give the log probability of each token, if they were asked for."""
    if not request.sampling.logprobs:
        return None
    return [
        [LogProb(token=event.text, logprob=event.logprob)]
        for event in events
        if event.logprob is not None
    ]
