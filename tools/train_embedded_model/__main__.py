"""Command line of the training tool."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DEFAULT_CHECKPOINT = Path(__file__).parents[2] / "src/phi3_industry/models/embedded"


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_embedded_model", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_begin(commands)
    _add_train(commands)
    _add_score(commands)
    _add_adapt(commands)
    _add_card(commands)
    _add_show(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def _add_begin(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    begin = commands.add_parser("begin", help="write the checkpoint that training starts from")
    begin.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    begin.add_argument("--vocab-size", type=int, default=4096)
    begin.add_argument("--hidden-size", type=int, default=256)
    begin.add_argument("--intermediate-size", type=int, default=640)
    begin.add_argument("--layers", type=int, default=5)
    begin.add_argument("--seed", type=int, default=0)
    begin.add_argument(
        "--data", type=Path, nargs="*", default=[], help="folders with real text for the vocabulary"
    )
    begin.set_defaults(run=_begin)


def _begin(options: argparse.Namespace) -> int:
    from .checkpoint import export_checkpoint
    from .initialisation import build_model
    from .real_text import load_real_text
    from .tokenizer import train_tokenizer, training_texts

    texts = training_texts(seed=options.seed, conversations=4000, text=load_real_text(options.data))
    tokenizer = train_tokenizer(texts, vocab_size=options.vocab_size)
    model = build_model(
        vocab_size=options.vocab_size,
        hidden_size=options.hidden_size,
        layers=options.layers,
        intermediate_size=options.intermediate_size,
        seed=options.seed,
    )
    export_checkpoint(model, tokenizer, options.output)
    print(f"{options.output}: {sum(p.numel() for p in model.parameters()):,} parameters")
    return 0


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", help="train, or go on with a run that was stopped")
    train.add_argument("--output", type=Path, required=True, help="folder of the run")
    train.add_argument("--start", type=Path, default=DEFAULT_CHECKPOINT, help="first checkpoint")
    train.add_argument("--minutes", type=float, default=85, help="time, resumed parts included")
    train.add_argument("--max-steps", type=int, default=0, help="upper bound on steps")
    train.add_argument("--learning-rate", type=float, default=3e-3)
    train.add_argument(
        "--decay", type=float, default=0.35, help="share of the run in which the rate falls"
    )
    train.add_argument("--tokens", type=int, default=4096, help="tokens of a step")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--stage", type=int, default=0, help="first stage of a fresh run")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    train.add_argument(
        "--data", type=Path, nargs="*", default=[], help="folders with real tables to mix in"
    )
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    import torch

    from .real_tables import load_training_tables
    from .real_text import load_real_text
    from .training import TrainingRun, TrainingSettings

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    _keep_freed_memory()
    tables = [
        table
        for folder in options.data
        if (folder / "tables.jsonl").exists()
        for table in load_training_tables(folder)
    ]
    settings = TrainingSettings(
        start=options.start,
        output=options.output,
        minutes=options.minutes,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        decay=options.decay,
        tokens=options.tokens,
        seed=options.seed,
        stage=options.stage,
        device=options.device,
    )
    TrainingRun(settings, tables=tables, text=load_real_text(options.data)).run()
    return 0


def _keep_freed_memory() -> None:
    """Let glibc keep what each step frees; faulting it in anew doubles the time of attention."""
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 200 * 2**20)
        mallopt(mmap_threshold, 2**31 - 1)


def _add_score(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = commands.add_parser("score", help="print a checkpoint's scores on held-out questions")
    score.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    score.add_argument("--questions", type=int, default=300, help="answerable ones of each row")
    score.add_argument("--seed", type=int, default=4242)
    score.add_argument("--threads", type=int, default=1)
    score.add_argument(
        "--real-tables", type=Path, nargs="*", default=[], help="folders with CSV files to ask"
    )
    score.add_argument(
        "--real-spans", type=Path, nargs="*", default=[], help="data folders with questions to ask"
    )
    score.add_argument("--quantization", choices=("nf4", "int8"), help="store the layers so")
    score.add_argument("--rows", nargs="*", help="names of the held-out rows to score; all")
    score.add_argument("--json", type=Path, help="file to write the scores to")
    score.add_argument("--failures", type=Path, help="file to write wrong answers to, JSON Lines")
    score.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    import torch

    from .scoring import (
        Reader,
        format_scores,
        held_out_rows,
        median_milliseconds,
        real_cells_row,
        real_spans_row,
    )

    torch.set_num_threads(options.threads)
    reader = Reader(options.checkpoint, quantization=options.quantization)
    failures: list[dict[str, object]] = []
    rows = list(
        held_out_rows(
            reader,
            answerable=options.questions,
            seed=options.seed,
            names=options.rows,
            failures=failures,
        )
    )
    rows += [
        real_cells_row(
            reader,
            folder,
            questions=options.questions,
            passages=5,
            seed=options.seed,
            failures=failures,
        )
        for folder in options.real_tables
    ]
    rows += [real_spans_row(reader, folder) for folder in options.real_spans]
    print(f"{options.checkpoint}: {reader.parameters:,} parameters, greedy, seed {options.seed}")
    print(format_scores(rows))
    latency = median_milliseconds(reader, passages=5, questions=30, seed=options.seed)
    print(f"{latency} ms for one answer at 5 passages, {options.threads} thread(s)")
    if options.json:
        record = {
            "parameters": reader.parameters,
            "questions": options.questions,
            "seed": options.seed,
            "milliseconds": latency,
            "threads": options.threads,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if options.failures:
        lines = (json.dumps(failure, ensure_ascii=False) for failure in failures)
        options.failures.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _add_adapt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    adapt = commands.add_parser("adapt", help="teach answer forms by adapters; print what it cost")
    adapt.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    adapt.add_argument("--methods", nargs="*", choices=("lora", "qlora"), default=["lora", "qlora"])
    adapt.add_argument(
        "--houses", nargs="*", choices=("codes", "words"), default=["codes", "words"]
    )
    adapt.add_argument("--seeds", type=int, nargs="*", default=[0])
    adapt.add_argument("--questions", type=int, default=100)
    adapt.add_argument("--plain-questions", type=int, default=300)
    adapt.add_argument("--threads", type=int, default=1)
    adapt.set_defaults(run=_adapt)


def _adapt(options: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    import torch

    from .adapting import HOUSES, measure_adaptation

    torch.set_num_threads(options.threads)
    for house in HOUSES:
        for method in options.methods if house.name in options.houses else ():
            for seed in options.seeds:
                measured = measure_adaptation(
                    options.checkpoint,
                    house,
                    method=method,
                    questions=options.questions,
                    plain_questions=options.plain_questions,
                    seed=seed,
                )
                print(json.dumps(asdict(measured)), flush=True)
    return 0


def _add_card(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    card = commands.add_parser("card", help="write the card from a run's log and the scores")
    card.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    card.add_argument(
        "--logs", type=Path, nargs="+", required=True, help="log.jsonl of each run, in order"
    )
    card.add_argument("--scores", type=Path, required=True, help="file of score --json")
    card.add_argument("--nf4", type=Path, help="file of score --quantization nf4 --json")
    card.add_argument("--int8", type=Path, help="file of score --quantization int8 --json")
    card.add_argument("--adapted", type=Path, help="file with the lines of adapt")
    card.add_argument("--seeds", type=int, nargs="+", required=True, help="seed of each run")
    card.add_argument("--hardware", required=True, help="what the run was computed on")
    card.add_argument("--data-note", default="No real text is among them.")
    card.set_defaults(run=_card)


def _card(options: argparse.Namespace) -> int:
    from .card import Measured, write_card

    quantised = {"NF4": options.nf4, "int8": options.int8}
    measured = Measured(
        logs=options.logs,
        scores=options.scores,
        quantised={name: path for name, path in quantised.items() if path},
        adapted=options.adapted,
    )
    write_card(
        options.checkpoint,
        measured,
        seeds=options.seeds,
        hardware=options.hardware,
        data=options.data_note,
        target=options.checkpoint / "README.md",
    )
    return 0


def _add_show(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    show = commands.add_parser("show", help="print conversations of the generator")
    show.add_argument("--stage", type=int, default=4)
    show.add_argument("--seed", type=int, default=0)
    show.add_argument("--count", type=int, default=5)
    show.add_argument("--data", type=Path, nargs="*", default=[], help="folders with real text")
    show.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    from .conversations import draw_conversation
    from .draw import Draw
    from .real_text import load_real_text
    from .stages import STAGES

    draw = Draw(options.seed, text=load_real_text(options.data))
    for _ in range(options.count):
        conversation = draw_conversation(draw, STAGES[options.stage].difficulty)
        for message in conversation.prompt("?"):
            print(f"<|{message['role']}|> {message['content']}")
        for turn in conversation.turns:
            print(f"    {turn.question} => {turn.answer}")
        print("=" * 40)
    return 0


if __name__ == "__main__":
    sys.exit(main())
