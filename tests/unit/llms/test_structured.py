from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator

from phi3_industry import Phi3LLM
from phi3_industry.engines.base import Grammar
from phi3_industry.errors import ConfigurationError, EngineError
from random_schemas import random_schema
from tiny_models import save_random_adapter, save_tiny_phi3

SCHEMAS = 200
PROMPT = PromptTemplate("Describe {tag}.")
MESSAGES = [ChatMessage(role="user", content="Describe P-4471.")]


class Medium(StrEnum):
    WATER = "Wasser"
    STEAM = "蒸汽"


class Nozzle(BaseModel):
    """One connection."""

    size: Annotated[str, StringConstraints(pattern=r"^DN\d{2,3}$")]
    medium: Medium
    notes: str | None = None


class Inlet(BaseModel):
    kind: Literal["inlet"]
    nozzle: Nozzle


class Outlet(BaseModel):
    kind: Literal["outlet"]
    angle_deg: float = Field(ge=0, lt=360)


class Pump(BaseModel):
    """A pump as its data sheet describes it."""

    tag: Annotated[str, StringConstraints(min_length=2, max_length=12)]
    pressure_bar: float = Field(ge=0, le=400, alias="pressure (bar)")
    installed: date
    serial: UUID
    nozzles: list[Nozzle] = Field(min_length=1, max_length=2)
    ports: list[Annotated[Inlet | Outlet, Field(discriminator="kind")]] = Field(max_length=2)
    spares: dict[str, int] = Field(default_factory=dict, max_length=2)
    running: bool


class Tree(BaseModel):
    name: str
    parts: list[Tree]


# LlamaIndex's StructuredLLM streams through a method that pydantic is about to drop
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Phi3LLM:
    """A tiny random Phi-3 with two adapters, whose window holds schemas."""
    folder = save_tiny_phi3(
        tmp_path_factory.mktemp("tiny"),
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
    )
    llm = Phi3LLM(model=str(folder), max_new_tokens=240)
    for number in (1, 2):
        adapter = save_random_adapter(tmp_path_factory.mktemp("adapter") / "a", folder, seed=number)
        llm.load_adapter(adapter, name=f"a{number}")
    return llm


def ask(llm: Phi3LLM, seed: int, **options: Any) -> Any:
    schema = random_schema(seed)
    grammar = Grammar(kind="json_schema", text=json.dumps(schema))
    answer = llm.chat(
        [ChatMessage(role="user", content=f"P-{seed}")],
        grammar=grammar,
        temperature=1.5,
        seed=seed,
        **options,
    )
    value = json.loads(answer.message.content or "")
    Draft202012Validator(schema).validate(value)
    return value


# --- every answer validates ---------------------------------------------------------------------


def test_all_of_200_schemas_validate_in_batches_with_adapters_and_free_requests(
    llm: Phi3LLM,
) -> None:
    free = llm.chat(MESSAGES, max_new_tokens=24).message.content

    def one(number: int) -> Any:
        if number % 3 == 0:  # one in three shares the batch without a grammar
            assert llm.chat(MESSAGES, max_new_tokens=24).message.content == free
        view = llm.with_adapter((None, "a1", "a2")[number % 3])
        return ask(view, number)

    with ThreadPoolExecutor(12) as threads:
        values = list(threads.map(one, range(SCHEMAS)))
    assert len({json.dumps(value) for value in values}) > 0.9 * SCHEMAS


def test_the_embedded_model_obeys_schemas(embedded_llm: Phi3LLM) -> None:
    for seed in range(6):
        ask(embedded_llm, seed, max_new_tokens=120)


def test_pydantic_objects_of_every_kind_come_back_whole(llm: Phi3LLM) -> None:
    tags = [f"P-{number}" for number in range(4)]
    options = {"temperature": 1.5, "max_new_tokens": 400}
    with ThreadPoolExecutor(4) as threads:
        pumps = list(
            threads.map(
                lambda tag: llm.with_adapter("a1").structured_predict(
                    Pump, PROMPT, llm_kwargs={**options, "seed": 1}, tag=tag
                ),
                tags,
            )
        )
    for pump in pumps:
        assert isinstance(pump, Pump)
        assert 0 <= pump.pressure_bar <= 400
        assert all(nozzle.size.startswith("DN") for nozzle in pump.nozzles)
    tree = llm.structured_predict(Tree, PROMPT, llm_kwargs={"temperature": 1.0, "seed": 3}, tag="x")
    assert isinstance(tree, Tree)


