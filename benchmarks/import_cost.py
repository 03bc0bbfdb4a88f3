"""What importing costs, beside what torch, transformers and LlamaIndex cost themselves.

    python benchmarks/import_cost.py --rounds 7

Each step runs in a fresh interpreter, all steps in turns. Given are the CPU seconds of the process
and the most memory it held, the bare interpreter's taken off, and which heavy packages it loaded.
The round that fills the disk cache does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from statistics import median

from measuring import add_common_options, alternate, print_conditions, print_table, spread

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "faiss", "llama_index", "numpy")

BARE = "bare interpreter"
BY_HAND = """
import torch, llama_index.core
from transformers import AutoModelForCausalLM, AutoTokenizer
from phi3_industry.models.catalog import resolve_model
folder, _ = resolve_model("embedded")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
inputs = tokenizer("What is the oil of pump P-7?", return_tensors="pt")
model.generate(**inputs, max_new_tokens=4, min_new_tokens=4)
"""
STEPS = {
    BARE: "",
    "import phi3_industry": "import phi3_industry",
    "phi3-industry --help": """
import contextlib, io
from phi3_industry.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
""",
    "import llama_index.core": "import llama_index.core",
    "from phi3_industry import Phi3LLM": "from phi3_industry import Phi3LLM",
    "import torch": "import torch",
    "import transformers, Phi3ForCausalLM": "from transformers import Phi3ForCausalLM",
    "all three": "import torch, llama_index.core; from transformers import Phi3ForCausalLM",
    "all three, the embedded model by hand": BY_HAND,
    "Phi3LLM().complete": """
from phi3_industry import Phi3LLM
Phi3LLM().complete("What is the oil of pump P-7?", max_new_tokens=4)
""",
}
REPORT = """
import json, resource, sys
use = resource.getrusage(resource.RUSAGE_SELF)
loaded = [name for name in %r if name in sys.modules]
try:  # ru_maxrss counts what the parent held at the fork
    lines = open("/proc/self/status").read().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
except OSError:
    kib = use.ru_maxrss
print(json.dumps([use.ru_utime + use.ru_stime, kib / 1024, loaded]))
"""


@dataclass(frozen=True)
class Cost:
    """What a fresh interpreter took for a step."""

    cpu_s: float
    mib: float
    loaded: list[str]


def run(code: str, *, threads: int) -> Cost:
    """Run a step in a fresh interpreter."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    output = subprocess.run(
        [sys.executable, "-c", code + REPORT % (HEAVY,)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if output.returncode:
        sys.exit(f"The step failed:\n{code}\n{output.stderr[-2000:]}")
    return Cost(*json.loads(output.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common_options(parser, clock="cpu", rounds=7)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    print_conditions(options)
    costs: dict[str, list[Cost]] = {name: [] for name in STEPS}

    def step(name: str, number: int) -> float:
        cost = run(STEPS[name], threads=options.threads)
        if number >= 0:
            costs[name].append(cost)
        return cost.cpu_s

    seconds = alternate(
        {name: partial(step, name) for name in STEPS},
        rounds=options.rounds,
        warm_up=not options.quick,
    )
    bare_s, bare_mib = median(seconds[BARE]), median(cost.mib for cost in costs[BARE])
    rows = []
    for name, found in costs.items():
        less = (0.0, 0.0) if name == BARE else (bare_s, bare_mib)
        rows.append(
            [
                f"`{name}`" if name != BARE else name,
                spread([cost.cpu_s - less[0] for cost in found]),
                spread([cost.mib - less[1] for cost in found], digits=0),
                ", ".join(found[0].loaded) or "none",
            ]
        )
    print_table(("step", "CPU s over bare", "MiB over bare", "loaded"), rows)


if __name__ == "__main__":
    main()
