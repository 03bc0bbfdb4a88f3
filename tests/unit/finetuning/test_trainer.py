"""Training a real tiny Phi-3."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from phi3_industry import Phi3LLM
from phi3_industry.errors import AdapterNotFoundError, EngineError, TargetModuleError
from phi3_industry.finetuning import curve as curve_module
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.trainer import LoraFinetuneEngine
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.adapter import read_manifest


def engine(tiny: Path | Phi3LLM, train_set: TrainingSet, folder: Path, **settings: Any) -> Any:
    quick = {"max_steps": 12, "lora_rank": 4, "batch_size": 4, "learning_rate": 1e-2}
    return LoraFinetuneEngine(
        tiny if isinstance(tiny, Phi3LLM) else str(tiny),
        train_set=train_set,
        output_dir=folder,
        show_progress=False,
        **{**quick, **settings},
    )


@pytest.fixture
def trained(tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path) -> LoraFinetuneEngine:
    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps")
    tuner.finetune()
    return tuner  # type: ignore[no-any-return]


def test_training_lowers_the_loss_on_trained_and_held_out_rows(
    trained: LoraFinetuneEngine,
) -> None:
    metrics = read_manifest(trained.output_dir).metrics
    assert metrics["train_loss_last"] < metrics["train_loss_first"] - 0.5
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]
    assert metrics["steps"] == 12


def test_adapter_folder_holds_adapter_manifest_and_logs(
    trained: LoraFinetuneEngine, train_set: TrainingSet
) -> None:
    folder = trained.output_dir
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "phi3_industry.json",
        "training/log.json",
        "training/loss.csv",
        "training/loss.png",
    }
    manifest = read_manifest(folder)
    assert manifest.prompt_fingerprint == train_set.prompt_fingerprint
    assert manifest.data_fingerprint == train_set.fingerprint
    assert manifest.method == "lora"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_adapter_names_its_base_and_holds_no_path(
    trained: LoraFinetuneEngine, tiny_phi3: Path
) -> None:
    config = json.loads((trained.output_dir / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_phi3.name
    assert str(tiny_phi3.parent) not in (trained.output_dir / "phi3_industry.json").read_text()


def test_finetuned_model_answers_with_the_adapter(trained: LoraFinetuneEngine) -> None:
    expert = trained.get_finetuned_model(max_new_tokens=8)
    assert expert.adapter == "pumps"
    assert expert.max_new_tokens == 8
    question = "Question: What is the discharge pressure of pump P-1?"
    assert expert.complete(question).text != expert.with_adapter(None).complete(question).text


def test_llm_that_was_given_shares_its_weights_and_stays_untrained(
    tiny_llm: Phi3LLM, train_set: TrainingSet, tmp_path: Path
) -> None:
    question = "Question: What is the discharge pressure of pump P-1?"
    before = tiny_llm.complete(question).text
    tuner = engine(tiny_llm, train_set, tmp_path / "pumps")
    tuner.finetune()
    expert = tuner.get_finetuned_model()
    assert tiny_llm.complete(question).text == before
    assert tiny_llm.adapters == ("pumps",)
    assert tiny_llm.with_adapter("pumps").complete(question).text == expert.complete(question).text
    again = tuner.get_finetuned_model()
    assert again.complete(question).text == expert.complete(question).text


def test_same_seed_gives_the_same_adapter_and_another_seed_another(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    weights = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        tuner = engine(tiny_phi3, train_set, tmp_path / name, seed=seed, max_steps=4)
        tuner.finetune()
        weights.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_quantised_training_reaches_every_layer_and_saves_float32(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    manifest = engine(tiny_phi3, train_set, tmp_path / "pumps", method="qlora").finetune()
    assert manifest.method == "qlora"
    assert manifest.metrics["train_loss_last"] < manifest.metrics["train_loss_first"] - 0.5
    assert manifest.metrics["validation_loss_before"] is not None  # measured before training
    weights = load_file(tmp_path / "pumps" / "adapter_model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"float32"}
    # B begins as zeros: a layer that no gradient reaches keeps them
    untrained = [name for name, weight in weights.items() if "lora_B" in name and not weight.any()]
    assert sum("lora_B" in name for name in weights) == 8
    assert untrained == []


def test_dropout_checkpointing_and_accumulation_train_too(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    tuner = engine(
        tiny_phi3,
        train_set,
        tmp_path / "pumps",
        lora_dropout=0.1,
        gradient_checkpointing=True,
        gradient_accumulation_steps=2,
        lr_scheduler="linear",
        target_modules=["qkv_proj"],
    )
    metrics = tuner.finetune().metrics
    assert metrics["train_loss_last"] < metrics["train_loss_first"]


def test_loss_that_is_no_number_stops_training_and_keeps_the_earlier_adapter(
    trained: LoraFinetuneEngine, tiny_phi3: Path, train_set: TrainingSet
) -> None:
    before = (trained.output_dir / "adapter_model.safetensors").read_bytes()
    diverging = engine(
        tiny_phi3, train_set, trained.output_dir, learning_rate=1e30, max_grad_norm=1e30
    )
    with pytest.raises(EngineError, match=r"the loss is no number any more .* Lower learning_rate"):
        diverging.finetune()
    assert (trained.output_dir / "adapter_model.safetensors").read_bytes() == before
    assert read_manifest(trained.output_dir).metrics["steps"] == 12


def test_unknown_target_module_is_refused_and_nothing_is_written(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    tuner = engine(tiny_phi3, train_set, tmp_path / "pumps", target_modules=["q_proj"])
    with pytest.raises(TargetModuleError, match="use 'qkv_proj' in place of 'q_proj'"):
        tuner.finetune()
    assert not list(tmp_path.iterdir())


def test_foreign_folder_is_refused_before_the_model_is_loaded(
    train_set: TrainingSet, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").touch()
    tuner = engine(Path("no-such-model"), train_set, tmp_path)
    with pytest.raises(FileExistsError, match="was not made by this library"):
        tuner.finetune()


def test_model_before_training_is_not_there(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(AdapterNotFoundError):
        engine(tiny_phi3, train_set, tmp_path / "pumps").get_finetuned_model()


def test_user_is_told_what_is_trained_how_long_and_to_what_end(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    said: list[str] = []
    engine(tiny_phi3, train_set, tmp_path / "pumps", report=said.append).finetune()
    text = "\n".join(said)
    assert "qkv_proj" in text
    assert "learning rate 0.01" in text
    assert "s for 12 steps" in text
    assert "On held-out rows the loss went from" in text


def test_progress_bar_shows_the_loss(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LoraFinetuneEngine(
        str(tiny_phi3), train_set=train_set, output_dir=tmp_path / "pumps", max_steps=2, lora_rank=2
    ).finetune()
    captured = capsys.readouterr()
    assert "loss=" in captured.err
    assert captured.out == ""


def test_without_matplotlib_there_is_the_csv_and_a_word_about_it(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phi3_industry.errors import MissingDependencyError

    def missing(name: str, *, purpose: str, extra: str) -> None:
        raise MissingDependencyError(name.split(".")[0], purpose=purpose, extra=extra)

    monkeypatch.setattr(curve_module, "import_optional", missing)
    said: list[str] = []
    engine(tiny_phi3, train_set, tmp_path / "pumps", max_steps=2, report=said.append).finetune()
    assert (tmp_path / "pumps" / "training" / "loss.csv").exists()
    assert not (tmp_path / "pumps" / "training" / "loss.png").exists()
    assert any("There is no loss.png, only loss.csv." in line for line in said)


def test_saved_training_set_is_read_from_its_folder(
    tiny_phi3: Path, train_set: TrainingSet, tmp_path: Path
) -> None:
    folder = train_set.save(tmp_path / "set")
    tuner = engine(tiny_phi3, folder, tmp_path / "pumps", max_steps=2)  # type: ignore[arg-type]
    assert tuner.finetune().data_fingerprint == train_set.fingerprint


def test_quiet_run_logs_and_prints_nothing(
    tiny_phi3: Path,
    train_set: TrainingSet,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO, logger="phi3_industry"):
        engine(tiny_phi3, train_set, tmp_path / "pumps", max_steps=2).finetune()
    assert "held-out rows" in caplog.text
    assert "{'loss'" not in capsys.readouterr().out


def test_config_beside_settings_is_refused(train_set: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Both config and the settings \['lora_rank'\] are given"):
        LoraFinetuneEngine(
            train_set=train_set, output_dir=tmp_path, config=FinetuneConfig(), lora_rank=4
        )


def test_unknown_setting_is_refused(train_set: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="lora_r"):
        LoraFinetuneEngine(train_set=train_set, output_dir=tmp_path, lora_r=4)
