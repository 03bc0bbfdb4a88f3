"""Write the card of the shipped checkpoint from its run's log and its measured scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

from .scoring import ScoreRow, format_scores

__all__ = ["Measured", "write_card"]

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
  finds little. The table below says how often it is right.
- **Its vocabulary is small**: {vocabulary:,} tokens made from English text, bytes for
  everything else. Unusual names and other scripts are copied piece by piece and may break.
- **Questions and documents in other languages than English** were hardly trained: values in other
  scripts, and question wordings in some twenty-five languages, put together from parts, around
  English names.
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

The goals set for it are: values right at 3 passages 90 %, at 5 passages 80 %; citation right in
95 % of these; abstained where it should 90 %, over-refusal at most 5 %; cells of real tables 80 %;
an adapter's form 95 % at no more than 3 points of reading; 100 ms an answer. What the tables here
show below that is not reached.

{quantised}{adapted}## How it was trained

1. **Tokenizer** (`begin`, seed 0): byte-level BPE of {vocabulary:,} tokens on generated and
   real text, digits in pairs; a space is put before each text so that an answer's first word is
   the token that stands inside a passage.
2. **Seeded structured initialisation**: the first layer starts with heads that look one and two
   tokens back, later layers with heads that match what those wrote and copy; embeddings are
   random. The copying circuit is planted, then trained; it is not discovered.
3. **Training** (`train`, data seeds {seeds}): {steps:,} steps, {tokens:.1f} million tokens,
   {minutes:.0f} minutes in {parts} on {hardware}, bf16 with 32-bit weights, Muon for the
   matrices and AdamW for the rest, exported as a moving average of the weights. Up to twelve
   questions share a context, each blind to the others; about a third of them has no answer. Two
   heads of each of the last two layers are told where the value stands (attention supervision).
   {stages} stages, from drills with one wording to all shapes and then to questions worded in many
   languages and in invented ones, were promoted by exact match on held-out questions.

The data are drawn by `tools/train_embedded_model/`: invented plants, products, limits and
accounts.

{data}

## Measured learning curve

Exact whole answers on held-out conversations of the last stage, teacher-forced:

| million tokens | minutes | stage | all | answerable | unanswerable |
| ---: | ---: | ---: | ---: | ---: | ---: |
{curve}
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Files that the commands of this tool wrote.

    Attributes:
        logs: ``log.jsonl`` of each run, where each started from what the one before had reached.
        scores: Scores of the shipped checkpoint.
        quantised: Scores of the same questions on quantised weights, by the name to show.
        adapted: Lines that ``adapt`` printed; ``None`` leaves the section out.
    """

    logs: Sequence[Path]
    scores: Path
    quantised: Mapping[str, Path] = field(default_factory=dict)
    adapted: Path | None = None


def write_card(
    checkpoint: Path,
    measured: Measured,
    *,
    seeds: Sequence[int],
    data: str,
    hardware: str,
    target: Path,
) -> None:
    """Write the card.

    Args:
        checkpoint: Folder with the shipped configuration and weights.
        measured: What was measured on that very checkpoint.
        seeds: Seed of the data of each run.
        data: Sentence about real data in the mixture.
        hardware: What the run was computed on.
        target: Markdown file to write.
    """
    config = _read_json(checkpoint / "config.json")
    scores = _read_json(measured.scores)
    entries = list(_joined(measured.logs))
    rows = _rows(scores)
    command = f"python -m tools.train_embedded_model score --questions {scores['questions']}"
    real = [row.name for row in rows if "cells" in row.name]
    text = _CARD.format(
        parameters=scores["parameters"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        megabytes=(checkpoint / "model.safetensors").stat().st_size / 1e6,
        command=command + (" --real-tables FOLDER --real-spans FOLDER" if real else ""),
        scores=format_scores(rows),
        milliseconds=scores["milliseconds"],
        threads=scores["threads"],
        real=_about_real_data(real),
        quantised=_about_quantised(measured.quantised),
        adapted=_about_adapters(measured.adapted),
        seeds=" and ".join(map(str, seeds)),
        parts="one run" if len(measured.logs) == 1 else f"{len(measured.logs)} runs",
        steps=entries[-1]["step"],
        tokens=entries[-1]["tokens"] / 1e6,
        minutes=entries[-1]["minutes"],
        hardware=hardware,
        stages=entries[-1]["stage"] + 1,
        data="\n".join(wrap(data, 98)),
        curve="\n".join(_curve_line(entry) for entry in _spread(entries, 14)),
    )
    target.write_text(text, encoding="utf-8")


def _joined(logs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Give the entries of runs that went on from each other, counted from the first one's start."""
    before = {"step": 0, "tokens": 0, "minutes": 0.0}
    for log in logs:
        entries = [_parse(line) for line in _lines(log)]
        for entry in entries:
            yield entry | {k: entry[k] + n for k, n in before.items() if k in entry}
        before = {name: entries[-1][name] + count for name, count in before.items()}


def _rows(scores: dict[str, Any]) -> list[ScoreRow]:
    return [ScoreRow(row["name"], row["shares"]) for row in scores["rows"]]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _parse(line: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line)
    return content


def _about_quantised(files: Mapping[str, Path]) -> str:
    if not files:
        return ""
    rows = [
        ScoreRow(f"{row.name}, {name}", row.shares)
        for name, path in files.items()
        for row in _rows(_read_json(path))
    ]
    return (
        "## Quantised\n\nThe same questions, the linear layers stored in 4 or 8 bits:\n\n"
        f"{format_scores(rows)}\n\n"
    )


def _about_adapters(path: Path | None) -> str:
    if path is None:
        return ""
    lines = [
        "| house | method | seconds | form % | right to the letter % | value before % | after % |"
        " merged equal % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = ("house", "method", "seconds", "form", "both", "plain_before", "plain_after")
    for entry in map(_parse, _lines(path)):
        merged = "–" if entry["merged_equal"] is None else str(entry["merged_equal"])
        lines.append("| " + " | ".join([*(str(entry[name]) for name in names), merged]) + " |")
    return (
        "## Taught by an adapter\n\nPrinted by `python -m tools.train_embedded_model adapt`: a "
        "house's own word after each value is\ntaught by 300 questions and 150 plain ones; "
        "held-out questions show whether the form is learned\n(of the answers given to answerable "
        "ones; abstentions count as wrong in the next column alone),\nand those of the first table "
        "(three passages, all shapes) what it costs.\n\n" + "\n".join(lines) + "\n\n"
    )


def _read_json(path: Path) -> dict[str, Any]:
    return _parse(path.read_text(encoding="utf-8"))


def _about_real_data(names: list[str]) -> str:
    if not names:
        return ""
    return (
        "\n\nThe rows named after data sets ask for cells of real CSV tables that nobody trained "
        "on, each beside\nother rows of the same table, and the questions of experts on a "
        "passage that holds the answer\n(spans are compared without case, punctuation and "
        "articles)."
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
