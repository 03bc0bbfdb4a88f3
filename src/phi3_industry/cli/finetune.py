"""``phi3-industry finetune``: train an adapter from questions and answers."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from phi3_industry.cli.command import Command, CommandLineError, ExitCode
from phi3_industry.cli.console import Console
from phi3_industry.cli.options import add_settings
from phi3_industry.cli.parts import check_places, choose_threads, open_knowledge_base
from phi3_industry.cli.stores import chosen_store

if TYPE_CHECKING:
    from phi3_industry.finetuning.training_set import TrainingSet
    from phi3_industry.models.adapter import AdapterManifest

__all__ = ["COMMAND"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, "output", "method", positional="train_questions")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run of the same settings"
    )
    add_settings(parser, "glossary", "conversations", "replay")
    add_settings(parser, "kb", "store", "embedding", "model", "quantization", "device")
    add_settings(parser, "rank", "epochs", "learning_rate", "patience", "packing", "tensorboard")
    add_settings(parser, "seed")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    """Build the training rows, train, and write the adapter folder."""
    if arguments.output is None:
        raise CommandLineError(
            "It is not said where the adapter goes: give --output FOLDER, or set output in "
            "[finetune] of the project file."
        )
    check_places(arguments)
    train_set = _build(arguments, console)
    console.show(train_set.report)
    try:
        manifest = _train(arguments, train_set, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command with --resume goes on") from None
    console.document(
        {
            "adapter": arguments.output,
            "verdict": manifest.metrics["verdict"],
            "manifest": asdict(manifest),
            "training_set": asdict(train_set.report),
        }
    )
    if manifest.metrics["verdict"] == "worse":
        return ExitCode.WORSE
    console.say(f'Try it: phi3-industry ask "QUESTION" --adapter {arguments.output}')
    return ExitCode.DONE


def _build(arguments: argparse.Namespace, console: Console) -> TrainingSet:
    from phi3_industry.finetuning.dataset import TrainingSetBuilder
    from phi3_industry.llms import Phi3LLM

    choose_threads(arguments.model)
    llm = Phi3LLM(
        model=arguments.model, quantization=arguments.quantization, device=arguments.device
    )
    with open_knowledge_base(
        arguments.kb,
        console,
        store=chosen_store(arguments, console),
        embedding=arguments.embedding,
        read_only=True,
    ) as knowledge_base:
        builder = TrainingSetBuilder(knowledge_base, llm=llm, seed=arguments.seed)
        return builder.build(
            questions=arguments.train_questions,
            glossary=arguments.glossary,
            conversations=arguments.conversations or (),
            replay=arguments.replay or (),
            show_progress=console.shows_progress,
        )


def _train(
    arguments: argparse.Namespace, train_set: TrainingSet, console: Console
) -> AdapterManifest:
    from phi3_industry.finetuning.trainer import LoraFinetuneEngine

    settings = {
        "lora_rank": arguments.rank,
        "num_epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "early_stopping_patience": arguments.patience,
        "report_to": ["tensorboard"] if arguments.tensorboard else None,
    }
    tuner = LoraFinetuneEngine(
        arguments.model,
        train_set=train_set,
        output_dir=arguments.output,
        device=arguments.device,
        method=arguments.method,
        seed=arguments.seed,
        packing=arguments.packing,
        show_progress=console.shows_progress,
        report=console.say,
        **{name: value for name, value in settings.items() if value is not None},
    )
    return tuner.finetune(resume=arguments.resume)


COMMAND = Command(
    summary="train an adapter from questions and answers",
    description=(
        "Train a LoRA or QLoRA adapter on the questions of a file, with the passages that the\n"
        "knowledge base finds for them, on a glossary, on conversations, or on all of these;\n"
        "without any, on questions made of the tables. Each line of the questions file is a\n"
        "JSON object:\n"
        '  {"id", "question", "answers": [...], "gold_ids": [...], "reference": ...}\n'
        "An empty list of answers marks a question that the documents cannot answer;\n"
        "reference is the answer in the form that the adapter is to learn."
    ),
    examples=("questions.train.jsonl --output adapters/mine",),
    add_arguments=_add_arguments,
    run=_run,
    exit_codes={ExitCode.WORSE: "the adapter is worse than the base model on the held-out rows"},
)
