"""What is refused before the first step."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.errors import ConfigurationError, TargetModuleError, TrainingDataError
from phi3_industry.finetuning.config import FinetuneConfig, recipe_for
from phi3_industry.finetuning.examples import IGNORED, TokenizedRow, tokenize_rows
from phi3_industry.finetuning.preflight import preflight
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.loading import LoadedModel, load_base_model


@pytest.fixture(scope="module")
def loaded(tiny_phi3: Path) -> LoadedModel:
    return load_base_model(str(tiny_phi3))


def test_table_counts_what_peft_trains(
    loaded: LoadedModel, train_set: TrainingSet, tiny_phi3: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    report = preflight(loaded, train_set, FinetuneConfig(lora_rank=4), output_dir=tmp_path / "out")
    assert report.target_modules == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    own = load_base_model(str(tiny_phi3)).model
    base_parameters = own.num_parameters()
    peft = get_peft_model(own, LoraConfig(r=4, target_modules=report.target_modules))
    trained = sum(weight.numel() for weight in peft.parameters() if weight.requires_grad)
    assert report.trained_parameters == trained
    assert report.base_parameters == base_parameters
    assert f"{trained:,}" in report.table()
    assert all(count == 2 for count, _ in report.module_parameters.values())


def test_settings_left_open_follow_the_size_of_the_model(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    report = preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")
    assert report.recipe == recipe_for(report.base_parameters)


def test_target_that_phi3_does_not_have_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    config = FinetuneConfig(target_modules=["q_proj", "o_proj"])
    with pytest.raises(TargetModuleError, match=r"\['q_proj'\] are not in this model"):
        preflight(loaded, train_set, config, output_dir=tmp_path / "out")


def test_padding_token_ends_no_answer(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    report = preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")
    assert report.pad_token_id not in loaded.chat_format.end_of_turn_ids
    assert 0 <= report.pad_token_id < loaded.model.config.vocab_size


def test_length_above_the_window_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"max_length is 513, and '.*' holds 512 tokens"):
        preflight(loaded, train_set, FinetuneConfig(max_length=513), output_dir=tmp_path / "out")


def test_row_longer_than_max_length_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDataError, match="at most 30 fit"):
        preflight(loaded, train_set, FinetuneConfig(max_length=30), output_dir=tmp_path / "out")


def test_template_that_loses_the_system_text_is_made_up_for(
    train_set: TrainingSet, tiny_phi3: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "early"
    shutil.copytree(tiny_phi3, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] != 'system' %}{{'<|'+m['role']+'|>\n'"
        "+m['content']+'<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{'<|assistant|>\n'}}{% endif %}"
    )
    early = load_base_model(str(folder))
    report = preflight(early, train_set, FinetuneConfig(), output_dir=tmp_path / "out")
    assert "Answer only from the numbered passages" in early.chat_format.decode(
        report.train[0].input_ids
    )


def test_foreign_folder_in_the_way_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="was not made by this library"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path)


def test_full_disk_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path, monkeypatch: Any
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    with pytest.raises(OSError, match="and 0 MB are free"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")


def test_second_start_token_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path, monkeypatch: Any
) -> None:
    encode = loaded.chat_format.encode_messages
    start = loaded.tokenizer.bos_token_id
    monkeypatch.setattr(
        loaded.chat_format,
        "encode_messages",
        lambda messages, **options: [start, start, *encode(messages, **options)],
    )
    with pytest.raises(TrainingDataError, match="begins with two start tokens"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")


def test_rows_past_a_length_cliff_are_noted(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path
) -> None:
    short = replace(loaded, checkpoint=replace(loaded.checkpoint, sliding_window=50))
    report = preflight(short, train_set, FinetuneConfig(), output_dir=tmp_path / "out")
    assert any("longer than 50 tokens" in note for note in report.notes)


def test_row_whose_end_is_not_trained_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path, monkeypatch: Any
) -> None:
    def without_end(rows: Any, chat_format: Any, *, max_length: int) -> list[TokenizedRow]:
        whole = tokenize_rows(rows, chat_format, max_length=max_length)
        return [replace(row, labels=[*row.labels[:-1], IGNORED]) for row in whole]

    monkeypatch.setattr("phi3_industry.finetuning.preflight.tokenize_rows", without_end)
    with pytest.raises(TrainingDataError, match="the token that ends it have to be trained"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")


def test_row_whose_prompt_is_trained_is_refused(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path, monkeypatch: Any
) -> None:
    def all_trained(rows: Any, chat_format: Any, *, max_length: int) -> list[TokenizedRow]:
        whole = tokenize_rows(rows, chat_format, max_length=max_length)
        return [replace(row, labels=row.input_ids) for row in whole]

    monkeypatch.setattr("phi3_industry.finetuning.preflight.tokenize_rows", all_trained)
    with pytest.raises(TrainingDataError, match="and the prompt has not"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")


def test_run_that_does_not_fit_into_memory_is_refused_unless_told(
    loaded: LoadedModel, train_set: TrainingSet, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("phi3_industry.finetuning.resources.available_memory", lambda device: 1000)
    with pytest.raises(ConfigurationError, match="check_memory=False"):
        preflight(loaded, train_set, FinetuneConfig(), output_dir=tmp_path / "out")
    told = preflight(
        loaded, train_set, FinetuneConfig(check_memory=False), output_dir=tmp_path / "out"
    )
    assert "memory, estimated:" in told.table()
