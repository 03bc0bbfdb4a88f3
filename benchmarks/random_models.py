"""Models and adapters with random weights, for speed alone: what they say means nothing.

Generation must run to its full length: the rows of the output head that belong to stop tokens,
and to ids without text, are zero. Their logits are 0, the greatest of thousands of random others is
not, and so none of them is ever chosen; what is computed stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoTokenizer, Phi3Config, Phi3ForCausalLM
from transformers.utils import logging

from phi3_industry.models.adapter import resolve_target_modules, write_manifest
from phi3_industry.models.catalog import resolve_model
from phi3_industry.models.loading import load_base_model

logging.disable_progress_bar()

_TEXTLESS = 16  # the first ids of the embedded tokenizer, control tokens among them

_MINI: Mapping[str, int] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
}
_TINY: Mapping[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Shape:
    """A Phi-3 by its sizes.

    Attributes:
        name: What to call it in a table.
        sizes: Settings of its ``Phi3Config``.
    """

    name: str
    sizes: Mapping[str, Any]


def mini_shape(*, layers: int, quick: bool) -> Shape:
    """Phi-3-mini's true width with some of its 32 layers; ``quick`` is a tiny one instead."""
    if quick:
        return Shape("tiny, 2 layers", {**_TINY, "num_hidden_layers": 2})
    return Shape(f"Phi-3-mini's width, {layers} layers", {**_MINI, "num_hidden_layers": layers})


def embedded_shape() -> Shape:
    """The shape of the embedded model."""
    config = AutoConfig.from_pretrained(resolve_model("embedded")[0]).to_dict()
    names = (*_MINI, "num_hidden_layers", "tie_word_embeddings", "rope_parameters")
    return Shape("the embedded model's shape", {name: config[name] for name in names})


def save_random_model(folder: Path, shape: Shape, *, seed: int) -> None:
    """Save a model in bfloat16 with the embedded tokenizer.

    Args:
        folder: Where to.
        shape: Its sizes.
        seed: Seed of its weights.
    """
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded")[0])
    ids = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 6}
    settings: dict[str, Any] = {"tie_word_embeddings": False, "sliding_window": None, **shape.sizes}
    settings["original_max_position_embeddings"] = settings["max_position_embeddings"]
    config = Phi3Config(**ids, **settings)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Phi3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        head = model.lm_head.weight
        head[:_TEXTLESS] = 0
        head[len(tokenizer) :] = 0
        head[sorted(tokenizer.added_tokens_decoder)] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_random_adapter(folder: Path, base: str, *, seed: int, rank: int = 16) -> Path:
    """Save a LoRA adapter on all linear layers of a base model."""
    loaded = load_base_model(base)
    targets = resolve_target_modules(loaded.model, None)
    model = get_peft_model(
        loaded.model, LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT draws A itself and leaves B at zero
            torch.nn.init.normal_(parameter, std=0.01)
    model.save_pretrained(folder)
    write_manifest(
        folder,
        loaded,
        prompt_fingerprint="none",
        method="lora",
        data_fingerprint="none",
        metrics={},
    )
    return folder


def random_text(generator: torch.Generator, *, tokens: int) -> str:
    """Words of one token each, so that texts of equal length are of equal cost.

    Args:
        generator: Draws the words.
        tokens: About how many tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded")[0])
    words = sorted(
        word[1:] for word in tokenizer.get_vocab() if word[1:].isalpha() and word[0] == "Ġ"
    )
    words = [word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) == 1]
    drawn = torch.randint(len(words), (tokens,), generator=generator)
    return " ".join(words[place] for place in drawn.tolist())
