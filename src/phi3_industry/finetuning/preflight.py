"""What can be known to go wrong before the first training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from phi3_industry.errors import ConfigurationError, TrainingDataError
from phi3_industry.finetuning.config import FinetuneConfig, Method, Recipe
from phi3_industry.finetuning.examples import IGNORED, TokenizedRow, tokenize_rows
from phi3_industry.finetuning.folders import check_target
from phi3_industry.finetuning.processes import ALONE, ThisProcess, share_rows
from phi3_industry.finetuning.resources import (
    TrainingMemory,
    check_disk,
    check_memory,
    estimate_training_memory,
)
from phi3_industry.finetuning.training_set import TrainingSet
from phi3_industry.models.adapter import (
    MANIFEST_NAME,
    linear_module_names,
    resolve_target_modules,
)
from phi3_industry.models.chat_format import ChatFormat
from phi3_industry.models.loading import LoadedModel

__all__ = ["PreflightReport", "check_output", "module_parameters", "preflight"]

_DOUBLED_RANK = 2
"""A PiSSA adapter is saved as the difference of two, side by side."""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What a run will train, and on what.

    Attributes:
        config: The settings as they were given.
        recipe: Those of them that the model's size decides, with nothing left open.
        target_modules: Names of the linear layers that get an adapter.
        module_parameters: For each of them how many layers there are and how many parameters
            their adapters have together.
        base_parameters: Parameters of the base model.
        train: The training rows as token ids.
        validation: The held-out rows as token ids.
        validation_slices: The slice of each held-out row.
        memory: Estimate of what training takes.
        pad_token_id: The token that fills up shorter rows; it carries no loss.
        notes: What is allowed but worth knowing.
    """

    config: FinetuneConfig
    recipe: Recipe
    target_modules: list[str]
    module_parameters: dict[str, tuple[int, int]]
    base_parameters: int
    train: list[TokenizedRow]
    validation: list[TokenizedRow]
    validation_slices: list[str]
    memory: TrainingMemory
    pad_token_id: int
    notes: tuple[str, ...] = ()

    @property
    def trained_parameters(self) -> int:
        """Parameters that are trained."""
        return sum(parameters for _, parameters in self.module_parameters.values())

    def table(self) -> str:
        """Write what is trained as a table."""
        width = max(len(name) for name in [*self.module_parameters, "together"])
        lines = [f"{'layer':<{width}}  {'count':>5}  {'trained':>12}"]
        for name, (count, parameters) in self.module_parameters.items():
            lines.append(f"{name:<{width}}  {count:>5}  {parameters:>12,}")
        count = sum(count for count, _ in self.module_parameters.values())
        lines.append(f"{'together':<{width}}  {count:>5}  {self.trained_parameters:>12,}")
        share = self.trained_parameters / self.base_parameters
        lines.append(f"{share:.2%} of the base model's {self.base_parameters:,} parameters")
        lines.append(str(self.memory))
        lines.extend(self.notes)
        return "\n".join(lines)


def check_output(output_dir: str | PathLike[str]) -> Path:
    """Check that an adapter may be written to a folder.

    Returns:
        The folder as an absolute path.

    Raises:
        FileExistsError: Something else is there.
    """
    return check_target(output_dir, marker=MANIFEST_NAME)


def preflight(
    loaded: LoadedModel,
    train_set: TrainingSet,
    config: FinetuneConfig,
    *,
    output_dir: str | PathLike[str],
    process: ThisProcess = ALONE,
) -> PreflightReport:
    """Check everything that can be checked before training, and say what will be trained.

    Args:
        loaded: The base model to train on.
        train_set: The rows.
        config: The settings.
        output_dir: Where the adapter is to be written.
        process: Which of the processes that train together this is.

    Returns:
        The report.

    Raises:
        TargetModuleError: A target is in no layer of the model.
        ConfigurationError: The chat template loses text, ``max_length`` is above the window,
            the run does not fit into memory, or the rows of a step cannot be shared evenly.
        TrainingDataError: A row is too long or empty.
        FileExistsError: ``output_dir`` holds something else.
        OSError: There is too little room on the disk.
    """
    path = check_output(output_dir)
    base_parameters = loaded.model.num_parameters()
    recipe = config.recipe(base_parameters)
    targets = resolve_target_modules(loaded.model, config.target_modules)
    modules = module_parameters(loaded.model, targets, rank=recipe.lora_rank, method=config.method)
    trained = sum(parameters for _, parameters in modules.values())
    check_disk(
        path, trained_parameters=trained * (_DOUBLED_RANK if config.method == "pissa" else 1)
    )
    _check_text_survives(train_set, loaded.chat_format)
    train, validation = _tokenize(loaded, train_set, config)
    memory = estimate_training_memory(
        loaded.model.config.to_dict(),
        share_rows(recipe, process),
        base=loaded.memory,
        trained_parameters=trained,
        longest_row=max(len(row.input_ids) for row in train),
        dtype=loaded.dtype,
        shares=process.count if process.shares else 1,
    )
    if config.check_memory:
        check_memory(memory, recipe, device=loaded.device)
    return PreflightReport(
        config=config,
        recipe=recipe,
        target_modules=targets,
        module_parameters=modules,
        base_parameters=base_parameters,
        train=train,
        validation=validation,
        validation_slices=[row.slice for row in train_set.split("validation")],
        memory=memory,
        pad_token_id=_pad_token_id(loaded),
        notes=tuple(_length_notes([*train, *validation], loaded.checkpoint.length_cliffs)),
    )


