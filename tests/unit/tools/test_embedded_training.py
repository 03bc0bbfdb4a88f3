from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tools.train_embedded_model.conversations import Conversation, draw_conversation
from tools.train_embedded_model.draw import Draw
from tools.train_embedded_model.encoding import (
    FIRST_TOKEN_WEIGHT,
    MARKER_WEIGHT,
    Encoded,
    Encoder,
)
from tools.train_embedded_model.network import collate, forward
from tools.train_embedded_model.optimisation import learning_rate_factor
from tools.train_embedded_model.recall import recall_drill
from tools.train_embedded_model.stages import STAGES
from tools.train_embedded_model.stream import BatchStream, StreamState
from tools.train_embedded_model.training import TrainingRun, TrainingSettings
from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3ForCausalLM


@pytest.fixture(scope="module")
def encoder(embedded_folder: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(embedded_folder))


def settings(start: Path, output: Path, *, max_steps: int = 4) -> TrainingSettings:
    return TrainingSettings(
        start=start,
        output=output,
        minutes=60,
        max_steps=max_steps,
        tokens=1024,
        seed=5,
        warm_up=2,
        evaluate_every=2,
        evaluation_size=2,
    )


def drawn(encoder: Encoder, count: int, *, seed: int = 1) -> list[tuple[Conversation, Encoded]]:
    draw = Draw(seed)
    conversations = [draw_conversation(draw, STAGES[-1].difficulty) for _ in range(count)]
    return [(conversation, encoder.conversation(conversation)) for conversation in conversations]


def test_context_and_branch_are_the_tokens_of_the_chat_template(encoder: Encoder) -> None:
    for conversation, item in drawn(encoder, 30):
        for turn, branch in zip(conversation.turns, item.branches, strict=True):
            prompt = encoder.prompt(conversation.prompt(turn.question))
            assert [*item.context, *branch.ids[: branch.answer_start]] == prompt
            assert list(branch.ids[branch.answer_start :]) == [
                *encoder.text(turn.answer),
                encoder.end,
            ]


def test_the_passage_number_and_the_value_begin_where_the_weights_say(
    encoder: Encoder, embedded_folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    for conversation, item in drawn(encoder, 20, seed=2):
        for turn, branch in zip(conversation.turns, item.branches, strict=True):
            answer = branch.ids[branch.answer_start :]
            weights = branch.weights[branch.answer_start :]
            assert len(branch.weights) == len(branch.ids)
            place = weights.index(MARKER_WEIGHT)
            assert tokenizer.decode([answer[place]]) == str(turn.marker)
            assert tokenizer.decode(answer[place + 2 : -1]).strip() == turn.value
            assert (weights[place + 2] == FIRST_TOKEN_WEIGHT) == bool(turn.marker)
            assert all(weights)
            assert branch.weights[branch.answer_start - 2 : branch.answer_start] == (0.0, 0.0)


def test_pointers_lead_to_the_very_tokens_that_are_copied(encoder: Encoder) -> None:
    answerable = found = 0
    for _, item in drawn(encoder, 40):
        for branch in item.branches:
            answerable += branch.marker > 0
            found += branch.marker > 0 and bool(branch.pointers)
            for place, held in branch.pointers:
                if branch.marker and place > branch.answer_start + 1:
                    assert {item.context[at] for at in held} == {branch.ids[place]}
                elif not branch.marker:
                    assert held == (0,)
    assert found > 0.8 * answerable


def test_recall_asks_for_each_value_by_its_key() -> None:
    item = recall_drill(Draw(3), first_id=7, vocab_size=50)
    text = list(item.context)
    asked = [token for branch in item.branches for token in branch.ids]
    assert asked == text
    assert min(text) >= 7
    for branch in item.branches:
        for place, held in branch.pointers:
            assert {item.context[at] for at in held} == {branch.ids[place]}


def test_training_computes_what_transformers_computes_for_each_question_alone(
    encoder: Encoder, tiny_checkpoint: Path
) -> None:
    model = Phi3ForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    items = [item for _, item in drawn(encoder, 3)]
    batch = collate(items, dtype=torch.float32)
    logits, _ = forward(model, batch, dtype=torch.float32)
    rows = iter(batch.answers)
    for item in items:
        for branch in item.branches:
            ids = torch.tensor([[*item.context, *branch.ids]])
            with torch.no_grad():
                expected = model(ids, use_cache=False).logits[0]
            first = len(item.context) + branch.answer_start - 1
            own = logits[slice(*next(rows))]
            assert len(own) == len(branch.ids) - branch.answer_start
            torch.testing.assert_close(own, expected[first : first + len(own)])


def test_training_has_the_gradients_of_transformers(
    encoder: Encoder, tiny_checkpoint: Path
) -> None:
    ours = Phi3ForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    theirs = Phi3ForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    (_, item), *_ = drawn(encoder, 1)
    batch = collate([item], dtype=torch.float32)
    logits, _ = forward(ours, batch, dtype=torch.float32)
    torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").backward()
    for branch in item.branches:
        ids = torch.tensor([[*item.context, *branch.ids]])
        unlearned = [True] * len(item.context) + [not weight for weight in branch.weights]
        labels = ids.masked_fill(torch.tensor([unlearned]), -100)
        loss = theirs(ids, use_cache=False).logits[0, :-1]
        torch.nn.functional.cross_entropy(loss, labels[0, 1:], reduction="sum").backward()
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-3, msg=name)


