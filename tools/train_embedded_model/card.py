"""Write the card of the shipped checkpoint from its run's log and its measured scores."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

from .scoring import ScoreRow, format_scores

__all__ = ["write_card"]

_CARD = """\
---
license: mit
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- phi3
---

# The embedded model

`Phi3LLM(model="embedded")` loads this folder: a genuine `Phi3ForCausalLM` of {parameters:,}
parameters ({layers} layers, hidden size {hidden}, {heads} heads, {vocabulary:,} tokens, context of
{context:,} tokens, bf16 safetensors of {megabytes:.1f} MB) with its own tokenizer and Phi-3's chat
template. It answers from numbered passages, citation first, or abstains:

```
[1] weights and torques
Tag: V-9532; Kind: valve; Net weight: 1652 kg; Tightening torque: 120 Nm

Question: What is the net weight of V-9532?        ->  [1] 1652 kg
Question: What is the net weight of V-9531?        ->  [0] I don't know.
```

It exists so that the README, the tests and every claim of this project run offline, in seconds,
with real weights.

## What it is not

- **No language model for production.** It knows nothing, cannot chat, summarise, count, compare
  or calculate, and answers only in the form above. For work, load a Phi-3 checkpoint.
- **It reads text shaped like its training data**: rows of tables as this library's ingestion
  writes them, spec sheets, short sections of manuals, lists. In running prose of another kind it
  finds little. The table below says how often it is right; it is often wrong.
- **Its vocabulary is small**: {vocabulary:,} tokens made from English industrial text, bytes for
  everything else. Unusual names and other scripts are copied piece by piece and may break.
- **Questions and documents in other languages than English** were not trained, apart from values
  in other scripts.
- An answer can name a wrong passage or value with no sign of doubt. It is no safety device.

## Scores

Printed by `{command}`
on this file: greedy, first turn, in the library's own grounding prompt
(`phi3_industry.grounding.prompt.DEFAULT_PROMPT`), on names, numbers and question wordings that no
training example held. A value is right when it equals the wanted text to the letter.
"Over-refusal" is the share of answerable questions that it abstains on.

{scores}

One answer at 5 passages, asked alone: {milliseconds} ms (median, fp32, {threads} CPU thread).

"All shapes" mixes table rows, documents and both. Many attributes, values and names are made of
random words; unanswerable questions ask for names one character apart, for attributes that only
another passage has, and for columns that are empty or missing.{real}

## How it was trained

1. **Tokenizer**: byte-level BPE of {vocabulary:,} tokens on generated text, digits in pairs; a
   space is put before each text so that an answer's first word is the token that stands inside a
   passage.
2. **Seeded structured initialisation**: the first layer starts with heads that look one and two
   tokens back, later layers with heads that match what those wrote and copy; embeddings are
   random. The copying circuit is planted, then trained; it is not discovered.
3. **A feasibility study** (seed 0, some 68 minutes on one core, more than 15 million tokens):
   random repeated sequences, then one question template, then all, then abstention. That
   generator is not part of this project; its checkpoint is where the run below began.
4. **This project's run** (`python -m tools.train_embedded_model train`, data seed {seed}):
   {steps:,} steps, {tokens:.1f} million tokens, {minutes:.0f} minutes on one core of a server CPU
   (AVX-512, bf16 autocast), {stages} stages promoted by exact match on held-out questions, Muon
   for the matrices and AdamW for the rest, exported as a moving average of the weights. Several
   questions share a context as turns of one conversation; {unanswerable} of the questions have
   no answer.
   While it ran, wordings and shapes were added to the generator and the run was resumed, so the
   exact weights cannot be made again from the seed; the recipe can.

The data are drawn by `tools/train_embedded_model/`: invented plants, products, limits and
accounts.

{data}

## Measured learning curve

Exact whole answers on held-out conversations of the last stage, teacher-forced:

| million tokens | minutes | stage | all | answerable | unanswerable |
| ---: | ---: | ---: | ---: | ---: | ---: |
{curve}

The held-out conversations became harder and more varied each time the generator grew, so nearby
lines compare better than distant ones. The learning rate was constant over the first two thirds,
where the curve rose throughout, and then fell to nothing. More steps at the full rate, and then a
wider model and vocabulary, are what would move it.
"""


def write_card(
    checkpoint: Path, *, log: Path, scores: Path, seed: int, data: str, target: Path
) -> None:
    """Write the card.

    Args:
        checkpoint: Folder with the shipped configuration and weights.
        log: Log of the run.
        scores: Scores written by the score command for that very checkpoint.
        seed: Seed of the run's data.
        data: Sentence about real data in the mixture.
        target: Markdown file to write.
    """
    config = _read_json(checkpoint / "config.json")
    measured = _read_json(scores)
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [ScoreRow(row["name"], row["shares"]) for row in measured["rows"]]
    command = f"python -m tools.train_embedded_model score --questions {measured['questions']}"
    real = [row.name for row in rows if "cells" in row.name]
    text = _CARD.format(
        parameters=measured["parameters"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        megabytes=(checkpoint / "model.safetensors").stat().st_size / 1e6,
        command=command + (" --real-tables FOLDER" if real else ""),
        scores=format_scores(rows),
        milliseconds=measured["milliseconds"],
        threads=measured["threads"],
        real=_about_real_cells(real),
        seed=seed,
        steps=entries[-1]["step"],
        tokens=entries[-1]["tokens"] / 1e6,
        minutes=entries[-1]["minutes"],
        stages=entries[-1]["stage"] + 1,
        unanswerable="30 to 36 %",
        data="\n".join(wrap(data, 98)),
        curve="\n".join(_curve_line(entry) for entry in _spread(entries, 10)),
    )
    target.write_text(text, encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _about_real_cells(names: list[str]) -> str:
    if not names:
        return ""
    return (
        "\n\nThe last rows ask for cells of real CSV tables that nobody trained on, each beside "
        "other rows\nof the same table, with the right row given."
    )


def _spread(entries: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Choose entries at about even distances, the last one among them."""
    step = max(1, len(entries) // count)
    return entries[::-1][::step][::-1]


def _curve_line(entry: dict[str, Any]) -> str:
    shares = entry["held_out_last_stage"]
    cells = [f"{100 * shares[key]:.1f} %" for key in ("all", "answerable", "unanswerable")]
    numbers = [f"{entry['tokens'] / 1e6:.1f}", f"{entry['minutes']:.0f}", str(entry["stage"])]
    return "| " + " | ".join([*numbers, *cells]) + " |"
