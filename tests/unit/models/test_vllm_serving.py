"""The command that starts vLLM, and what is refused before it is written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from phi3_industry.cli import main
from phi3_industry.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
)
from phi3_industry.models.adapter import write_manifest
from phi3_industry.models.loading import load_base_model
from phi3_industry.models.vllm_serving import plan_serving
from tiny_models import save_random_adapter, save_tiny_phi3


def values_of(command: list[str], option: str) -> list[str]:
    """What stands behind an option, up to the next one."""
    rest = command[command.index(option) + 1 :]
    ends = [i for i, text in enumerate(rest) if text.startswith("--")]
    return rest[: ends[0]] if ends else rest


@pytest.fixture
def pumps(tiny_phi3: Path, tmp_path: Path) -> Path:
    return save_random_adapter(tmp_path / "pumps", tiny_phi3, rank=4)


def test_base_alone_is_served_without_lora(tiny_phi3: Path) -> None:
    plan = plan_serving(str(tiny_phi3))
    assert plan.command[:3] == ["vllm", "serve", str(tiny_phi3)]
    assert values_of(plan.command, "--served-model-name") == [tiny_phi3.name]
    assert values_of(plan.command, "--dtype") == ["float32"]
    assert values_of(plan.command, "--max-model-len") == ["512"]
    assert values_of(plan.command, "--host") == ["127.0.0.1"]
    assert not [text for text in plan.command if "lora" in text]


def test_the_rank_is_that_of_the_greatest_adapter(
    pumps: Path, tiny_phi3: Path, tmp_path: Path
) -> None:
    valves = save_random_adapter(tmp_path / "valves", tiny_phi3, rank=9)
    plan = plan_serving(str(tiny_phi3), adapters={"pumps": pumps, "valves": valves})
    assert values_of(plan.command, "--max-lora-rank") == ["16"]
    assert values_of(plan.command, "--max-loras") == ["2"]
    assert values_of(plan.command, "--lora-modules") == [f"pumps={pumps}", f"valves={valves}"]
    assert "--enable-lora" in plan.command


def test_names_and_paths_survive_the_shell_and_vllm(tiny_phi3: Path, tmp_path: Path) -> None:
    folder = save_random_adapter(tmp_path / "a=b, 'c' $HOME", tiny_phi3, rank=4)
    plan = plan_serving(str(tiny_phi3), adapters={"Pumpen & Ventile; 泵": folder})
    assert shlex.split(plan.shell()) == plan.command
    [module] = values_of(plan.command, "--lora-modules")
    assert json.loads(module) == {"name": "Pumpen & Ventile; 泵", "path": str(folder)}


def test_a_compose_file_mounts_what_is_served_and_asks_for_the_key(
    tiny_phi3: Path, tmp_path: Path
) -> None:
    folder = save_random_adapter(tmp_path / "$pumps", tiny_phi3, rank=4)
    plan = plan_serving(str(tiny_phi3), adapters={"pumps": folder}, port=8001)
    service = json.loads(plan.compose(image="vllm/vllm-openai:v1"))["services"]["vllm"]
    assert service["image"] == "vllm/vllm-openai:v1"
    assert [service["entrypoint"], service["command"][0]] == [["vllm", "serve"], "/models/base"]
    assert service["command"][-1] == "pumps=/models/adapter-0"
    assert values_of(service["command"], "--host") == ["0.0.0.0"]
    assert service["ports"] == ["127.0.0.1:8001:8001"]
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert mounts["/models/adapter-0"]["source"] == str(folder).replace("$", "$$")
    assert all(volume["read_only"] for volume in mounts.values())
    assert service["environment"] == {"VLLM_API_KEY": "${VLLM_API_KEY:?set VLLM_API_KEY}"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"rank_pattern": {"o_proj": 2}}, "ranks, scales or biases of its own"),
        ({"r": 600}, "rank 600"),
    ],
)
def test_what_vllm_does_not_serve_is_refused_by_its_folder(
    settings: dict[str, Any], problem: str, tiny_phi3: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_base_model(str(tiny_phi3)).model
    config = LoraConfig(**{"r": 4, "target_modules": ["o_proj"], **settings})
    get_peft_model(model, config).save_pretrained(tmp_path / "odd")
    write_manifest(
        tmp_path / "odd",
        load_base_model(str(tiny_phi3)),
        prompt_fingerprint="none",
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    with pytest.raises(AdapterError, match=problem) as caught:
        plan_serving(str(tiny_phi3), adapters={"odd": tmp_path / "odd"})
    assert str(tmp_path / "odd") in str(caught.value)


def test_an_adapter_of_another_base_is_refused(pumps: Path, tmp_path: Path) -> None:
    other = save_tiny_phi3(tmp_path / "other", num_hidden_layers=3)
    with pytest.raises(AdapterMismatchError, match="Let vLLM serve the base it was trained on"):
        plan_serving(str(other), adapters={"pumps": pumps})


def test_a_folder_without_an_adapter_is_refused(tiny_phi3: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterNotFoundError):
        plan_serving(str(tiny_phi3), adapters={"pumps": tmp_path})


@pytest.mark.parametrize("name", ["", " pumps", "a\nb"])
def test_names_that_nobody_can_ask_for_are_refused(name: str, pumps: Path, tiny_phi3: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be called"):
        plan_serving(str(tiny_phi3), adapters={name: pumps})


def test_an_adapter_cannot_have_the_name_of_its_base(pumps: Path, tiny_phi3: Path) -> None:
    with pytest.raises(ConfigurationError, match="name of the base model"):
        plan_serving(str(tiny_phi3), adapters={tiny_phi3.name: pumps})


def test_more_tokens_than_the_model_holds_are_refused(tiny_phi3: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"513 and '.*' holds 512"):
        plan_serving(str(tiny_phi3), max_model_len=513)


def test_the_command_prints_a_line_and_keeps_notes_apart(
    pumps: Path, tiny_phi3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["serve-command", "--model", str(tiny_phi3), "--adapter", str(pumps)]
    assert main(given) == 0
    shown = capsys.readouterr()
    assert shlex.split(shown.out)[-1] == f"pumps={pumps}"
    assert "note: Set VLLM_API_KEY" in shown.err
    assert main([*given[:-1], f"p2={pumps}", "--json", "--compose"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["adapters"]["p2"]["rank"] == 4
    assert found["compose"]["services"]["vllm"]["command"][-1] == "p2=/models/adapter-0"
    assert main([*given, "--adapter", f"pumps={pumps}"]) == 1
    assert "Two adapters are called 'pumps'" in capsys.readouterr().err
