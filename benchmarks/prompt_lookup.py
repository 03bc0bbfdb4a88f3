"""What guessing tokens from the prompt gains where answers quote, and costs where they do not.

    python benchmarks/prompt_lookup.py --layers 2 --rounds 5

The same prompts are answered greedily with lookup off, "auto" and "on"; the answers are compared
token by token. Timed is decoding alone: from the first token to the last.

"Own answers" are the embedded model's, to real questions about the plant in ``examples/``; they
quote a value of a few tokens. It cannot quote at length, and random weights cannot quote at all. So
longer texts are replayed: the model computes all that it always does, and then the next token of a
given text is made the most probable. Quotes are sections of the plant's manuals, cited from
a prompt that holds them; other text is from pages on another subject. Guesses are right or wrong
as they would be with a model that says just this.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from measuring import (
    add_common_options,
    alternate,
    now,
    print_conditions,
    print_table,
    spread,
    times_faster,
)
from plant_prompts import PLANT, plant_prompts
from random_models import mini_shape, save_random_model

from phi3_industry.engines.base import GenerationRequest, SamplingParams
from phi3_industry.engines.local import LocalEngine
from phi3_industry.grounding.prompt import DEFAULT_PROMPT, Message
from phi3_industry.models.loading import LoadedModel, load_base_model

Mode = Literal["off", "auto", "on"]
MODES: tuple[Mode, ...] = get_args(Mode)
HEADER = ("lookup", "seconds of decoding", "x off", "tokens", "guessed", "right", "same answers")
PAGES = PLANT.parent / "aws-limits" / "documents" / "pages"


@dataclass(frozen=True)
class Case:
    """A prompt, and the answer to replay; none lets the model answer."""

    messages: list[Message]
    answer: str | None = None


class Replay:
    """Makes a model say a given text, one sequence at a time.

    Args:
        model: The model.
        ids: Prompt and answer.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self._ids = torch.tensor(ids)
        self._handle = model.register_forward_hook(self._choose, with_kwargs=True)

    def __enter__(self) -> None:
        """Begin; the hook is there already."""

    def __exit__(self, *_: object) -> None:
        """Let the model answer by itself again."""
        self._handle.remove()

    def _choose(self, _model: Any, _inputs: Any, options: dict[str, Any], output: Any) -> None:
        after = options["position_ids"][0, options["logits_to_keep"]] + 1
        tokens = self._ids[after.clamp(max=len(self._ids) - 1)]
        output.logits[0, torch.arange(len(tokens)), tokens] = 1e4


def quoting_cases(tokens: int, loaded: LoadedModel, *, other_text: bool) -> list[Case]:
    """Sections of manuals and answers that quote one of four, or say something else."""
    others = "\n".join(page.read_text("utf-8") for page in sorted(PAGES.glob("*.md")))
    encode, decode = loaded.chat_format.encode_text, loaded.chat_format.decode
    other_ids = encode(others)
    cases: list[Case] = []
    for manual in sorted((PLANT / "documents" / "manuals").glob("*.md")):
        sections = [part.strip() for part in manual.read_text("utf-8").split("\n## ")[1:]]
        for place, section in enumerate(sections):
            first = max(0, min(place, len(sections) - 4))
            heading, _, body = section.partition("\n")
            answer = f"[{place - first + 1}] {body.strip()}"
            if other_text:
                start = len(cases) * tokens
                answer = decode(other_ids[start : start + tokens])
            question = f"What is to be done: {heading}?"
            prompt = DEFAULT_PROMPT.grounded(question, sections[first : first + 4])
            cases.append(Case(prompt, decode(encode(answer)[:tokens])))
    return cases


def measure(
    title: str, loaded: LoadedModel, cases: Sequence[Case], options: argparse.Namespace
) -> None:
    """Answer all prompts in each mode and print the table."""
    chat_format = loaded.chat_format
    engines = {mode: LocalEngine(loaded, prompt_lookup=mode) for mode in MODES}
    answers: dict[str, list[list[int | None]]] = {}
    guesses: dict[str, tuple[int, int]] = {}

    def decode(mode: Mode, case: Case) -> tuple[float, list[int | None]]:
        prompt = chat_format.encode_messages(case.messages)
        answer = chat_format.encode_text(case.answer) if case.answer is not None else []
        sampling = SamplingParams(max_new_tokens=len(answer) or options.tokens)
        request = GenerationRequest(prompt_ids=tuple(prompt), sampling=sampling)
        with Replay(loaded.model, prompt + answer) if answer else nullcontext():
            events = engines[mode].generate(request)
            tokens = [next(events).token_id]
            began = now(options.clock)
            tokens += [event.token_id for event in events]
            taken = now(options.clock) - began
        if answer and tokens != answer:
            raise SystemExit(f"The text that was replayed came out otherwise: {case.answer!r}")
        return taken, tokens

    def run(mode: Mode, _: int) -> float:
        statistics = engines[mode].statistics
        before = statistics.guessed, statistics.guessed_right
        decoded = [decode(mode, case) for case in cases]
        guesses[mode] = statistics.guessed - before[0], statistics.guessed_right - before[1]
        answers[mode] = [tokens for _, tokens in decoded]
        return sum(taken for taken, _ in decoded)

    seconds = alternate({mode: partial(run, mode) for mode in MODES}, rounds=options.rounds)
    print(f"{title}, {loaded.quantization or loaded.dtype}: {len(cases)} answers")
    rows = []
    for mode in MODES:
        same = sum(a == b for a, b in zip(answers[mode], answers["off"], strict=True))
        figures = [sum(map(len, answers[mode])), *guesses[mode]]
        times = [spread(seconds[mode], digits=3), times_faster(seconds, mode, than="off")]
        rows.append([mode, *times, *map(str, figures), f"{same} of {len(cases)}"])
    print_table(HEADER, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, clock="cpu", rounds=5)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=16, help="answers of each set at the most")
    parser.add_argument("--wide-answers", type=int, default=4, help="the same at the true width")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer at the most")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.answers, options.wide_answers, options.tokens = 1, 4, 2, 32
    torch.set_num_threads(options.threads)
    print_conditions(options)

    def replay(name: str, loaded: LoadedModel, most: int) -> None:
        for other_text, what in ((False, "quotes"), (True, "other text")):
            cases = quoting_cases(options.tokens, loaded, other_text=other_text)
            measure(f"{name}, {what} replayed", loaded, cases[:most], options)

    loaded = load_base_model("embedded", dtype="float32", device="cpu")
    prompts = [Case(messages) for messages in plant_prompts(options.answers, passages=5)]
    measure("embedded model, own answers", loaded, prompts, options)
    replay("embedded model", loaded, options.answers)
    shape = mini_shape(layers=options.layers, quick=options.quick)
    with tempfile.TemporaryDirectory() as name:
        save_random_model(Path(name), shape, seed=options.seed)
        for stored in (None, "nf4"):
            loaded = load_base_model(name, dtype="bfloat16", device="cpu", quantization=stored)
            replay(shape.name, loaded, options.wide_answers)


if __name__ == "__main__":
    main()
