from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from tools.train_embedded_model.conversations import draw_conversation
from tools.train_embedded_model.draw import Draw
from tools.train_embedded_model.encoding import BatchStream, Encoder, StreamState, collate
from tools.train_embedded_model.optimisation import learning_rate_factor
from tools.train_embedded_model.stages import STAGES
from tools.train_embedded_model.training import TrainingRun, TrainingSettings
from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3ForCausalLM


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


def test_tokens_are_those_of_the_chat_template(embedded_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    encoder = Encoder(tokenizer)
    draw = Draw(1)
    for _ in range(30):
        conversation = draw_conversation(draw, STAGES[2].difficulty)
        text = tokenizer.apply_chat_template(conversation.messages(), tokenize=False)
        expected = tokenizer.encode(text, add_special_tokens=False)
        assert encoder.conversation(conversation).ids == expected


def test_the_passage_number_and_the_value_begin_where_the_weights_say(
    embedded_folder: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    encoder = Encoder(tokenizer)
    draw = Draw(2)
    found = 0
    for _ in range(30):
        conversation = draw_conversation(draw, STAGES[1].difficulty)
        item = encoder.conversation(conversation)
        for turn, (start, stop, marker) in zip(conversation.turns, item.answers, strict=True):
            weights = item.weights[start:stop]
            place = start + weights.index(3.0)
            assert tokenizer.decode([item.ids[place]]) == str(marker)
            value = tokenizer.decode(item.ids[place + 2 : stop - 1])
            assert value.strip() == turn.value
            assert item.weights[place + 2] == (2.5 if marker else 0.5)
            found += 1
    assert found > 100


def test_padding_carries_no_loss(embedded_folder: Path) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(embedded_folder))
    stream = BatchStream(encoder, seed=1, tokens=4096, chunk_size=12)
    batch = stream.next_batch()
    ids, weights = collate(batch, pad=encoder.pad)
    assert ids.shape == weights.shape
    for row, item in enumerate(batch):
        assert weights[row, len(item.ids) :].sum() == 0
        assert ids[row, : len(item.ids)].tolist() == item.ids


def test_a_restored_stream_hands_out_the_batches_that_would_have_come(
    embedded_folder: Path,
) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(embedded_folder))
    first = BatchStream(encoder, seed=3, tokens=2048, chunk_size=12)
    for _ in range(5):
        first.next_batch()
    kept = asdict(first.state)
    second = BatchStream(encoder, seed=3, tokens=2048, chunk_size=12, state=StreamState(**kept))
    for _ in range(8):
        assert first.next_batch() == second.next_batch()


def test_a_promoted_stream_changes_stage_with_the_next_chunk(embedded_folder: Path) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(embedded_folder))
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