def test_a_restored_stream_hands_out_the_batches_that_would_have_come(
    encoder: Encoder,
) -> None:
    first = BatchStream(encoder, seed=3, tokens=2048, chunk_size=12)
    for _ in range(5):
        first.next_batch()
    kept = asdict(first.state)
    second = BatchStream(encoder, seed=3, tokens=2048, chunk_size=12, state=StreamState(**kept))
    for _ in range(8):
        assert first.next_batch() == second.next_batch()


def test_a_promoted_stream_changes_stage_with_the_next_chunk(encoder: Encoder) -> None:
    stream = BatchStream(encoder, seed=3, tokens=100_000, chunk_size=6)
    stream.promote(2)
    stream.next_batch()
    assert stream.state == StreamState(chunk=0, position=1, stage=0)
    stream.next_batch()
    assert stream.state == StreamState(chunk=1, position=1, stage=2)


def test_learning_rate_rises_stays_and_falls() -> None:
    factors = [
        learning_rate_factor(step, step / 100, warm_up=10, decay=0.5) for step in (0, 9, 50, 75)
    ]
    assert factors == [0.1, 1.0, 1.0, 0.5]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    straight = TrainingRun(settings(tiny_checkpoint, tmp_path / "straight"))
    for _ in range(4):
        straight.train_step()

    first = TrainingRun(settings(tiny_checkpoint, tmp_path / "parts"))
    first.train_step()
    first.train_step()
    first.save()
    second = TrainingRun(settings(tiny_checkpoint, tmp_path / "parts"))
    assert second.step == 2
    second.train_step()
    second.train_step()

    for name, parameter in straight.model.named_parameters():
        torch.testing.assert_close(
            dict(second.model.named_parameters())[name], parameter, rtol=0, atol=0
        )
        torch.testing.assert_close(second.average.values[name], straight.average.values[name])


def test_a_run_learns_and_leaves_log_curve_and_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    run = TrainingRun(settings(tiny_checkpoint, tmp_path / "run", max_steps=8))
    run.run()

    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in entries] == [2, 4, 6, 8]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000

    folder = tmp_path / "run" / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is Phi3ForCausalLM
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == 6
    assert model.generation_config.pad_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 2048
    assert tokenizer.chat_template
    average = dict(run.average.values)["model.norm.weight"]
    torch.testing.assert_close(model.model.norm.weight.data, average.to(torch.bfloat16))
