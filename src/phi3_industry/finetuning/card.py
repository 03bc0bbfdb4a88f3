"""The card of an adapter: what its manifest says, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phi3_industry.models.family import KNOWN_CHECKPOINTS
from phi3_industry.models.manifest import AdapterManifest

__all__ = ["adapter_card"]

_VERDICTS = {
    "better": "Training made the model better on the held-out rows.",
    "worse": "**Training made the model WORSE on the held-out rows.**",
    "unclear": "On the held-out rows the adapter is neither better nor worse than the base model.",
    "not measured": "No row was held out, so nothing shows whether the adapter helps.",
}
_SHOWN = (
    "train_rows",
    "validation_rows",
    "steps",
    "seconds",
    "trained_parameters",
    "lora_rank",
    "lora_alpha",
    "learning_rate",
    "batch_size",
    "gradient_accumulation_steps",
    "seed",
)


def adapter_card(manifest: AdapterManifest, *, title: str) -> str:
    """Write the card of an adapter as the hub shows it.

    Args:
        manifest: Its manifest.
        title: The heading.

    Returns:
        Markdown that begins with the hub's metadata. Nothing is said that was not measured.
    """
    parts = [
        _metadata(manifest),
        f"# {title}",
        f"A `{manifest.method}` adapter for `{manifest.base_model}`"
        f"{_revision(manifest)}, trained with phi3-industry.",
        _use(title),
        "## Before and after",
        _VERDICTS.get(str(manifest.metrics.get("verdict")), _VERDICTS["not measured"]),
        *_scores(manifest.metrics),
        "## How it was trained",
        "\n".join(
            f"- {name.replace('_', ' ')}: {manifest.metrics[name]}"
            for name in _SHOWN
            if name in manifest.metrics
        ),
        "## What it belongs to",
        "The adapter loads on this base, tokenizer and grounding prompt alone; the library checks "
        "it, with the SHA-256 of every file, against `phi3_industry.json`.",
        "\n".join(
            f"- {what}: `{value[:16]}`"
            for what, value in (
                ("base weights", manifest.base_weights_fingerprint),
                ("chat format", manifest.chat_format_fingerprint),
                ("grounding prompt", manifest.prompt_fingerprint),
                ("training rows", manifest.data_fingerprint),
            )
        ),
        "Made by " + ", ".join(f"{name} {found}" for name, found in manifest.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(manifest: AdapterManifest) -> str:
    lines = ["---", "library_name: peft", "pipeline_tag: text-generation"]
    if manifest.base_model in KNOWN_CHECKPOINTS:  # the hub refuses names that it does not know
        lines += [f"base_model: {manifest.base_model}", "base_model_relation: adapter"]
    return "\n".join([*lines, "tags:", "- phi3-industry", "- lora", "---"])


def _revision(manifest: AdapterManifest) -> str:
    return f" at `{manifest.base_revision}`" if manifest.base_revision else ""


def _use(title: str) -> str:
    return (
        "```python\n"
        "from huggingface_hub import snapshot_download\n"
        "from phi3_industry import Phi3LLM\n\n"
        f'folder = snapshot_download("{title}")\n'
        "expert = Phi3LLM(model=...).with_adapter(folder)  # the base named above\n"
        "```"
    )


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    if not before:
        return
    rows = ["| held-out rows | rows | exact answers | loss |", "|---|---|---|---|"]
    for name, first in before.items():
        last = after[name]
        rows.append(
            f"| {name} | {first['rows']} | {first['exact']} → {last['exact']} "
            f"| {first['loss']:.3f} → {last['loss']:.3f} |"
        )
    yield "\n".join(rows)
    yield (
        "An answer is exact when greedy generation writes it to the letter. These rows are of the "
        "same making as the training rows: measure on your own questions before you rely on it."
    )
