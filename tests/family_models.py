"""Each published checkpoint at reduced size: its own structure, template and special tokens.

Head counts keep their ratio, and so do the rotary share, the window, the tied or free head and
the experts; only widths, depth and vocabulary shrink.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from phi3_industry.models.family import KnownCheckpoint

HEAD_DIM = 32  # bitsandbytes multiplies on a CPU in blocks of 32 rows and 64 columns

# what each template writes, in our words; the tests on real templates use those in trl
TEMPLATES = {
    "phi3": (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
    ),
    "phi3.5": (
        "{% for m in messages if m.role != 'system' or m.content %}"
        "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
    ),
    "phi3-early": (
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '<|user|>\n' + m.content + '<|end|>\n<|assistant|>\n' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + '<|end|>\n' }}{% endif %}{% endfor %}"
    ),
    "phi4": (
        "{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
    ),
    "phi4-mini": (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
    ),
}
# most published checkpoints name code of their own, which is never run
_AUTO_MAP = {
    "AutoConfig": "configuration_phi3.Phi3Config",
    "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    "AutoTokenizer": "Xenova/gpt-4o",
}
_ROLES = ["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]


def family_tokenizer(known: KnownCheckpoint) -> Any:
    """A tokenizer with the pre-tokenisation, special tokens and template of a checkpoint."""
    from transformers import PreTrainedTokenizerFast

    if known.template == "phi4":
        backend, bos, eos, pad = _byte_level(), "<|endoftext|>", "<|im_end|>", "<|dummy_85|>"
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_85|>"]
        # the tokens of Phi-4 swallow white space on both sides
        strips = {"lstrip": True, "rstrip": True}
    elif known.template == "phi4-mini":
        backend, bos, eos, pad = _byte_level(), *["<|endoftext|>"] * 3
        special, strips = ["<|endoftext|>", *_ROLES], {"rstrip": True}
    else:
        backend, bos, eos, pad = _metaspace(), "<s>", "<|endoftext|>", "<|endoftext|>"
        special, strips = ["<|endoftext|>", *_ROLES], {"rstrip": True}
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, **strips) for token in special]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=pad
    )
    tokenizer.chat_template = TEMPLATES[known.template]
    return tokenizer


def family_config(known: KnownCheckpoint, **overrides: Any) -> dict[str, Any]:
    """The configuration of a checkpoint, its widths, depth and vocabulary reduced."""
    true = known.config
    ratio = true["num_attention_heads"] // true["num_key_value_heads"]
    kv_heads = {1: 4, 3: 2, 4: 1}[ratio]
    heads = kv_heads * ratio
    tokenizer = family_tokenizer(known)
    rope = true["rope_scaling"] and dict(true["rope_scaling"])
    if rope:
        pairs = int(HEAD_DIM * true.get("partial_rotary_factor", 1.0)) // 2
        rope["short_factor"] = [1.0 + number / 10 for number in range(pairs)]
        rope["long_factor"] = [1.0 + number * 2 for number in range(pairs)]
    reduced = {
        **true,
        "hidden_size": heads * HEAD_DIM,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": len(tokenizer),
        "rope_scaling": rope,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "bfloat16",
    }
    if "num_local_experts" in true:
        reduced["num_local_experts"] = 4
    return {**reduced, **overrides}


def save_family_member(folder: Path, known: KnownCheckpoint, **overrides: Any) -> Path:
    """Save a checkpoint of random weights with the structure of a published one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = family_config(known, **overrides)
    config = AutoConfig.for_model(**settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.08)
    tokenizer = family_tokenizer(known)
    model.generation_config.eos_token_id = [
        tokenizer.convert_tokens_to_ids(token) for token in known.stop_tokens
    ]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers writes names of code out only for classes that it loaded from such code
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": _AUTO_MAP}))
    return folder


def _byte_level() -> Tokenizer:
    """Bytes as Phi-4 and Phi-4-mini take them, with no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _metaspace() -> Tokenizer:
    """Marked spaces and bytes as fallback, as all Phi-3 checkpoints have them."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    backend = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(vocabulary)},
            [],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>")]
    )
    backend.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    return backend
