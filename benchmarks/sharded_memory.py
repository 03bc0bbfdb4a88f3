"""What each of several processes holds while it trains: the whole base (DDP), or a share (FSDP).

Without options it prints the plan for Phi-3-medium and for the shape of a 70B model on two GPUs, by
the estimator that preflight uses, from sizes alone::

    python benchmarks/sharded_memory.py

With ``--measure`` it trains a small random Phi-3 on the CPU, in one process and in two that share
it, and prints what each holds beside what the estimator says::

    OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py --measure

Measured are the bytes of the tensors that a process has of base, adapter and optimiser, after a
step. Activations are not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import Phi3Config, Phi3ForCausalLM

from phi3_industry import LoraFinetuneEngine
from phi3_industry.finetuning import progress
from phi3_industry.finetuning.config import FinetuneConfig
from phi3_industry.finetuning.preflight import module_parameters
from phi3_industry.finetuning.processes import ThisProcess, share_rows
from phi3_industry.finetuning.resources import TrainingMemory, estimate_training_memory
from phi3_industry.finetuning.rows import TrainingRow
from phi3_industry.finetuning.training_set import TrainingReport, TrainingSet
from phi3_industry.grounding.prompt import DEFAULT_PROMPT
from phi3_industry.models.adapter import resolve_target_modules
from phi3_industry.models.memory import estimate_memory

_GIB = 2**30
_MEDIUM = {
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "vocab_size": 32064,
    "tie_word_embeddings": False,
}
# the published sizes of Llama 3 70B, in the layers of a Phi-3
_SEVENTY = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
_SMALL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
    "max_position_embeddings": 1024,
}
_SHARING = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}


def main() -> None:
    """Print the plan, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2048, help="tokens of the longest row")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _train(json.loads(options.child))
    elif options.measure:
        _measure()
    else:
        _plan(options.tokens)


def _plan(tokens: int) -> None:
    config = FinetuneConfig(method="qlora", batch_size=1, gradient_accumulation_steps=16)
    print(f"QLoRA, rank 16 on all linear layers, 1 row of {tokens} tokens a pass and process, GiB")
    for name, sizes in (("Phi-3-medium (14B)", _MEDIUM), ("70B class", _SEVENTY)):
        for processes, shares in ((1, 1), (2, 1), (2, 2)):
            found = _estimate(
                sizes, config, tokens=tokens, processes=processes, shares=shares, dtype="bfloat16"
            )
            how = "alone" if processes == 1 else "FSDP" if shares == 2 else "DDP"
            parts = {
                "base": found.weights,
                "layers gathered": found.gathered,
                "adapter, gradients, optimiser": (
                    found.adapter + found.gradients + found.optimizer
                ),
                "activations": found.activations,
                "training": found.weights + found.to_come,
                "loading": found.loading or found.weights,
            }
            listed = ", ".join(f"{part} {size / _GIB:.1f}" for part, size in parts.items())
            print(f"{name:<20}{processes} x {how:<6}{listed}")


def _estimate(
    sizes: Mapping[str, Any],
    config: FinetuneConfig,
    *,
    tokens: int,
    processes: int,
    shares: int,
    dtype: Any,
) -> TrainingMemory:
    quantization = config.quantization
    base = estimate_memory(sizes, dtype=dtype, quantization=quantization)
    recipe = config.recipe(base.parameters)
    with torch.device("meta"):
        model = Phi3ForCausalLM(Phi3Config(**{**sizes, "pad_token_id": 0}))
    targets = resolve_target_modules(model, None)
    modules = module_parameters(model, targets, rank=recipe.lora_rank, method=config.method)
    return estimate_training_memory(
        sizes,
        share_rows(recipe, ThisProcess(count=processes)),
        base=base,
        trained_parameters=sum(count for _, count in modules.values()),
        longest_row=tokens,
        dtype=dtype,
        shares=shares,
    )


def _measure() -> None:
    from random_models import Shape, save_random_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random_model(folder / "model", Shape("small", _SMALL), seed=0)
        _save_rows(folder / "rows")
        for method in ("lora", "qlora"):
            for processes in (1, 2):
                config = FinetuneConfig(method=method, batch_size=1)
                said = _launch(folder, method=method, processes=processes)
                estimate = _estimate(
                    _SMALL,
                    config,
                    tokens=100,
                    processes=1,
                    shares=processes,
                    dtype=said[0]["dtype"],
                )
                for part, expected in (
                    ("base", estimate.weights),
                    ("adapter", estimate.adapter),
                    ("optimiser", estimate.optimizer),
                ):
                    held = [child[part] for child in said]
                    listed = " and ".join(f"{size / 2**20:.3f}" for size in held)
                    print(
                        f"{method:<6}{processes} processes  {part:<10}measured {listed} MiB, "
                        f"estimated {expected / 2**20:.3f}"
                    )


def _save_rows(folder: Path) -> None:
    rows = tuple(
        TrainingRow(
            prompt=DEFAULT_PROMPT.grounded(f"What is the pressure of P-{n}?", [f"P-{n}: {n} bar."]),
            completion=[{"role": "assistant", "content": f"[1] {n} bar"}],
            slice="grounded",
            split="train",
        )
        for n in range(8)
    )
    report = TrainingReport(questions=8, counts={})
    fingerprint = DEFAULT_PROMPT.fingerprint
    TrainingSet(rows=rows, prompt_fingerprint=fingerprint, report=report).save(folder)


def _launch(folder: Path, *, method: str, processes: int) -> list[dict[str, Any]]:
    output = folder / f"{method}-{processes}"
    settings = {
        "model": str(folder / "model"),
        "train_set": str(folder / "rows"),
        "output_dir": str(output / "adapter"),
        "method": method,
        "said": str(output),
    }
    output.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [sys.executable, *launcher, __file__, "--child", json.dumps(settings)],
        env={**os.environ, **_SHARING, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
        capture_output=True,
    )
    return [json.loads(path.read_text()) for path in sorted(output.glob("process-*.json"))]


def _train(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    said = Path(settings.pop("said"))
    step_end = progress.Watcher.on_step_end

    def weigh(self: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
        step_end(self, args, state, control)
        model, optimizer = given["model"], given["optimizer"]
        adapter = [p for p in model.parameters() if p.requires_grad]
        kept = [v for own in optimizer.state.values() for v in own.values()]
        held = {
            "base": sum(_held(p) for p in model.parameters() if not p.requires_grad)
            + sum(_held(v) for m in model.modules() for v in _quantisation(m)),
            "adapter": sum(map(_held, adapter)),
            "optimiser": sum(_held(v) for v in kept if v.dim()),
            "dtype": str(model.config.dtype).removeprefix("torch."),
        }
        (said / f"process-{args.process_index}.json").write_text(json.dumps(held))

    progress.Watcher.on_step_end = weigh  # type: ignore[method-assign]
    LoraFinetuneEngine(
        settings.pop("model"), device="cpu", max_steps=1, batch_size=2, **settings
    ).finetune()


def _quantisation(module: Any) -> list[torch.Tensor]:
    """The scales of a layer in 4 bits, which every process has of the whole layer."""
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is None:
        return []
    nested = [state.state2.absmax] if state.state2 is not None else []
    return [state.absmax, *nested]


def _held(tensor: torch.Tensor) -> int:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


if __name__ == "__main__":
    main()
