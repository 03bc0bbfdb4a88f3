from __future__ import annotations

from phi3_industry.models.catalog import checkpoint_from_config, resolve_model

# from the config.json of the true checkpoints
MINI_4K = {
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "rope_scaling": None,
}
MINI_128K = {
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "sliding_window": 262144,
    "rope_scaling": {"type": "longrope"},
}


def test_the_sliding_window_of_the_short_checkpoints_is_a_cliff() -> None:
    checkpoint = checkpoint_from_config("microsoft/Phi-3-mini-4k-instruct", MINI_4K)
    assert checkpoint.context_window == 4096
    assert checkpoint.length_cliffs == (2047,)
    assert checkpoint.prompt_budget == 2000


def test_the_rotary_switch_of_the_long_checkpoints_is_a_cliff() -> None:
    checkpoint = checkpoint_from_config("microsoft/Phi-3-mini-128k-instruct", MINI_128K)
    assert checkpoint.context_window == 131072
    assert checkpoint.sliding_window is None
    assert checkpoint.length_cliffs == (4096,)
    assert checkpoint.prompt_budget == 4096


def test_a_name_holds_no_path(tmp_path: object) -> None:
    assert resolve_model("embedded")[1] == "embedded"
    assert resolve_model("microsoft/phi-4") == ("microsoft/phi-4", "microsoft/phi-4")
    folder = str(tmp_path)
    assert resolve_model(folder) == (folder, folder.rsplit("/", 1)[-1])
