"""Tool calling: tools as JSON in the prompt, calls as JSON that a grammar keeps valid."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from phi3_industry.engines.base import Grammar
from phi3_industry.engines.json_schema import text_or_json
from phi3_industry.errors import ConfigurationError, EngineError
from phi3_industry.llms.schemas import closed, hoist_definitions

__all__ = [
    "TOOL_INSTRUCTIONS",
    "ToolCalling",
    "offers_tools",
    "read_calls",
    "tool_grammar",
    "tool_message",
]

TOOL_INSTRUCTIONS = (
    '{tools}\n\nTo call tools, answer with {"tool_calls": [{"name": …, "arguments": {…}}]} alone.'
)
"""What a model is told about tools; ``{tools}`` stands for their description as JSON."""

_MOST_CALLS = 8
"""Calls that one answer may hold: a model that repeats itself would go on for ever."""


class ToolCalling(FunctionCallingLLM):
    """The part of an LLM that calls tools."""

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002 - LlamaIndex gives it
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give the arguments of ``chat`` that offer tools to the model.

        ``tool_choice`` may be ``"auto"``, ``"required"``, ``"none"`` or the name of a tool.
        """
        if tools and not self.metadata.is_function_calling_model:
            names = [tool.metadata.name for tool in tools]
            raise ConfigurationError(
                f"The tools {names} were given to '{self.metadata.model_name}', which calls no "
                "tools (metadata.is_function_calling_model is False): calls are kept valid by "
                "llguidance. Install it with pip install 'phi3-industry[constrained]', or use "
                "an agent that works through plain text, such as LlamaIndex's ReActAgent."
            )
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        return {
            "messages": [*(chat_history or []), *([user_msg] if user_msg else [])],
            "tools": [_describe(tool) for tool in tools],
            "tool_choice": _choice(tool_choice, tool_required=tool_required),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,
        **_: Any,
    ) -> list[ToolSelection]:
        """Give the calls of an answer.

        Raises:
            ValueError: There is none and ``error_on_no_tool_call`` is set.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(
                f"The model called no tool; it said {response.message.content!r}. Pass "
                "tool_required=True to make it call one."
            )
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=call.tool_kwargs if isinstance(call.tool_kwargs, dict) else {},
            )
            for call in calls
        ]


def offers_tools(options: Mapping[str, Any]) -> bool:
    """Say whether the options of a call let the model call tools."""
    return bool(options.get("tools")) and options.get("tool_choice") != "none"


def tool_grammar(tools: Sequence[Mapping[str, Any]], *, choice: str, parallel: bool) -> Grammar:
    """Build the grammar of answers that call tools.

    Args:
        tools: ``{"name", "description", "parameters"}`` each.
        choice: ``"auto"`` lets the model talk instead, as long as it does not begin with a
            brace; ``"required"`` makes it call; the name of a tool makes it call that one.
        parallel: Whether an answer may hold several calls.

    Raises:
        ValueError: There is no tool of that name.
    """
    offered = [tool for tool in tools if choice in ("auto", "required", tool["name"])]
    if not offered:
        names = [tool["name"] for tool in tools]
        raise ValueError(f"tool_choice is '{choice}'; the tools are {names}.")
    calls: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for number, tool in enumerate(offered):
        arguments, own = hoist_definitions(closed(tool["parameters"]), prefix=f"t{number}_")
        definitions.update(own)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema = {
        "type": "object",
        "properties": {
            "tool_calls": {
                "type": "array",
                "items": {"anyOf": calls},
                "minItems": 1,
                "maxItems": _MOST_CALLS if parallel else 1,
            }
        },
        "required": ["tool_calls"],
        "additionalProperties": False,
        "$defs": definitions,
    }
    if choice == "auto":
        return text_or_json(schema)
    return Grammar(kind="json_schema", text=json.dumps(schema))


def read_calls(text: str) -> list[ToolCallBlock]:
    """Read the calls of a complete answer; there are none in plain text."""
    if not text.lstrip().startswith("{"):
        return []
    try:
        calls = json.loads(text)["tool_calls"]
    except ValueError as error:
        raise EngineError(
            f"The tool call broke off ({error}): {text!r}. Raise max_new_tokens."
        ) from error
    return [
        ToolCallBlock(
            tool_call_id=f"call_{uuid.uuid4().hex[:16]}",
            tool_name=call["name"],
            tool_kwargs=call["arguments"],
        )
        for call in calls
    ]


def tool_message(tools: Sequence[Mapping[str, Any]], *, instructions: str) -> str:
    """Describe tools to the model."""
    described = json.dumps({"tools": list(tools)}, ensure_ascii=False)
    # no str.format: the instructions hold braces of their own
    return instructions.replace("{tools}", described)


def _describe(tool: BaseTool) -> dict[str, Any]:
    return {
        "name": tool.metadata.get_name(),
        "description": tool.metadata.description,
        "parameters": tool.metadata.get_parameters_dict(),
    }


def _choice(choice: str | Mapping[str, Any] | None, *, tool_required: bool) -> str:
    """Read ``tool_choice`` in the forms that LlamaIndex and its users give it."""
    if isinstance(choice, Mapping):
        return str(choice["function"]["name"])
    return choice or ("required" if tool_required else "auto")
