"""The 31 defects of LlamaIndex's HuggingFaceLLM, none of which may hold for Phi3LLM.

No.  Defect there                                         Test here or in a neighbouring file
---  ---------------------------------------------------  ------------------------------------------
 1   options of a call are dropped                        test_options_of_a_call_are_obeyed
 2   max_new_tokens and stop texts raise TypeErrors       test_options_of_a_call_are_obeyed
 3   stops are single tokens of the first row, untrimmed  test_each_row_of_a_batch_has_its_own_stop_texts
 4   the first token is there twice                       test_the_first_token_is_there_once
 5   an error in a stream hangs its reader                test_an_error_reaches_every_kind_of_caller
 6   a closed stream computes on                          test_a_closed_stream_stops_within_two_tokens
 7   stream_complete skips the template                   test_completion_to_prompt_holds_for_every_completion
 8   the system prompt is lost                            test_the_system_prompt_is_in_every_call_once
 9   asynchronous calls block                             test_async_calls_leave_the_event_loop_free
10   no batches                                           test_concurrent_requests_share_passes
11   another model's tokenizer by default                 test_tokenizer_and_name_are_those_of_the_checkpoint
12   another model's name in the metadata                 test_tokenizer_and_name_are_those_of_the_checkpoint
13   a made-up context window, never checked              test_a_prompt_that_does_not_fit_is_refused_with_the_numbers
14   budgets in another model's tokens                    test_prompt_helpers_count_with_the_model
15   two events for one call                              test_each_of_the_eight_endpoints_is_one_event_and_one_span
16   no usage                                             test_raw_is_json_with_exact_usage_on_the_last_piece_too
17   tensors in raw                                       test_raw_is_json_with_exact_usage_on_the_last_piece_too
18   roles and contents that the template refuses         test_roles_of_llamaindex_have_their_place
19   not a chat model by default                          test_metadata_comes_from_the_model_without_loading_weights
20   control tokens in documents                          test_control_tokens_in_a_message_stay_text
21   no tool calling                                      test_a_function_agent_calls_its_tool_and_answers
22   structured output by hope                            test_all_of_200_schemas_validate_in_batches_with_adapters_and_free_requests
23   no adapters                                          test_views_share_the_weights_and_keep_their_adapters
24   dropout at inference                                 test_a_model_that_was_in_training_answers_without_dropout
25   no thread safety                                     test_no_thread_gets_the_answer_of_another_adapter
26   from_dict(to_dict()) raises                          test_settings_survive_being_written_down
27   pickling destroys the live object                    test_settings_survive_being_written_down
28   no seed, log probabilities, finish reason            test_options_of_a_call_are_obeyed
29   nothing is reused between prompts                    test_a_shared_beginning_is_read_once
30   torch at import, a device_map that is only text      test_rooms_are_imported_without_torch
31   program modes and output parsers fail in streams     test_an_output_parser_works_in_streams_too
"""  # fmt: skip  # noqa: E501

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import BaseOutputParser, PydanticProgramMode
from pydantic import BaseModel, PrivateAttr

from phi3_industry import Phi3LLM
from tiny_models import save_random_adapter, save_tiny_phi3

MESSAGES = [ChatMessage(role="user", content="What is the discharge pressure of P-4471?")]


def test_every_defect_has_a_test_that_exists() -> None:
    rows = re.findall(r"^ ?(\d+)   .*  (test_\w+)$", __doc__ or "", flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 32))
    here = Path(__file__).parent
    files = [*here.glob("test_*.py"), here.parent / "test_guards.py"]
    sources = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for number, name in rows:
        assert f"def {name}(" in sources, f"{number}: {name}"


def test_each_row_of_a_batch_has_its_own_stop_texts(tiny_llm: Phi3LLM) -> None:
    questions = [f"What is the pressure of P-{number}?" for number in range(6)]
    whole = [tiny_llm.complete(question).text for question in questions]
    stops = [text[number + 1 : number + 4] for number, text in enumerate(whole)]
    expected = [text[: text.index(stop)] for text, stop in zip(whole, stops, strict=True)]
    assert len(set(expected)) > 3

    def ask(number: int) -> str:
        return tiny_llm.complete(questions[number], stop=[stops[number]]).text

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, range(6))) == expected


def test_the_first_token_is_there_once(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = save_tiny_phi3(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # as Llama's: the tokenizer adds the token, and the template writes it out
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    llm = Phi3LLM(model=str(folder), max_new_tokens=2)
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "P-4471"}], add_generation_prompt=True, return_dict=False
    )
    request = llm._chat_request([ChatMessage(role="user", content="P-4471")], options={})
    assert list(request.prompt_ids) == list(expected)
    assert request.prompt_ids.count(1) == 1