def test_all_ways_to_ask_give_the_same_object(llm: Phi3LLM) -> None:
    expected = llm.structured_predict(Nozzle, PROMPT, tag="N1")
    streamed = list(llm.stream_structured_predict(Nozzle, PROMPT, tag="N1"))
    assert streamed[-1] == expected
    assert len(streamed) > 2
    assert [item for item in streamed[:-1] if getattr(item, "size", None)]

    async def wait() -> list[Any]:
        stream = await llm.astream_structured_predict(Nozzle, PROMPT, tag="N1")
        return [
            await llm.astructured_predict(Nozzle, PROMPT, tag="N1"),
            [item async for item in stream][-1],
        ]

    assert asyncio.run(wait()) == [expected, expected]
    structured = llm.as_structured_llm(Nozzle)
    prompt = PROMPT.format(tag="N1")
    assert structured.complete(prompt).raw == expected
    assert structured.chat([ChatMessage(role="user", content=prompt)]).raw == expected
    *_, last = structured.stream_chat([ChatMessage(role="user", content=prompt)])
    assert last.raw == expected


def test_the_model_is_told_the_schema_and_the_system_prompt(llm: Phi3LLM) -> None:
    wording = "Antworte als JSON {schema} und {nichts} sonst."
    llm = llm.model_copy(
        update={"system_prompt": "Fasse dich kurz.", "schema_instructions": wording}
    )
    messages, options = llm._structured_call(Nozzle, PROMPT, None, {"tag": "N1"})
    assert [message.role.value for message in messages] == ["system", "user"]
    told = messages[0].content or ""
    assert told.startswith("Fasse dich kurz.\n\nAntworte als JSON {")
    assert told.endswith("} und {nichts} sonst.")
    assert "One connection." in told  # what the class says of itself
    request = llm._chat_request(messages, options=options)
    text = llm._shared.engine.loaded.tokenizer.decode(list(request.prompt_ids))
    assert text.count("Fasse dich kurz.") == 1


# --- budgets ------------------------------------------------------------------------------------


def test_a_cut_object_is_whole_and_says_that_it_was_cut(llm: Phi3LLM) -> None:
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["text", "n"],
        "additionalProperties": False,
    }
    grammar = Grammar(kind="json_schema", text=json.dumps(schema))
    answer = llm.chat(MESSAGES, grammar=grammar, max_new_tokens=24, temperature=1.5, seed=1)
    Draft202012Validator(schema).validate(json.loads(answer.message.content or ""))
    assert (answer.raw or {})["finish_reason"] == "length"
    assert (answer.raw or {})["usage"]["completion_tokens"] <= 24


def test_a_budget_below_the_shortest_object_is_refused(llm: Phi3LLM) -> None:
    with pytest.raises(ConfigurationError, match=r"takes \d+ tokens and max_new_tokens is 5"):
        llm.structured_predict(Pump, PROMPT, llm_kwargs={"max_new_tokens": 5}, tag="x")
    assert llm.structured_predict(Nozzle, PROMPT, tag="x")  # the next one is well


def test_an_object_that_broke_off_is_an_error(
    llm: Phi3LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Phi3LLM.chat

    def broken(self: Phi3LLM, messages: Any, **options: Any) -> Any:
        answer = chat(self, messages, **options)
        answer.message.content = (answer.message.content or "")[:-1]
        return answer

    monkeypatch.setattr(Phi3LLM, "chat", broken)
    with pytest.raises(EngineError, match=r"no complete Nozzle: it broke off after \d+ tokens"):
        llm.structured_predict(Nozzle, PROMPT, tag="x")


def test_stop_texts_do_not_cut_an_object(llm: Phi3LLM) -> None:
    stopping = llm.model_copy(update={"stop": ['"', ":"]})
    assert stopping.structured_predict(Nozzle, PROMPT, tag="x")
    with pytest.raises(ValueError, match="a stop text would cut it"):
        llm.structured_predict(Nozzle, PROMPT, llm_kwargs={"stop": ["}"]}, tag="x")


# --- what a schema cannot say -------------------------------------------------------------------


class Picky(BaseModel):
    word: Literal["a", "b"]

    @field_validator("word")
    @classmethod
    def never(cls, word: str) -> str:
        raise ValueError("no word is good enough")


def test_validators_beyond_the_schema_are_heard(llm: Phi3LLM) -> None:
    with pytest.raises(ValidationError, match="no word is good enough"):
        llm.structured_predict(Picky, PROMPT, tag="x")


class Unusual(BaseModel):
    tags: set[str]


def test_a_schema_that_cannot_be_enforced_is_refused_by_place(llm: Phi3LLM) -> None:
    with pytest.raises(ConfigurationError, match="at '#/properties/tags': Unimplemented keys"):
        llm.structured_predict(Unusual, PROMPT, tag="x")
