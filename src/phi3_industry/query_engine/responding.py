"""A plan is carried out: the LLM is asked, and its answer is checked and described."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.schema import NodeWithScore

from phi3_industry.query_engine.answers import (
    CheckedAnswer,
    Unsupported,
    check_answer,
    check_closed_book,
)
from phi3_industry.query_engine.conflicts import Conflicts, bears, find_conflict
from phi3_industry.query_engine.evidence import EvidenceRules, source_text
from phi3_industry.query_engine.models import Models, token_usage
from phi3_industry.query_engine.planning import Plan
from phi3_industry.query_engine.provenance import trace_answer

__all__ = ["Responder"]


@dataclass(frozen=True, kw_only=True)
class Responder:
    """Asks, and turns replies into responses with their metadata.

    Attributes:
        models: Who answered.
        rules: What counts as evidence.
        abstention: What an abstaining answer says; ``None`` for the prompt's own.
        unsupported: What becomes of an answer that no passage bears.
        conflicts: What becomes of an answer that other passages contradict.
        provenance: Whether to trace each answer to passages and weights.
    """

    models: Models
    rules: EvidenceRules
    abstention: str | None
    unsupported: Unsupported
    conflicts: Conflicts
    provenance: bool

    def answer(self, plan: Plan) -> Response:
        """Ask, and give the checked answer."""
        reply = plan.draft if plan.takes_draft else None
        if reply is None and plan.llm is not None:
            reply = plan.llm.chat(plan.messages)
        metadata = self.begin(plan)
        answer = self.finish(plan, metadata, reply)
        return Response(response=answer, source_nodes=_sources(plan), metadata=metadata)

    async def aanswer(self, plan: Plan) -> Response:
        """Ask without blocking the event loop."""
        reply = plan.draft if plan.takes_draft else None
        if reply is None and plan.llm is not None:
            reply = await plan.llm.achat(plan.messages)
        metadata = self.begin(plan)
        answer = await asyncio.to_thread(self.finish, plan, metadata, reply)
        return Response(response=answer, source_nodes=_sources(plan), metadata=metadata)

    def stream(self, plan: Plan) -> StreamingResponse:
        """Ask piece by piece; the metadata is whole when the stream has ended."""
        metadata = self.begin(plan)

        def tokens() -> Iterator[str]:
            last = plan.draft if plan.takes_draft else None
            if plan.llm is None:
                yield self.abstention_of(plan)
            elif last is not None:
                yield last.message.content or ""
            else:
                for last in plan.llm.stream_chat(plan.messages):
                    yield last.delta or ""
            metadata["answer"] = self.finish(plan, metadata, last)

        return StreamingResponse(
            response_gen=tokens(),  # type: ignore[arg-type] # any iterator of texts will do
            source_nodes=_sources(plan),
            metadata=metadata,
        )

    def astream(self, plan: Plan) -> AsyncStreamingResponse:
        """Ask piece by piece without blocking the event loop."""
        metadata = self.begin(plan)

        async def tokens() -> AsyncIterator[str]:
            last = plan.draft if plan.takes_draft else None
            if plan.llm is None:
                yield self.abstention_of(plan)
            elif last is not None:
                yield last.message.content or ""
            else:
                async with aclosing(await plan.llm.astream_chat(plan.messages)) as pieces:
                    async for last in pieces:
                        yield last.delta or ""
            finish = self.finish
            metadata["answer"] = await asyncio.to_thread(finish, plan, metadata, last)

        return AsyncStreamingResponse(
            response_gen=tokens(),  # type: ignore[arg-type] # any async iterator will do
            source_nodes=_sources(plan),
            metadata=metadata,
        )

    def abstention_of(self, plan: Plan) -> str:
        """The whole text of an answer that abstains."""
        return plan.prompt.abstention_answer if self.abstention is None else self.abstention

    def begin(self, plan: Plan) -> dict[str, Any]:
        """Give the metadata that is known before the answer."""
        ground = "none" if plan.llm is None else "weights" if plan.closed_book else "passages"
        metadata: dict[str, Any] = {
            "strategy": plan.choice.strategy.value,
            "reason": plan.choice.reason,
            "ground": ground,
            "adapter": plan.adapter,
            "model": (plan.llm or self.models.base).metadata.model_name,
        }
        if plan.signals is not None:
            metadata["signals"] = plan.signals.to_json()
        return metadata

    def finish(self, plan: Plan, metadata: dict[str, Any], reply: ChatResponse | None) -> str:
        """Check a finished answer, complete the metadata, and give the answer's text."""
        raw = "" if reply is None else (reply.message.content or "").strip()
        passages = [source_text(node) for node in plan.shown]
        node_ids = [node.node.node_id for node in plan.shown]
        abstention = self.abstention_of(plan)
        second = None
        if plan.closed_book:
            checked = check_closed_book(raw, prompt=plan.prompt, abstention=abstention)
        else:
            checked = check_answer(
                raw,
                passages,
                prompt=plan.prompt,
                abstention=abstention,
                unsupported=self.unsupported,
            )
            if self.conflicts != "ignore" and checked.supported:
                conflict, second = find_conflict(plan, checked, rules=self.rules)
                if conflict is not None:
                    checked = conflict.answer(self.conflicts, abstention=abstention)
                    metadata["conflict"] = conflict.describe(node_ids)
                    metadata["reason"] += f" {conflict.reason}"
        metadata |= checked.describe(node_ids)
        wasted = None if plan.takes_draft else plan.draft
        metadata["usage"] = token_usage(reply, second, wasted)
        if reply is not None and checked.text != raw:
            metadata["raw_answer"] = raw
        if plan.superseded:
            metadata["superseded"] = _describe_superseded(plan, checked)
        if self.provenance:
            metadata["provenance"] = self._trace(plan, raw) if raw else None
        return checked.text

    def _trace(self, plan: Plan, raw: str) -> dict[str, Any]:
        llm: Any = plan.llm  # checked when the engine was made: it scores
        base: Any = self.models.base if plan.adapter is not None else None
        return trace_answer(
            raw,
            question=plan.question,
            passages=plan.shown_texts,
            node_ids=[node.node.node_id for node in plan.shown],
            prompt=plan.prompt,
            llm=llm,
            base_llm=base,
        )


def _sources(plan: Plan) -> list[NodeWithScore]:
    return [*plan.shown, *(old.older for old in plan.superseded)]


def _describe_superseded(plan: Plan, checked: CheckedAnswer) -> list[dict[str, Any]]:
    """Cite the older versions, and say whether they say the same.

    They follow the passages of the prompt among the response's sources, numbered on.
    """
    claims = [citation.claim for citation in checked.bearing]
    described = []
    for number, old in enumerate(plan.superseded, start=len(plan.shown) + 1):
        text = source_text(old.older)
        described.append(
            {
                "marker": number,
                "node_id": old.older.node.node_id,
                "date": old.older_date,
                "newer_node_id": old.newer_id,
                "newer_date": old.newer_date,
                "agrees": all(bears(text, claim) for claim in claims) if claims else None,
            }
        )
    return described