def test_completion_to_prompt_holds_for_every_completion(tiny_phi3: Path) -> None:
    def wrap(prompt: str) -> str:
        return f"Question: {prompt}"

    plain = Phi3LLM(model=str(tiny_phi3), max_new_tokens=8)
    llm = Phi3LLM(model=str(tiny_phi3), max_new_tokens=8, completion_to_prompt=wrap)
    expected = plain.complete("Question: P-1?").text
    assert expected != plain.complete("P-1?").text
    assert llm.complete("P-1?").text == expected
    assert "".join(item.delta or "" for item in llm.stream_complete("P-1?")) == expected

    async def wait() -> tuple[str, str]:
        stream = await llm.astream_complete("P-1?")
        return (await llm.acomplete("P-1?")).text, "".join(
            [item.delta or "" async for item in stream]
        )

    assert asyncio.run(wait()) == (expected, expected)


def test_concurrent_requests_share_passes(tiny_llm: Phi3LLM) -> None:
    engine = tiny_llm.load()._shared.engine
    alone = tiny_llm.chat(MESSAGES).message.content
    one = engine.statistics.passes

    async def ask() -> list[str | None]:
        answers = await asyncio.gather(*(tiny_llm.achat(MESSAGES) for _ in range(8)))
        return [answer.message.content for answer in answers]

    assert asyncio.run(ask()) == [alone] * 8
    assert engine.statistics.passes - one < 4 * one


def test_tokenizer_and_name_are_those_of_the_checkpoint(tiny_phi3: Path) -> None:
    from transformers import AutoTokenizer

    llm = Phi3LLM(model=str(tiny_phi3))
    assert llm.metadata.model_name == tiny_phi3.name
    own = AutoTokenizer.from_pretrained(tiny_phi3)
    assert llm._shared.engine.loaded.tokenizer.get_vocab() == own.get_vocab()


def test_prompt_helpers_count_with_the_model(
    tiny_llm: Phi3LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT

    for name in ("_llm", "_tokenizer", "_prompt_helper"):
        monkeypatch.setattr(Settings, name, None)
    assert tiny_llm.bind_settings() is tiny_llm
    assert Settings.llm is tiny_llm
    assert Settings.tokenizer("P-4471") == tiny_llm.tokenize("P-4471")
    chunks = ["Größe 名称 pressure " * 40] * 5
    packed = Settings.prompt_helper.repack(DEFAULT_TEXT_QA_PROMPT, chunks, llm=tiny_llm)
    assert len(packed) > 1
    for chunk in packed:  # what the helper makes fits, and wastes little
        prompt = DEFAULT_TEXT_QA_PROMPT.format(context_str=chunk, query_str="")
        tokens = tiny_llm.count_tokens([{"role": "user", "content": prompt}])
        assert tokens <= 512 - 16
    assert tokens > 0
    helper = tiny_llm.chat_prompt_helper()
    assert helper.context_window < tiny_llm.metadata.context_window


class _Events(BaseEventHandler):
    _names: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **_: Any) -> None:
        self._names.append(type(event).__name__)


class _Spans(SimpleSpanHandler):
    _names: list[str] = PrivateAttr(default_factory=list)

    def new_span(self, id_: str, *args: Any, **kwargs: Any) -> SimpleSpan | None:
        self._names.append(id_.rsplit("-", 5)[0])
        return super().new_span(id_, *args, **kwargs)


def test_each_of_the_eight_endpoints_is_one_event_and_one_span(tiny_llm: Phi3LLM) -> None:
    events, spans = _Events(), _Spans()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(events)
    dispatcher.add_span_handler(spans)

    async def ask() -> None:
        await tiny_llm.achat(MESSAGES)
        await tiny_llm.acomplete("x")
        async for _ in await tiny_llm.astream_chat(MESSAGES):
            pass
        async for _ in await tiny_llm.astream_complete("x"):
            pass

    try:
        tiny_llm.chat(MESSAGES)
        tiny_llm.complete("x")
        list(tiny_llm.stream_chat(MESSAGES))
        list(tiny_llm.stream_complete("x"))
        asyncio.run(ask())
    finally:
        dispatcher.event_handlers.remove(events)
        dispatcher.span_handlers.remove(spans)
    for kind in ("Chat", "Completion"):
        assert events._names.count(f"LLM{kind}StartEvent") == 4
        assert events._names.count(f"LLM{kind}EndEvent") == 4
    prefixes = ("", "a", "stream_", "astream_")
    endpoints = [f"{prefix}{kind}" for kind in ("chat", "complete") for prefix in prefixes]
    assert sorted(name.removeprefix("Phi3LLM.") for name in spans._names) == sorted(endpoints)


