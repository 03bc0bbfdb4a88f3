"""Faults that users of Phi-3 have met, each with the tests that fail on it.

Row by row: the fault, and where it is held. Tests without a place are in this file.

 1  LoRA targets of other models train half of Phi-3 in silence:
    test_targets_of_the_cookbook_sample_are_refused_by_name,
    test_target_that_phi3_does_not_have_is_refused, test_table_counts_what_peft_trains
 2  A LoRA on fused layers cannot be used where they are separate:
    test_split_layers_compute_the_same_logits
 3  vLLM refused the fused names: test_an_export_holds_what_vllm_reads
 4  Names differ between members of the family:
    test_a_folder_loads_with_the_structure_of_the_checkpoint,
    test_an_adapter_changes_every_layer_that_it_targets
 5  Stale code from the checkpoint runs: test_code_in_a_checkpoint_is_not_run,
    test_a_checkpoint_that_demands_its_own_code_is_refused
 6  Crossing the longrope switch drops the cache:
    test_generation_across_the_rotary_switch_equals_computing_everything_anew
 7  Engines that keep it write gibberish:
    test_sequences_on_both_sides_of_the_rotary_switch_equal_plain_generation
 8  Garbage past the sliding window: test_answers_beyond_the_sliding_window_equal_plain_generation,
    test_the_sliding_window_of_the_short_checkpoints_is_a_cliff
 9  Batches past it fail: test_answers_beyond_the_sliding_window_equal_plain_generation
10  A static cache is not supported: test_hazard_10_a_checkpoint_cannot_ask_for_a_static_cache
11  The system text is dropped: test_the_system_text_is_in_the_prompt_under_every_template,
    test_a_system_text_that_the_template_drops_goes_to_the_first_user_message
12  A start token is doubled or unwanted: test_no_bos_is_added_or_doubled,
    test_ids_equal_the_chat_template_tokenised_whole,
    test_ids_are_those_of_the_template_tokenised_whole, test_second_start_token_is_refused
13  An answer never stops: test_answers_stop_where_the_checkpoint_says,
    test_role_tokens_stop_an_answer_whether_or_not_a_configuration_lists_them,
    test_hazards_13_to_16_every_row_trains_its_answer_and_its_end
14  Padding with the end token unlearns it: test_padding_token_ends_no_answer,
    test_hazards_13_to_16_every_row_trains_its_answer_and_its_end
15  A mask found by searching text shifts: test_prompt_ids_are_those_of_serving,
    test_hazards_13_to_16_every_row_trains_its_answer_and_its_end
16  A mask of zeros trains nothing: test_answer_and_end_of_turn_are_trained_in_each_row,
    test_hazards_13_to_16_every_row_trains_its_answer_and_its_end
17  Merging into 4 bits loses quality: test_an_adapter_is_never_merged_into_quantised_weights,
    test_the_drift_of_16_bits_is_measured_and_written_down
18  Rotary tables in 16 bits: test_hazard_18_rotary_angles_are_exact_at_far_positions,
    test_hazard_18_rotary_frequencies_in_16_bits_are_refused
19  A loss that is no number:
    test_loss_that_is_no_number_stops_training_and_keeps_the_earlier_adapter
20  A request is answered by another's adapter:
    test_ten_thousand_mixed_requests_over_eight_adapters_get_their_own_adapter
21  An unknown adapter means the base: test_an_unknown_adapter_is_never_the_base_model,
    test_an_unknown_adapter_is_refused_everywhere
22  Missing adapter weights only warn:
    test_missing_and_unexpected_and_misshapen_weights_are_refused,
    test_an_adapter_of_another_base_model_is_refused
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from family_models import family_tokenizer, save_family_member
from phi3_industry import Phi3LLM
from phi3_industry.errors import ModelLoadError
from phi3_industry.finetuning.examples import IGNORED, tokenize_rows
from phi3_industry.finetuning.training_set import TrainingRow
from phi3_industry.models.chat_format import ChatFormat
from phi3_industry.models.family import KNOWN_CHECKPOINTS, KnownCheckpoint
from phi3_industry.models.loading import load_base_model

ALL = [pytest.param(known, id=known.name.split("/")[1]) for known in KNOWN_CHECKPOINTS.values()]
TESTS = Path(__file__).parents[2]


def test_every_row_names_tests_that_exist() -> None:
    rows = re.split(r"\n(?=[ \d]\d  )", str(__doc__))[1:]
    assert [int(row.split()[0]) for row in rows] == list(range(1, 23))
    source = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", source))
    for row in rows:
        named = set(re.findall(r"\btest_\w+", row))
        assert named, f"no test is named in the row: {row}"
        assert named <= there, f"{sorted(named - there)} are nowhere under tests/"


def test_hazard_10_a_checkpoint_cannot_ask_for_a_static_cache(
    tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.StaticCache, "__init__", None)
    folder = Path(shutil.copytree(tiny_phi3, tmp_path / "static"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cache_implementation": "static"}))
    answers = {
        Phi3LLM(model=str(model), max_new_tokens=24).complete("P-4471?").text
        for model in (tiny_phi3, folder)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("answer", ["38.2 bar [1]", "\n泵 <|end|> 38.2", " x "])
@pytest.mark.parametrize("known", ALL)
def test_hazards_13_to_16_every_row_trains_its_answer_and_its_end(
    known: KnownCheckpoint, answer: str
) -> None:
    chat_format = ChatFormat(family_tokenizer(known))
    row = TrainingRow(
        slice="grounded",
        prompt=[
            {"role": "system", "content": "Answer from the passages."},
            {"role": "user", "content": "[1] P-4471: 38.2 bar\n\nRated pressure?\n"},
        ],
        completion=[{"role": "assistant", "content": answer}],
    )
    (tokenized,) = tokenize_rows([row], chat_format, max_length=4096)
    trained = [label for label in tokenized.labels if label != IGNORED]
    end = chat_format.end_of_turn_ids
    assert trained[-len(end) :] == end
    assert end[-1] in chat_format.stop_token_ids
    assert chat_format.decode(trained[: -len(end)]).strip() == answer.strip()
    prompt = chat_format.encode_messages(row.prompt)
    assert tokenized.input_ids[: len(prompt)] == prompt
    assert tokenized.labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert tokenized.labels[len(prompt) :] == tokenized.input_ids[len(prompt) :]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hazard_18_rotary_angles_are_exact_at_far_positions(tmp_path: Path, dtype: Any) -> None:
    folder = save_family_member(tmp_path, KNOWN_CHECKPOINTS["microsoft/phi-4"])
    loaded = load_base_model(str(folder), dtype=dtype)
    positions = torch.tensor([[1, 1000, 16383]])
    states = torch.zeros(1, 3, 1, dtype=getattr(torch, dtype))
    found = loaded.model.model.rotary_emb(states, positions)[0][0, :, :16].double()
    frequencies = 250000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    exact = torch.cos(positions[0, :, None].double() * frequencies)
    # at most the rounding of the result, and of the angle in float32
    assert torch.allclose(found, exact, atol=6e-3)


def test_hazard_18_rotary_frequencies_in_16_bits_are_refused(
    tiny_phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *arguments, **options: load(*arguments, **options).to(torch.bfloat16),
    )
    with pytest.raises(ModelLoadError, match=r"inv_freq\) are torch\.bfloat16; in less than"):
        load_base_model(str(tiny_phi3))
