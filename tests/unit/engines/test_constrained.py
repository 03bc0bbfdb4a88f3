from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from phi3_industry.engines.base import Grammar
from phi3_industry.engines.constrained import GrammarCompiler
from phi3_industry.errors import ConfigurationError, EngineError, MissingDependencyError
from phi3_industry.models.loading import LoadedModel, load_base_model
from random_schemas import random_schema
from tiny_models import save_tiny_phi3

BUDGET = 250
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CONTROL = ["<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def as_grammar(schema: Any) -> Grammar:
    return Grammar(kind="json_schema", text=json.dumps(schema))


def llama_like() -> Any:
    """A SentencePiece-like tokenizer as Phi-3-mini's: ``▁`` for spaces, bytes as a last resort."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=[*CONTROL, *fallback], show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = [t for t in layout["added_tokens"] if t["content"] in CONTROL]
    return Tokenizer.from_str(json.dumps(layout))


def tiktoken_like() -> Any:
    """A byte-level tokenizer as Phi-4's: nothing is put before a text, nothing is taken off."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    return tokenizer


def sample_texts() -> list[str]:
    return [json.dumps(random_schema(seed), ensure_ascii=seed % 2 == 0) for seed in range(40)] * 2


@pytest.fixture(scope="module", params=["embedded", "llama", "tiktoken"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny Phi-3 with each kind of tokenizer that the family has."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        return load_base_model(str(save_tiny_phi3(folder)))
    backend = llama_like() if request.param == "llama" else tiktoken_like()
    # the model has more rows than the tokenizer has tokens, as Phi-3-mini has
    save_tiny_phi3(folder, vocab_size=1024)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=CONTROL[3:],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return load_base_model(str(folder))


@pytest.fixture(scope="module")
def compiler(loaded: LoadedModel) -> GrammarCompiler:
    return GrammarCompiler(loaded)


class Answer:
    """What a model of random logits says under a grammar."""

    def __init__(
        self,
        loaded: LoadedModel,
        compiler: GrammarCompiler,
        grammar: Grammar,
        *,
        seed: int = 0,
        budget: int = BUDGET,
        favourite: int | None = None,
    ) -> None:
        import torch

        random = torch.Generator().manual_seed(seed)
        self.state = compiler.start(grammar, max_new_tokens=budget)
        self.ids: list[int] = []
        stops = loaded.chat_format.stop_token_ids
        while len(self.ids) < budget and not self.state.finished:
            logits = 3 * torch.randn(loaded.model.config.vocab_size, generator=random)
            if favourite is not None:
                logits[favourite] += 100
            self.state.mask(logits)
            token = int(logits.argmax())
            assert (token in stops) <= self.state.complete
            self.state.accept(token)
            if token not in stops:
                self.ids.append(token)
        self.text = loaded.chat_format.decode(self.ids)


def test_all_answers_to_random_schemas_validate(
    loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    from jsonschema import Draft202012Validator

    shortened = 0
    for seed in range(25):
        schema = random_schema(seed)
        answer = Answer(loaded, compiler, as_grammar(schema), seed=seed)
        Draft202012Validator(schema).validate(json.loads(answer.text))
        assert not loaded.chat_format.control_token_ids & set(answer.ids)
        shortened += answer.state.shortened
    assert 0 < shortened < 25  # some were led to their end, others found it


def test_a_tight_budget_is_enough_if_the_shortest_answer_fits(
    loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    from jsonschema import Draft202012Validator

    for seed in range(6):
        schema = random_schema(seed)
        with pytest.raises(ConfigurationError, match=r"takes (\d+) tokens and max_new_tokens is 1"):
            compiler.start(as_grammar(schema), max_new_tokens=1)
        with pytest.raises(ConfigurationError) as caught:
            compiler.start(as_grammar(schema), max_new_tokens=1)
        needed = int(re.findall(r"\d+", str(caught.value))[0])
        for budget in (needed, needed + 1, needed + 7):
            answer = Answer(loaded, compiler, as_grammar(schema), seed=seed, budget=budget)
            Draft202012Validator(schema).validate(json.loads(answer.text))
            assert len(answer.ids) <= budget


def test_a_model_that_never_stops_is_led_out_of_its_string(
    loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "minLength": 5}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    letter = loaded.chat_format.encode_text("x x")[-1]
    answer = Answer(loaded, compiler, as_grammar(schema), budget=60, favourite=letter)
    value = json.loads(answer.text)
    assert value["a"].count("x") > 20
    assert isinstance(value["b"], int)
    assert answer.state.shortened
    assert answer.state.complete
    assert len(answer.ids) <= 60


def test_numbers_stay_within_what_a_double_holds(
    loaded: LoadedModel, compiler: GrammarCompiler
) -> None:
    nine = loaded.chat_format.encode_text("x9")[-1]
    for kind in ("integer", "number"):
        schema = {"type": "array", "items": {"type": kind, "minimum": 3}, "minItems": 1}
        answer = Answer(loaded, compiler, as_grammar(schema), budget=100, favourite=nine)
        assert all(3 <= value <= 2**53 for value in json.loads(answer.text))


def test_a_grammar_is_obeyed_to_the_letter(loaded: LoadedModel, compiler: GrammarCompiler) -> None:
    grammar = Grammar(kind="ebnf", text='root ::= ("ja" | "nein" | " oui") "!"?')
    said = {Answer(loaded, compiler, grammar, seed=seed).text for seed in range(60)}
    if loaded.chat_format.decode(loaded.chat_format.encode_text("x ")) == "x ":
        assert said <= {"ja", "nein", " oui", "ja!", "nein!", " oui!"}
    assert len(said) > 1
    lark = Grammar(kind="ebnf", text="start: WORD\nWORD: /[}a]*x/")
    assert re.fullmatch(r"[}a]*x", Answer(loaded, compiler, lark, budget=12).text)


def test_what_cannot_be_enforced_is_refused_with_its_place(compiler: GrammarCompiler) -> None:
    deep = {"type": "object", "properties": {"a": {"items": {"pattern": "(?=x)y"}}}}
    for schema, said in (
        (deep, "at '#/properties/a/items': look-around"),
        ({"type": "array", "uniqueItems": True}, "at '#': Unimplemented keys: .\"uniqueItems\""),
        ({"anyOf": [{"type": "integer"}, {"type": "text"}]}, "at '#/anyOf/1': Invalid type: text"),
        ({"$ref": "#/$defs/x"}, "Pointer '/\\$defs/x' does not exist"),
        ([], "is '\\[\\]'; it must be an object"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            compiler.start(as_grammar(schema))
    with pytest.raises(ConfigurationError, match="is no JSON"):
        compiler.start(Grammar(kind="json_schema", text="{"))
    with pytest.raises(ConfigurationError, match="cannot be compiled"):
        compiler.start(Grammar(kind="ebnf", text="start: missing"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        compiler.start(Grammar(kind="ebnf", text="root ::= ("))


def test_a_token_out_of_place_is_refused(loaded: LoadedModel, compiler: GrammarCompiler) -> None:
    state = compiler.start(as_grammar({"type": "boolean"}))
    with pytest.raises(EngineError, match="does not allow it here"):
        state.accept(loaded.chat_format.encode_text("x]")[-1])


def test_threads_share_a_compiler(loaded: LoadedModel, compiler: GrammarCompiler) -> None:
    def ask(number: int) -> str:
        schema = random_schema(number % 5)
        return Answer(loaded, compiler, as_grammar(schema), seed=number % 5, budget=200).text

    alone = [ask(number) for number in range(5)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(20))) == alone * 4


def test_without_the_library_the_extra_is_named(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "llguidance"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingDependencyError, match=r"phi3-industry\[constrained\]"):
        GrammarCompiler(loaded)
