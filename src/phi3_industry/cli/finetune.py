"""``phi3-industry finetune``: train an adapter from questions and answers."""

from __future__ import annotations

import argparse

from phi3_industry.cli.parts import choose_threads, open_knowledge_base

__all__ = ["run"]

_WORSE = 4


def run(arguments: argparse.Namespace) -> int:
    """Build the training rows, train, and write the adapter folder.

    Returns:
        0, or 4 if the adapter makes the model worse on the held-out rows.
    """
    from phi3_industry.finetuning.dataset import TrainingSetBuilder
    from phi3_industry.finetuning.trainer import LoraFinetuneEngine
    from phi3_industry.llms import Phi3LLM

    choose_threads(arguments.model)
    llm = Phi3LLM(model=arguments.model, quantization=arguments.quantization)
    with open_knowledge_base(
        arguments.kb, embedding=arguments.embedding, read_only=True
    ) as knowledge_base:
        builder = TrainingSetBuilder(knowledge_base, llm=llm, seed=arguments.seed)
        train_set = builder.build(
            questions=arguments.questions,
            glossary=arguments.glossary,
            conversations=arguments.conversations,
            replay=arguments.replay,
        )
    print(train_set.report)
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
        method=arguments.method,
        seed=arguments.seed,
        packing=arguments.packing,
        **{name: value for name, value in settings.items() if value is not None},
    )
    manifest = tuner.finetune(resume=arguments.resume)
    return _WORSE if manifest.metrics["verdict"] == "worse" else 0