def test_a_model_that_was_in_training_answers_without_dropout(
    tmp_path: Path, tiny_phi3: Path
) -> None:
    base = save_tiny_phi3(tmp_path / "base", attention_dropout=0.5, resid_pdrop=0.5)
    llm = Phi3LLM(model=str(base), max_new_tokens=8).load()
    llm.load_adapter(save_random_adapter(tmp_path / "a", base), name="a")
    for view in (llm, llm.with_adapter("a")):
        texts = {view.complete("P-4471").text for _ in range(4)}
        assert len(texts) == 1


def test_no_thread_gets_the_answer_of_another_adapter(
    tiny_llm: Phi3LLM, tiny_phi3: Path, tmp_path: Path
) -> None:
    for seed in (1, 2, 3):
        folder = save_random_adapter(tmp_path / str(seed), tiny_phi3, seed=seed)
        tiny_llm.load_adapter(folder, name=f"a{seed}")
    views = [tiny_llm.with_adapter(name) for name in (None, "a1", "a2", "a3")]
    alone = [view.chat(MESSAGES).message.content for view in views]
    assert len(set(alone)) == 4

    def ask(number: int) -> str | None:
        view = views[number % 4]
        if number % 3:
            return view.chat(MESSAGES).message.content
        return "".join(item.delta or "" for item in view.stream_chat(MESSAGES))

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(120)))
    assert answers == alone * 30


def test_views_are_hashable_and_cheap(tiny_llm: Phi3LLM, tiny_phi3: Path, tmp_path: Path) -> None:
    tiny_llm.load_adapter(save_random_adapter(tmp_path / "a", tiny_phi3), name="a")
    views = {tiny_llm.with_adapter("a"), tiny_llm.with_adapter("a"), tiny_llm.with_adapter(None)}
    assert len(views) == 2
    assert tiny_llm.with_adapter(None) in views


def test_a_shared_beginning_is_read_once(tiny_llm: Phi3LLM) -> None:
    system = ChatMessage(role="system", content="Answer from the data sheet. " * 15)
    tiny_llm.chat([system, *MESSAGES])
    engine = tiny_llm._shared.engine
    before = engine.prefix_statistics.tokens_reused
    question = ChatMessage(role="user", content="And the flow?")
    tiny_llm.chat([system, question])
    reused = engine.prefix_statistics.tokens_reused - before
    assert reused > 0.6 * len(tiny_llm.tokenize(system.content or ""))


class _Shouter(BaseOutputParser):
    def parse(self, output: str) -> str:
        return output.upper()

    def format(self, query: str) -> str:
        return query


class _Word(BaseModel):
    word: str


def test_an_output_parser_works_in_streams_too(tiny_phi3: Path) -> None:
    llm = Phi3LLM(model=str(tiny_phi3), max_new_tokens=8, output_parser=_Shouter())
    prompt = PromptTemplate("What is {thing}?")
    expected = llm.predict(prompt, thing="P-4471")
    assert expected == expected.upper()
    assert "".join(llm.stream(prompt, thing="P-4471")) == expected

    async def wait() -> str:
        return "".join([text async for text in await llm.astream(prompt, thing="P-4471")])

    assert asyncio.run(wait()) == expected
    for mode in PydanticProgramMode:
        object_llm = Phi3LLM(model=str(tiny_phi3), max_new_tokens=32, pydantic_program_mode=mode)
        assert object_llm.structured_predict(_Word, prompt, thing="P-4471")


def test_scores_and_vectors_come_in_batches_with_adapters(
    tiny_llm: Phi3LLM, tiny_phi3: Path, tmp_path: Path
) -> None:
    import numpy as np

    tiny_llm.load_adapter(save_random_adapter(tmp_path / "a", tiny_phi3), name="a")
    texts = ["P-4471", "a much longer text about pumps", "x"]
    for view in (tiny_llm, tiny_llm.with_adapter("a")):
        together = view.embed(texts, pooling="mean")
        assert together.shape == (3, 32)
        alone = np.concatenate([view.embed([text], pooling="mean") for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        scores = view.score("Which pump?", texts)
        assert scores == view.score([ChatMessage(role="user", content="Which pump?")], texts)
        assert scores[0] == pytest.approx(view.score("Which pump?", texts[:1])[0], abs=1e-4)
    base, adapted = tiny_llm.embed(texts), tiny_llm.with_adapter("a").embed(texts)
    assert not np.allclose(base, adapted)