def _tokenize(
    loaded: LoadedModel, train_set: TrainingSet, config: FinetuneConfig
) -> tuple[list[TokenizedRow], list[TokenizedRow]]:
    window = loaded.checkpoint.context_window
    if config.max_length is not None and config.max_length > window:
        raise ConfigurationError(
            f"max_length is {config.max_length}, and '{loaded.name}' holds {window} tokens. "
            f"Lower it to {window} or less."
        )
    max_length = config.max_length or window
    train, validation = (
        tokenize_rows(train_set.split(split), loaded.chat_format, max_length=max_length)
        for split in ("train", "validation")
    )
    for rows in (train, validation):
        _check_masks(rows, loaded.chat_format)
        _check_single_start(rows, loaded.tokenizer.bos_token_id)
    return train, validation


def module_parameters(
    model: Any, targets: Sequence[str], *, rank: int, method: Method
) -> dict[str, tuple[int, int]]:
    """Count each target's layers and the parameters of their two matrices, and DoRA's lengths."""
    counted = dict.fromkeys(targets, (0, 0))
    for name, (rows, columns) in linear_module_names(model).items():
        target = name.rsplit(".", 1)[-1]
        if target in counted:
            layers, parameters = counted[target]
            lengths = rows if method == "dora" else 0
            counted[target] = (layers + 1, parameters + rank * (rows + columns) + lengths)
    return counted


def _check_text_survives(train_set: TrainingSet, chat_format: ChatFormat) -> None:
    """Check that a template shows every message; early Phi-3 templates drop the system text."""
    for row in train_set.rows[:1]:
        shown = chat_format.decode(chat_format.encode_messages(row.prompt))
        for message in row.prompt:
            expected = chat_format.decode(chat_format.encode_text(message["content"]))
            if "".join(expected.split()) not in "".join(shown.split()):
                raise ConfigurationError(
                    f"The chat template loses the {message['role']} message. Use the "
                    "checkpoint's current chat template."
                )


def _check_masks(rows: Sequence[TokenizedRow], chat_format: ChatFormat) -> None:
    """Check that each row trains its answer with the token that ends it, and not its prompt."""
    for number, row in enumerate(rows, start=1):
        prompt = len(row.labels) - row.trained
        whole = row.labels[:prompt] == [IGNORED] * prompt and row.trained
        if not prompt or not whole or row.labels[-1] not in chat_format.stop_token_ids:
            raise TrainingDataError(
                f"{row.trained} of its {len(row.labels)} tokens would be trained, with the label "
                f"{row.labels[-1]} at the end. The answer and the token that ends it have to be "
                "trained, and the prompt has not. Use the checkpoint's own chat template.",
                record=number,
            )


def _check_single_start(rows: Sequence[TokenizedRow], bos_token_id: int | None) -> None:
    """Check that no row has two start tokens, one from the template and one from the tokenizer."""
    if bos_token_id is None:
        return
    for number, row in enumerate(rows, start=1):
        if row.input_ids[:2] == [bos_token_id, bos_token_id]:
            raise TrainingDataError("It begins with two start tokens.", record=number)


def _pad_token_id(loaded: LoadedModel) -> int:
    """Choose a token to fill up rows with: any that the embedding has and that ends no answer."""
    size = loaded.model.get_input_embeddings().weight.shape[0]
    ends = set(loaded.chat_format.end_of_turn_ids)
    tokenizer = loaded.tokenizer
    for token in (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id, 0):
        if token is not None and 0 <= token < size and token not in ends:
            return int(token)
    return next(token for token in range(size) if token not in ends)


def _length_notes(rows: Sequence[TokenizedRow], cliffs: Sequence[int]) -> list[str]:
    lengths = [len(row.input_ids) for row in rows]
    return [
        f"{sum(length > cliff for length in lengths)} rows are longer than {cliff} tokens, where "
        "this model changes its behaviour"
        for cliff in cliffs
        if max(lengths) > cliff
    ]
