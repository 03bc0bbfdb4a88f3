"""Merge an adapter into its base model, and measure what the merge costs.

An adapter is merged into 16- or 32-bit weights only. In 4 bits the rounding would swallow most of
what was learned. Source: unsloth issues 800 and 1089.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from phi3_industry.errors import AdapterError
from phi3_industry.models.adapter import attach_adapter, check_fits, read_manifest
from phi3_industry.models.loading import DType, LoadedModel, load_base_model

if TYPE_CHECKING:
    import torch

__all__ = ["MERGE_RECORD_NAME", "LogitDrift", "MergedModel", "measure_drift", "merge_adapter"]

MERGE_RECORD_NAME = "phi3_industry_merge.json"
_PROBE_ROWS = 4
_PROBE_TOKENS = 48


@dataclass(frozen=True, kw_only=True)
class LogitDrift:
    """How far the logits of two models are apart on the same tokens.

    Attributes:
        max_abs: Largest difference of one logit.
        mean_abs: Mean difference of a logit.
        kl_divergence: Mean Kullback-Leibler divergence of the next token's distribution, in nats.
        same_choice: Share of positions at which both find the same token most probable.
        positions: Positions that were compared.
    """

    max_abs: float
    mean_abs: float
    kl_divergence: float
    same_choice: float
    positions: int


@dataclass(frozen=True, kw_only=True)
class MergedModel:
    """What a merge made.

    Attributes:
        path: Folder of the merged model, which loads like any other.
        drift: From the base with the adapter beside it to the merged model.
        training_drift: For an adapter that was trained with QLoRA, from the 4-bit base that it
            was trained on to the merged model; ``None`` for others.
    """

    path: Path
    drift: LogitDrift
    training_drift: LogitDrift | None


def merge_adapter(
    model: str,
    adapter: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    revision: str | None = None,
    dtype: DType = "auto",
    device: str = "auto",
    local_files_only: bool = False,
    probes: Sequence[Sequence[Mapping[str, str]]] | None = None,
) -> MergedModel:
    """Merge an adapter into a base model and write the result as a model of its own.

    The base is loaded anew, so that no model in use is changed.

    Args:
        model: The base model: ``"embedded"``, a folder, or a hub id.
        adapter: The adapter folder.
        output_dir: Where to write the merged model; it must not exist or be empty.
        revision: Revision of the base on the hub.
        dtype: The type of the merged weights.
        device: Where to merge.
        local_files_only: Whether to keep off the network.
        probes: Conversations to measure the drift on; by default, random text tokens.

    Returns:
        The merged model, with the measured drift, which is also written to
        ``phi3_industry_merge.json`` beside it.

    Raises:
        FileExistsError: ``output_dir`` holds something.
        AdapterError: The adapter is damaged or does not fit, the base is stored quantised, or
            the merged weights are no numbers.
        ModelLoadError: The base does not load.
    """
    target = Path(output_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"'{target}' holds something already. Choose another output_dir.")
    options: dict[str, Any] = {
        "revision": revision,
        "device": device,
        "local_files_only": local_files_only,
    }
    manifest = read_manifest(adapter)
    base = load_base_model(model, dtype=dtype, **options)
    if base.quantization is not None:
        raise AdapterError(
            f"The weights of '{model}' are stored as {base.quantization}, and an adapter is merged "
            "into 16- or 32-bit weights only: rounding would swallow what it learned. Give the "
            "original checkpoint."
        )
    check_fits(manifest, base, adapter=adapter)
    rows = _probe_rows(base, probes)
    adapted = attach_adapter(base.model, adapter, internal_name="merging")
    before = [_logits(adapted, row) for row in rows]
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise AdapterError(f"The adapter '{adapter}' cannot be merged: {error}") from error
    after = [_logits(merged, row) for row in rows]
    trained: LogitDrift | None = None
    if manifest.method == "qlora":
        quantised = load_base_model(model, dtype=dtype, quantization="nf4", **options).model
        quantised = attach_adapter(quantised, adapter, internal_name="merging")
        trained = measure_drift([_logits(quantised, row) for row in rows], after)
    result = MergedModel(path=target, drift=measure_drift(before, after), training_drift=trained)
    _write(merged, base, result, record={"adapter": manifest.files, "base": manifest.base_model})
    return result


def measure_drift(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> LogitDrift:
    """Compare logits position by position.

    Args:
        before: Logits of each row, ``(seq_len, vocab_size)``.
        after: Those of the other model on the same rows.
    """
    import torch

    first, second = torch.cat(list(before)), torch.cat(list(after))
    difference = (first - second).abs()
    divergence = torch.nn.functional.kl_div(
        second.log_softmax(-1), first.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    return LogitDrift(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        kl_divergence=max(0.0, float(divergence)),
        same_choice=float((first.argmax(-1) == second.argmax(-1)).float().mean()),
        positions=len(first),
    )


def _probe_rows(
    base: LoadedModel, probes: Sequence[Sequence[Mapping[str, str]]] | None
) -> list[list[int]]:
    import torch

    if probes is not None:
        if not probes:
            raise ValueError("probes is empty; give a conversation, or leave it out.")
        return [base.chat_format.encode_messages(messages) for messages in probes]
    size = base.model.get_input_embeddings().weight.shape[0]
    text = torch.tensor(
        [token for token in range(size) if token not in base.chat_format.control_token_ids]
    )
    generator = torch.Generator().manual_seed(0)
    length = min(_PROBE_TOKENS, base.checkpoint.context_window)
    chosen = torch.randint(len(text), (_PROBE_ROWS, length), generator=generator)
    return [[int(token) for token in row] for row in text[chosen]]


def _logits(model: Any, row: Sequence[int]) -> torch.Tensor:
    """Compute the logits of all positions of one row, ``(seq_len, vocab_size)``, in float32."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([list(row)], device=model.device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
        return logits.float().cpu()


def _write(merged: Any, base: LoadedModel, result: MergedModel, *, record: Any) -> None:
    """Write the merged model beside its place, then put it there in one step."""
    target = result.path
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        merged.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        measured = {
            "drift": asdict(result.drift),
            "training_drift": result.training_drift and asdict(result.training_drift),
        }
        text = json.dumps({**record, **measured}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / MERGE_RECORD_NAME).write_text(text + "\n", encoding="utf-8")
        folder.chmod(0o755)  # a temporary folder is its owner's alone
        if target.exists():
            target.rmdir()
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
