"""What training begins from: the tokenizer, the copying circuit, and real text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from tools.train_embedded_model.draw import Draw
from tools.train_embedded_model.initialisation import build_model
from tools.train_embedded_model.real_text import RealText, load_real_text
from tools.train_embedded_model.tokenizer import train_tokenizer, training_texts
from transformers import Phi3ForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = training_texts(seed=0, conversations=60, text=None)
    return train_tokenizer(texts, vocab_size=1024)


def test_any_text_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    chance = random.Random(0)
    texts = [
        "38.2 bar",
        " two  spaces ",
        "a\n\n\tb",
        "日本 Привет 😀 ½ e\u0301",
        "R&D\r\n",
        "\x00\ufffd",
    ]
    texts += ["".join(chr(chance.randrange(1, 0xD7FF)) for _ in range(40)) for _ in range(50)]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_vocabulary_has_the_wanted_size_and_only_seven_control_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert len(tokenizer) == 1024
    assert sorted([*tokenizer.all_special_ids, 3, 4, 5]) == [0, 1, 2, 3, 4, 5, 6]
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    assert [added[i].content for i in range(7)] == [
        "<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
    ]  # fmt: skip
    assert len(added) == 7


def test_digits_are_cut_into_pairs_and_case_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("12345", add_special_tokens=False)] == [
        "12", "34", "5",
    ]  # fmt: skip
    assert tokenizer.encode("Pump") != tokenizer.encode("pump")


def test_an_answer_begins_with_the_token_that_the_passage_holds(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    inside = tokenizer.encode("Its seal is bronze.", add_special_tokens=False)
    alone = tokenizer.encode("bronze", add_special_tokens=False)
    assert alone == inside[-1 - len(alone) : -1]


def attention_of_first_heads(model: Phi3ForCausalLM) -> tuple[float, float]:
    """How much the first layer's first head looks one token back, and how much the second
    layer's looks to what followed the same token before, in sequences that repeat themselves."""
    generator = torch.Generator().manual_seed(3)
    once = torch.randint(10, 200, (8, 24), generator=generator)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attention = model(torch.cat((once, once), dim=1), output_attentions=True).attentions
    place = torch.arange(24, 47)
    back = attention[0][:, 0, place, place - 1].mean()
    followed = attention[1][:, 0, place, place - 23].mean()
    return float(back), float(followed)


def test_the_seeded_circuit_finds_what_followed_before_any_training() -> None:
    sizes = {"vocab_size": 200, "hidden_size": 256, "layers": 2, "intermediate_size": 64}
    seeded = build_model(**sizes, seed=0).eval()
    back, followed = attention_of_first_heads(seeded)
    assert back > 0.8
    assert followed > 0.4
    plain = Phi3ForCausalLM(seeded.config).eval()
    assert max(attention_of_first_heads(plain)) < 0.1


def test_the_same_seed_builds_the_same_model() -> None:
    sizes = {"vocab_size": 200, "hidden_size": 192, "layers": 2, "intermediate_size": 64}
    one, same, other = (build_model(**sizes, seed=seed) for seed in (1, 1, 2))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
    weight = "model.layers.1.self_attn.qkv_proj.weight"
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def corpus(folder: Path) -> Path:
    def passage(document: str, text: str, kind: str = "text") -> dict[str, object]:
        name = f"{document}-{kind}-{len(text)}"
        return {"id": name, "text": text, "metadata": {"doc_id": document, "kind": kind}}

    sentence = "The rotor of the old mill turns twice in every hour of the day. "
    seen = passage("seen", sentence + "It was built by Anna Torvald in the north of the country.")
    dev = passage("dev", sentence + "Nobody may train on these words, which measure the library.")
    table = passage("seen", "| a | b |\n| --- | --- |\n" * 4, "table")
    asked = {
        "id": "q",
        "question": "Who built it?",
        "answers": ["Anna Torvald"],
        "gold_ids": [seen["id"]],
        "metadata": {"group": "seen"},
    }
    measured = {**asked, "gold_ids": [dev["id"]], "metadata": {"group": "dev"}}
    for name, records in {
        "corpus.jsonl": [seen, dev, table],
        "questions.train.jsonl": [asked],
        "questions.dev.jsonl": [measured],
    }.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / name).write_text(lines, encoding="utf-8")
    return folder


def test_real_text_leaves_out_what_measures_the_library(tmp_path: Path) -> None:
    text = load_real_text([corpus(tmp_path)])
    assert text is not None
    assert len(text.passages) == 1
    assert "Anna Torvald" in text.passages[0]
    assert not [s for s in text.sentences if "measure" in s or "|" in s]
    assert [(question, answer) for _, question, answer in text.asked] == [
        ("Who built it?", "Anna Torvald")
    ]


def test_answers_of_real_text_stand_in_the_cited_passage(tmp_path: Path) -> None:
    text = load_real_text([corpus(tmp_path)])
    assert text is not None
    cited = 0
    for seed in range(30):
        drawn = text.draw(Draw(seed), passages=2)
        for _, marker, answer in drawn.questions:
            assert not marker or answer in drawn.passages[marker - 1]
            cited += marker > 0
    assert cited > 30


def test_folders_without_passages_give_no_text(tmp_path: Path) -> None:
    assert load_real_text([tmp_path]) is None


def test_words_of_real_text_are_neighbours(tmp_path: Path) -> None:
    text = RealText((), (), ("One two three four five six.",))
    for seed in range(20):
        assert text.words(Draw(seed), 2, 3) in "One two three four five six."
