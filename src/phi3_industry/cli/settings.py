"""The settings that the command line and a project file share, each said once.

An option, the key of the project file, the lines of ``init`` and the table of ``doctor`` all
come from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["SETTINGS", "TABLES", "Kind", "Setting"]

Kind = Literal[
    "text", "model", "adapter", "file", "folder", "paths", "choice", "count", "whole", "amount",
    "switch", "store",
]  # fmt: skip
"""What a value is. ``model`` is a folder or a name; ``adapter`` likewise, names being those of the
project file; ``count`` is at least 1, ``amount`` above 0; ``store`` is ``folder`` or an address."""

TABLES = {
    "": "What the commands share.",
    "index": "Indexing.",
    "finetune": "Fine-tuning.",
    "compare": "Comparing.",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        key: Its key in the project file; the option is the same with dashes.
        kind: What its value is.
        help: What it means.
        default: What holds if nobody says anything.
        choices: The values it may have.
        table: The table of the project file that it stands in.
        example: A value to show where there is no default.
    """

    key: str
    kind: Kind
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    table: str = ""
    example: Any = None

    @property
    def name(self) -> str:
        """Its place in the project file, such as ``finetune.rank``."""
        return f"{self.table}.{self.key}" if self.table else self.key

    @property
    def option(self) -> str:
        """Its option, such as ``--learning-rate``."""
        return f"--{self.key.replace('_', '-')}"


_ALL = (
    Setting(
        key="model",
        kind="model",
        default="embedded",
        help="'embedded', a folder, or a hub id such as microsoft/Phi-3-mini-4k-instruct",
    ),
    Setting(
        key="quantization",
        kind="choice",
        choices=("nf4", "int8"),
        help="load the model in 4 or 8 bits",
    ),
    Setting(
        key="device",
        kind="text",
        default="auto",
        help="where to compute, such as cpu or cuda:1; auto takes the first GPU",
    ),
    Setting(
        key="base_url",
        kind="text",
        example="http://127.0.0.1:8000/v1",
        help="a server that answers in place of this machine, such as vLLM's",
    ),
    Setting(
        key="served_model",
        kind="text",
        example="phi-3",
        help="the server's name of the model, if it has several",
    ),
    Setting(
        key="kb",
        kind="folder",
        default="kb",
        help="the knowledge base",
    ),
    Setting(
        key="store",
        kind="store",
        default="folder",
        help="where its nodes lie: in its folder, or in another vector store, by an address such "
        "as postgresql://me@127.0.0.1/kb?table=kb or qdrant+http://127.0.0.1:6333?collection=kb",
    ),
    Setting(
        key="embedding",
        kind="model",
        default="embedded",
        help="the embedding it is built with: 'embedded', a folder, a hub id, or a service",
    ),
    Setting(
        key="documents",
        kind="paths",
        example=["documents"],
        help="what index reads: folders and files",
    ),
    Setting(
        key="strategy",
        kind="choice",
        default="auto",
        choices=("auto", "base", "rag", "fine_tuned", "rag_fine_tuned"),
        help="how to answer",
    ),
    Setting(key="top_k", kind="count", default=3, help="passages to answer from"),
    Setting(
        key="conflicts",
        kind="choice",
        default="ignore",
        choices=("ignore", "mark", "show", "abstain"),
        help="ask once more over the passages that do not say what the answer says; where they "
        "answer otherwise, mark it, show both answers, or abstain",
    ),
    Setting(
        key="adapter",
        kind="adapter",
        example="adapters/mine",
        help="the adapter to answer with: a folder, or a name of [adapters] in the project file",
    ),
    Setting(
        key="questions",
        kind="file",
        example="questions.dev.jsonl",
        help="the questions to compare on (JSON Lines)",
    ),
    Setting(
        key="train_questions",
        kind="file",
        example="questions.train.jsonl",
        help="the questions to train on (JSON Lines)",
    ),
    Setting(
        table="index",
        key="summaries",
        kind="choice",
        choices=("outline",),
        help="show the first lines and headings of its document above each passage",
    ),
    Setting(
        table="index",
        key="refresh",
        kind="switch",
        default=False,
        help="also delete what was indexed from a folder and is gone from it",
    ),
    Setting(
        table="finetune",
        key="output",
        kind="folder",
        example="adapters/mine",
        help="the adapter to write",
    ),
    Setting(
        table="finetune",
        key="method",
        kind="choice",
        default="lora",
        choices=("lora", "qlora", "rslora", "dora", "pissa"),
        help="qlora keeps the base model in 4 bits while training",
    ),
    Setting(
        table="finetune",
        key="glossary",
        kind="file",
        example="glossary.jsonl",
        help="terms, units and answer forms to teach",
    ),
    Setting(
        table="finetune",
        key="conversations",
        kind="paths",
        example=["conversations.jsonl"],
        help="exchanges to learn from",
    ),
    Setting(
        table="finetune",
        key="replay",
        kind="paths",
        example=["general.jsonl"],
        help="general conversations, so that what the base can do stays",
    ),
    Setting(table="finetune", key="rank", kind="count", example=16, help="rank of the adapter"),
    Setting(table="finetune", key="epochs", kind="amount", example=3, help="passes over the rows"),
    Setting(
        table="finetune",
        key="learning_rate",
        kind="amount",
        example=0.0002,
        help="peak learning rate",
    ),
    Setting(
        table="finetune",
        key="patience",
        kind="count",
        example=3,
        help="stop after N checkpoints without a lower loss on the held-out rows",
    ),
    Setting(
        table="finetune",
        key="packing",
        kind="switch",
        default=False,
        help="lay rows side by side in place of padding them",
    ),
    Setting(
        table="finetune",
        key="tensorboard",
        kind="switch",
        default=False,
        help="also log to TensorBoard, inside the adapter",
    ),
    Setting(table="finetune", key="seed", kind="whole", default=0, help="seed of everything"),
    Setting(
        table="compare",
        key="workers",
        kind="count",
        default=1,
        help="questions to ask at once; latencies are then those under that load",
    ),
    Setting(
        table="compare",
        key="prompt_price",
        kind="amount",
        example=0.15,
        help="price of a million tokens that the model reads",
    ),
    Setting(
        table="compare",
        key="completion_price",
        kind="amount",
        example=0.6,
        help="price of a million tokens that it writes",
    ),
    Setting(
        table="compare",
        key="hour_price",
        kind="amount",
        example=1.2,
        help="price of an hour of the machine that answers",
    ),
    Setting(
        table="compare",
        key="training_price",
        kind="amount",
        example=50.0,
        help="one-off price of fine-tuning",
    ),
    Setting(
        table="compare",
        key="currency",
        kind="text",
        default="USD",
        help="the currency of the prices",
    ),
)

SETTINGS = {setting.key: setting for setting in _ALL}
